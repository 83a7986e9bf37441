# SPDX-License-Identifier: Apache-2.0
"""Depth -> the plane that things stand on, and with it where up is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from clip_seg_ros.pipeline.space.rays import ray_table
from clip_seg_ros.types import CameraFrame, vector3

LOOKS = 1600
"""About how many pixels are looked at: every fourteenth in each row and column of 640x480. A fit needs few."""
TRIES = 96
"""How many planes through three points are tried: with a third of the points on the table, one of 27 lies on it."""
TOLERANCE = 0.006
"""The distance from a plane at which a point still lies in it, as a share of the point's depth."""
LEAST_SHARE = 0.15
"""The least share of the points in the plane; otherwise there is no plane to speak of."""
LEAST_UP = 0.2
"""The least part of a plane's normal that points up in the image, if nothing says where up is: walls have less, and so
has a table under a camera that looks straight down."""
ALIKE_UP = 0.94
"""The cosine of the greatest angle between the plane's normal and a direction that is known to be up."""


@dataclass(frozen=True)
class Plane:
    """A plane in the camera's optical frame, the camera on its upper side."""

    up: tuple[float, float, float]
    """The unit normal that points to the camera's side."""
    camera_m: float
    """The height of the camera above it, metres."""

    def heights(self, points_m: np.ndarray) -> np.ndarray:
        """Returns the heights of points (N, 3) above the plane, (N,) metres."""
        return points_m @ np.asarray(self.up, points_m.dtype) + points_m.dtype.type(self.camera_m)


def fit_ground(frame: CameraFrame, up: tuple[float, float, float] | None = None) -> Plane | None:
    """Finds the plane with the most depth in it: first among planes through three points, then by least squares.

    Args:
        frame: The image with its depth; without depth or intrinsics there is no plane.
        up: The direction against gravity as a unit vector of the optical frame, if it is known. Only planes about at
            right angles to it count. Without it, any plane counts that faces the camera and upwards in the image.

    Returns:
        The plane, or ``None`` if no plane holds ``LEAST_SHARE`` of the depth. The same image gives the same plane.
    """
    if frame.depth_m is None or frame.intrinsics is None:
        return None
    step = max(1, round(math.sqrt(frame.depth_m.size / LOOKS)))
    some = slice(step // 2, None, step)
    depth, rays = frame.depth_m[some, some], ray_table(frame.intrinsics)[some, some]
    valid = (depth > 0) & np.isfinite(depth) & np.isfinite(rays[..., 0])
    z = depth[valid]
    if len(z) < 16:
        return None
    points = np.column_stack([rays[valid] * z[:, None], z])
    found = _best_of_tries(points, np.asarray(up or (0.0, -1.0, 0.0)), ALIKE_UP if up else LEAST_UP)
    if found is None:
        return None
    normal, inside = found
    for _ in range(2):
        middle = points[inside].mean(axis=0)
        rest = (points[inside] - middle).astype(np.float64)
        least = np.linalg.eigh(rest.T @ rest)[1][:, 0]
        normal = least if least @ normal > 0 else -least
        inside = np.abs((points - middle) @ normal.astype(np.float32)) < TOLERANCE * points[:, 2]
    return Plane(vector3(normal), float(-middle @ normal))


def _best_of_tries(points: np.ndarray, up: np.ndarray, least_up: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Tries planes through three of the points (N, 3), and returns the normal and the points (N,) of the best one."""
    three = np.random.default_rng(0).integers(len(points), size=(TRIES, 3))
    first, second, third = (points[three[:, index]] for index in range(3))
    normals = np.cross(second - first, third - first)
    lengths = np.linalg.norm(normals, axis=1)
    sound = lengths > 1e-6
    normals, first = normals[sound] / lengths[sound, None], first[sound]
    away = (normals * first).sum(axis=1)
    normals = np.where(away[:, None] > 0, -normals, normals)  # towards the camera
    kept = normals @ up > least_up
    normals, away = normals[kept], -np.abs(away[kept])
    if len(normals) == 0:
        return None
    inside = np.abs(normals @ points.T - away[:, None].astype(np.float32)) < TOLERANCE * points[:, 2]
    counts = inside.sum(axis=1)
    best = int(counts.argmax())
    return (normals[best], inside[best]) if counts[best] >= LEAST_SHARE * len(points) else None
