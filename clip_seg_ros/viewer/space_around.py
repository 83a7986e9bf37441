# SPDX-License-Identifier: Apache-2.0
"""What is around the things of an image: the points that the depth shows, and which thing is the closest."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from clip_seg_ros.pipeline.space.point_cloud import PointCloud
from clip_seg_ros.pipeline.space.rays import ray_table
from clip_seg_ros.pipeline.ties import length
from clip_seg_ros.types import CameraFrame
from clip_seg_ros.viewer.views import Thing

MOST_POINTS = 8000


def surroundings(frame: CameraFrame) -> PointCloud | None:
    """Returns at most ``MOST_POINTS`` of the points that the depth of an image shows, in its optical frame.

    Their ids are 0. Without intrinsics or depth it is ``None``.
    """
    if frame.depth_m is None or frame.intrinsics is None:
        return None
    height, width = frame.depth_m.shape
    step = 1
    while math.ceil(height / step) * math.ceil(width / step) > MOST_POINTS:
        step += 1
    depth, rays = frame.depth_m[::step, ::step], ray_table(frame.intrinsics)[::step, ::step]
    valid = np.isfinite(depth) & (depth > 0) & np.isfinite(rays[..., 0])
    z = depth[valid]
    points = np.column_stack([rays[valid] * z[:, None], z]).astype(np.float32)
    return PointCloud(points, frame.rgb[::step, ::step][valid], np.zeros(len(points), np.uint8))


def closest(position_m: tuple[float, float, float] | None, others: Iterable[Thing]) -> str:
    """Returns what a thing is closest to, for people, such as "closest to the red cup, 12 cm".

    Args:
        position_m: Where it is; ``None``: not known.
        others: Other things, with positions in the same frame.

    Returns:
        The words; empty without positions.
    """
    if position_m is None:
        return ""
    placed = [(math.dist(position_m, other.position_m), other) for other in others if other.position_m is not None]
    if not placed:
        return ""
    distance_m, nearest = min(placed, key=lambda pair: pair[0])
    return f"closest to the {nearest.prompt}, {length(distance_m)}"
