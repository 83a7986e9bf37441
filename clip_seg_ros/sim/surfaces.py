# SPDX-License-Identifier: Apache-2.0
"""Computes from the camera, without rendering, which surface lies behind the objects: the table or the floor."""

from __future__ import annotations

import numpy as np

from clip_seg_ros.sim.renderer import FLOOR_REACH_M, FLOOR_Z, TABLE_HALF_SIZE, camera_to_world
from clip_seg_ros.sim.scene import CameraPose

SURFACES: tuple[str, ...] = ("table", "floor")
BEYOND = 255
"""The value of pixels that show what lies beyond the floor."""


def surface_map(camera: CameraPose, width: int, height: int) -> np.ndarray:
    """Returns the index in ``SURFACES`` of what each pixel would show without objects, (height, width) uint8.

    The pixels are those of ``SceneRenderer(width, height)``.
    """
    pose = camera_to_world(camera).astype(np.float32)
    focal = height / 2 / np.tan(np.radians(camera.fovy_deg) / 2)
    columns = ((np.arange(width) - (width - 1) / 2) / focal).astype(np.float32)
    rows = ((np.arange(height) - (height - 1) / 2) / focal).astype(np.float32)[:, None]
    entry, leave = np.float32(-np.inf), np.float32(np.inf)
    centre = (0.0, 0.0, -TABLE_HALF_SIZE[2])
    on_floor = np.ones((height, width), bool)
    with np.errstate(divide="ignore", invalid="ignore"):
        rays = [columns * pose[axis, 0] + rows * pose[axis, 1] + pose[axis, 2] for axis in range(3)]
        distance = (FLOOR_Z - pose[2, 3]) / rays[2]
        # A ray meets the table's box where it is between all three pairs of planes at once.
        for axis, ray in enumerate(rays):
            near = (centre[axis] - TABLE_HALF_SIZE[axis] - pose[axis, 3]) / ray
            far = (centre[axis] + TABLE_HALF_SIZE[axis] - pose[axis, 3]) / ray
            entry = np.maximum(entry, np.minimum(near, far))
            leave = np.minimum(leave, np.maximum(near, far))
            if axis < 2:
                on_floor &= np.abs(pose[axis, 3] + distance * ray) <= FLOOR_REACH_M
    on_table = (entry <= leave) & (leave > 0)
    return np.where(on_table, 0, np.where(on_floor & (distance > 0), 1, BEYOND)).astype(np.uint8)
