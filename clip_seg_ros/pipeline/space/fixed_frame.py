# SPDX-License-Identifier: Apache-2.0
"""Points and boxes of a camera, brought into a frame that does not move with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from clip_seg_ros.types import OrientedBox, quaternion, vector3

_TOLERANCE = 1e-3


def rigid(transform: np.ndarray) -> np.ndarray:
    """Returns a transform between two frames as (4, 4) float64.

    Raises:
        ValueError: It is no (4, 4) matrix of a rotation and a translation in metres.
    """
    matrix = np.asarray(transform, np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise ValueError(f"a transform is a finite (4, 4) matrix, got {matrix.shape}")
    turn = matrix[:3, :3]
    is_turn = np.abs(turn @ turn.T - np.eye(3)).max() < _TOLERANCE and np.linalg.det(turn) > 0
    if not is_turn or np.abs(matrix[3] - (0, 0, 0, 1)).max() > _TOLERANCE:
        raise ValueError("a transform must turn and move, and not scale, shear or mirror")
    return matrix


def inverse(transform: np.ndarray) -> np.ndarray:
    """Returns the inverse of a rigid transform (4, 4)."""
    back = np.eye(4)
    back[:3, :3] = transform[:3, :3].T
    back[:3, 3] = -back[:3, :3] @ transform[:3, 3]
    return back


def moved_points(transform: np.ndarray, points_m: np.ndarray) -> np.ndarray:
    """Brings points (N, 3) into the other frame; returns (N, 3) float64."""
    return points_m @ transform[:3, :3].T + transform[:3, 3]


def moved_box(transform: np.ndarray, box_m: OrientedBox) -> OrientedBox:
    """Brings a box into the other frame; its sizes stay."""
    center = moved_points(transform, np.array(box_m.center_m))
    turned = transform[:3, :3] @ axes(box_m)
    return replace(box_m, center_m=vector3(center), orientation_xyzw=quaternion(turned))


def axes(box_m: OrientedBox) -> np.ndarray:
    """Returns the axes of a box as the columns of a rotation, (3, 3) float64."""
    x, y, z, w = np.array(box_m.orientation_xyzw) / np.linalg.norm(box_m.orientation_xyzw)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
