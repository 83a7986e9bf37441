# SPDX-License-Identifier: Apache-2.0
"""The rendered pictures that the examples begin with. ``python test/support/example_table.py`` writes them anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import yaml

from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import sample_scene

LARGE_SIZE = (1600, 1200)
FARTHER = 3.0
"""How many times as far from the table the camera of the large picture is."""


def views() -> dict[str, RenderedView]:
    """The table ("color"), the same from far away ("large"), and another table with a red cup ("example")."""
    scene = sample_scene(3, required=[("red", "cup"), ("blue", "box")])
    eye, target = np.array(scene.camera.eye), np.array(scene.camera.target)
    far = replace(scene.camera, eye=tuple(target + FARTHER * (eye - target)))
    with SceneRenderer() as renderer:
        color = renderer.render(scene)
        example = renderer.render(sample_scene(40, required=[("red", "cup")]), depth=False)
    with SceneRenderer(*LARGE_SIZE) as renderer:
        return {"color": color, "example": example, "large": renderer.render(scene, far, depth=False)}


def write(folder: Path, views: dict[str, RenderedView]) -> None:
    """Writes what the examples read: colours as JPEG, depth in millimetres, a mask, and the camera's calibration."""
    for name, view in views.items():
        cv2.imwrite(str(folder / f"{name}.jpg"), view.rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    depth_mm = np.nan_to_num(views["color"].depth_m * 1000).round()
    cv2.imwrite(str(folder / "depth.png"), depth_mm.astype(np.uint16))
    mask = views["example"].mask_of("red", "cup")
    cv2.imwrite(str(folder / "example_mask.png"), mask.astype(np.uint8) * 255)
    lens = views["color"].intrinsics
    matrix = [lens.fx, 0.0, lens.cx, 0.0, lens.fy, lens.cy, 0.0, 0.0, 1.0]
    camera = {
        "image_width": lens.width,
        "image_height": lens.height,
        "camera_matrix": {"rows": 3, "cols": 3, "data": [round(float(value), 3) for value in matrix]},
    }
    (folder / "camera.yaml").write_text(yaml.safe_dump(camera, sort_keys=False, default_flow_style=None))


if __name__ == "__main__":
    write(Path(__file__).parents[2] / "examples" / "table", views())
