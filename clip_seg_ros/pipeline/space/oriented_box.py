# SPDX-License-Identifier: Apache-2.0
"""Points -> an oriented box around them along their principal axes."""

from __future__ import annotations

import numpy as np

from clip_seg_ros.types import OrientedBox, quaternion, vector3

MIN_POINTS = 16
"""The least number of points; the axes of fewer points are meaningless."""
TRIM = 0.01
"""Share of the points that may lie outside at either end of an axis, so that no single pixel determines a size."""
# Every rule for the signs of axes has directions at which the signs jump. With this direction they are far from the
# axes of level and upright objects, which a rule such as "x is positive" would flip with every bit of noise.
_FRONT = np.array([0.6, 0.78, 0.18])


def oriented_box(points_m: np.ndarray) -> OrientedBox | None:
    """Fits a box to points along their principal axes.

    The longest side comes first. The same points give the same box: the first two axes point to the side of a fixed
    direction, and the third makes the axes right-handed. If two sides are about equally long (a ball, a square seen
    from the front), their axes are arbitrary within their plane.

    Args:
        points_m: (N, 3) float32, finite.

    Returns:
        The box from the 1st to the 99th percentile along each axis, or ``None`` for fewer than ``MIN_POINTS``.
    """
    if len(points_m) < MIN_POINTS:
        return None
    rows = np.ascontiguousarray(points_m.T)  # (3, N): values that are summed and sorted together are contiguous
    middle = rows.mean(axis=1)
    rows = rows - middle[:, None]
    _, axes = np.linalg.eigh((rows @ rows.T).astype(np.float64))  # columns
    along = axes.T.astype(np.float32) @ rows
    low = int(TRIM * (len(points_m) - 1))
    high = len(points_m) - 1 - low
    along.partition((low, high), axis=1)
    low_m, high_m = along[:, low].astype(np.float64), along[:, high].astype(np.float64)
    center = middle + axes @ ((low_m + high_m) / 2)
    order = np.argsort(low_m - high_m, kind="stable")  # the longest first
    return OrientedBox(
        center_m=vector3(center),
        size_m=vector3((high_m - low_m)[order]),
        orientation_xyzw=quaternion(_right_handed(axes[:, order])),
    )


def _right_handed(axes: np.ndarray) -> np.ndarray:
    """Chooses the signs of the columns of ``axes`` (3, 3), so that it is a rotation."""
    first, second = (axis if axis @ _FRONT >= 0 else -axis for axis in axes.T[:2])
    return np.stack([first, second, np.cross(first, second)], axis=1)
