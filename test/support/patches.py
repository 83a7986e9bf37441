# SPDX-License-Identifier: Apache-2.0
"""Pictures with depth of square patches before a wall, for tests in which a camera moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clip_seg_ros.pipeline.space.fixed_frame import inverse, moved_points
from clip_seg_ros.pipeline.space.localization import with_position
from clip_seg_ros.types import CameraFrame, CameraIntrinsics, ObjectRegion

LENS = CameraIntrinsics(200.0, 200.0, 119.5, 79.5, 240, 160)
WALL_M = 2.0
RED, BLUE, GREEN = (200, 30, 30), (30, 40, 190), (20, 150, 40)


@dataclass(frozen=True)
class Patch:
    """A square whose face looks at the camera."""

    name: str
    center_m: tuple[float, float, float]
    color: tuple[int, int, int] = RED
    side_m: float = 0.1


def camera_at(x: float, y: float = 0.0, z: float = 0.0, quarters: int = 0) -> np.ndarray:
    """Returns the transform of a camera that looks along z and is rolled by quarters of a turn."""
    c, s = np.round([np.cos(quarters * np.pi / 2), np.sin(quarters * np.pi / 2)])
    return np.array([[c, -s, 0, x], [s, c, 0, y], [0, 0, 1, z], [0, 0, 0, 1.0]])


def picture(
    patches: Sequence[Patch], camera: np.ndarray, stamp_ns: int = 0, score: float = 0.9
) -> tuple[CameraFrame, list[ObjectRegion]]:
    """Draws patches, and returns the picture and the regions of those that are visible, in their order."""
    shape = (LENS.height, LENS.width)
    rgb, labels = np.full((*shape, 3), 120, np.uint8), np.zeros(shape, np.uint8)
    depth_m = np.full(shape, WALL_M - camera[2, 3], np.float32)
    places = moved_points(inverse(camera), np.array([patch.center_m for patch in patches]).reshape(-1, 3))
    y, x = np.mgrid[: shape[0], : shape[1]]
    for index in np.argsort(-places[:, 2]):
        (px, py, z), half = places[index], patches[index].side_m / 2
        inside = (np.abs((x - LENS.cx) * z / LENS.fx - px) <= half) & (np.abs((y - LENS.cy) * z / LENS.fy - py) <= half)
        rgb[inside], depth_m[inside], labels[inside] = patches[index].color, z, index + 1
    frame = CameraFrame(rgb, stamp_ns, "camera", depth_m, LENS)
    masks = [(index, labels == index) for index in range(1, len(patches) + 1)]
    found = [ObjectRegion.of_mask(patches[i - 1].name, i, score, mask) for i, mask in masks if mask.any()]
    return frame, [with_position(region, frame) for region in found]
