# SPDX-License-Identifier: Apache-2.0
"""What a viewer is shown of the rendered table: picture, things with exact masks, points, boxes and the plane."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from clip_seg_ros.pipeline.postprocess import label_image
from clip_seg_ros.pipeline.space.ground import fit_ground
from clip_seg_ros.pipeline.space.localization import Measurement, measure
from clip_seg_ros.pipeline.space.point_cloud import PointCloud, point_cloud
from clip_seg_ros.pipeline.space.rays import ray_table
from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import sample_scene
from clip_seg_ros.types import CameraFrame, ObjectRegion, OrientedBox, quaternion, vector3
from clip_seg_ros.viewer.views import Thing, View

MOST_POINTS = 3000
"""Of each thing."""
SURROUNDINGS = 4000
"""About how many points the surroundings have."""
WORLD = "world"


def render_table(seed: int = 3, size: tuple[int, int] = (640, 480)) -> RenderedView:
    """Renders a table with a red cup, a blue box and other things."""
    with SceneRenderer(*size) as renderer:
        return renderer.render(sample_scene(seed, required=[("red", "cup"), ("blue", "box")]))


def table_view(
    rendered: RenderedView,
    camera: str = "",
    in_world: bool = False,
    stamp_ns: int = 1_700_000_000_123_456_789,
    anchors: Sequence[str] = ("blue box",),
) -> View:
    """Makes what a perfect model would answer of a rendered table if it was asked for all of its things.

    Args:
        rendered: The table, with depth.
        camera: The name of its camera.
        in_world: Whether positions are in the frame of the world; otherwise they are in the camera's optical frame.
        stamp_ns: When it was taken.
        anchors: Names of things that others relate to: these have the id 0.
    """
    frame = CameraFrame(rendered.rgb, stamp_ns, "camera", rendered.depth_m, rendered.intrinsics)
    measured = [measure(region, frame) for region in _regions(rendered)]
    pose = rendered.camera_to_world if in_world else np.eye(4)
    asked = [part for part in measured if part.region.prompt not in anchors]
    cloud = point_cloud(asked, rendered.rgb, MOST_POINTS)
    ground = fit_ground(frame)
    return View(
        camera=camera,
        stamp_ns=stamp_ns,
        arrived_s=time.monotonic(),
        rgb=rendered.rgb,
        prompts=tuple(dict.fromkeys(part.region.prompt for part in asked)),
        things=tuple(_thing(part, pose, part.region.prompt in anchors) for part in measured),
        labels=label_image([part.region for part in asked], rendered.rgb.shape[:2]),
        frame=WORLD if in_world else "camera",
        cloud=PointCloud(_moved(cloud.points_m, pose), cloud.rgb, cloud.ids),
        surroundings=_surroundings(rendered, pose),
        intrinsics=rendered.intrinsics,
        camera_pose=pose if in_world else None,
        table=None if ground is None else _moved_plane((*ground.up, ground.camera_m), pose),
        notes={"latency_ms": 12.5},
    )


def _regions(rendered: RenderedView) -> list[ObjectRegion]:
    found = []
    for index, item in enumerate(rendered.objects):
        mask = rendered.labels == 1 + index
        if mask.any():
            found.append(ObjectRegion.of_mask(item.name, 1 + index, 0.97 - 0.04 * index, mask))
    return found


def _thing(part: Measurement, pose: np.ndarray, is_anchor: bool) -> Thing:
    region = part.region
    position = None if region.position_m is None else _moved(np.array([region.position_m]), pose)[0]
    return Thing(
        prompt=region.prompt,
        id=0 if is_anchor else region.id,
        score=region.score,
        box_px=region.box_px,
        centroid_px=region.centroid_px,
        area_px=region.area_px,
        position_m=None if position is None else vector3(position),
        box_m=None if region.box_m is None else _moved_box(region.box_m, pose),
    )


def _surroundings(rendered: RenderedView, pose: np.ndarray) -> PointCloud:
    step = max(1, round(float(np.sqrt(rendered.depth_m.size / SURROUNDINGS))))
    some = slice(step // 2, None, step)
    depth, rays = rendered.depth_m[some, some], ray_table(rendered.intrinsics)[some, some]
    seen = np.isfinite(depth)
    points = np.column_stack([rays[seen] * depth[seen][:, None], depth[seen]])
    return PointCloud(_moved(points, pose), rendered.rgb[some, some][seen], np.zeros(np.count_nonzero(seen), np.uint8))


def _moved(points_m: np.ndarray, pose: np.ndarray) -> np.ndarray:
    return (points_m @ pose[:3, :3].T + pose[:3, 3]).astype(np.float32)


def _moved_plane(plane: Sequence[float], pose: np.ndarray) -> tuple[float, float, float, float]:
    normal = pose[:3, :3] @ np.array(plane[:3])
    a, b, c = vector3(normal)
    return a, b, c, float(plane[3] - normal @ pose[:3, 3])


def _moved_box(box: OrientedBox, pose: np.ndarray) -> OrientedBox:
    x, y, z, w = box.orientation_xyzw
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    center = vector3(pose[:3, :3] @ np.array(box.center_m) + pose[:3, 3])
    return OrientedBox(center, box.size_m, quaternion(pose[:3, :3] @ turn))
