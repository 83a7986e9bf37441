# SPDX-License-Identifier: Apache-2.0
"""The measured objects of a frame -> one cloud of coloured points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clip_seg_ros.pipeline.space.localization import Measurement


@dataclass(frozen=True)
class PointCloud:
    """The visible surfaces of a frame's objects, in the camera's optical frame. N may be 0."""

    points_m: np.ndarray
    """(N, 3) float32, finite."""
    rgb: np.ndarray
    """(N, 3) uint8."""
    ids: np.ndarray
    """(N,) uint8: the id of the region that the point belongs to."""


def point_cloud(measurements: Sequence[Measurement], rgb: np.ndarray, max_points: int) -> PointCloud:
    """Joins the points of all regions, in the order of ``measurements``.

    A pixel that two regions share appears once for each of them.

    Args:
        measurements: The measurements of one frame.
        rgb: (H, W, 3) uint8, the image of that frame.
        max_points: The largest number of points of a region, at least 1. Of more points, this many are taken, evenly
            spread over the region's pixels.

    Raises:
        ValueError: ``max_points`` is less than 1.
    """
    if max_points < 1:
        raise ValueError(f"max_points must be at least 1, got {max_points}")
    taken = [_evenly(len(measurement.points_m), max_points) for measurement in measurements]
    points = [measurement.points_m[chosen] for measurement, chosen in zip(measurements, taken)]
    pixels = [measurement.pixels[chosen] for measurement, chosen in zip(measurements, taken)]
    ids = [np.full(len(part), measurement.region.id, np.uint8) for measurement, part in zip(measurements, points)]
    return PointCloud(
        np.concatenate([np.empty((0, 3), np.float32), *points]),
        rgb.reshape(-1, 3)[np.concatenate([np.empty(0, np.int64), *pixels])],
        np.concatenate([np.empty(0, np.uint8), *ids]),
    )


def _evenly(count: int, most: int) -> slice | np.ndarray:
    """Chooses at most ``most`` of ``count`` points: the middles of equal intervals."""
    if count <= most:
        return slice(None)
    return (2 * np.arange(most) + 1) * count // (2 * most)
