# SPDX-License-Identifier: Apache-2.0
"""What a depth image says about points whose surface was seen before: still there, hidden, gone or out of view."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from clip_seg_ros.types import CameraIntrinsics

MARGIN_M = 0.012
"""The least difference of depths that tells two surfaces apart, metres: a flat thing on a table is not much higher."""
MARGIN_SHARE = 0.01
"""The same as a share of the depth, because the noise of depth cameras grows with it."""


@dataclass(frozen=True)
class Sighting:
    """What an image shows where N surface points should be."""

    pixels: np.ndarray
    """(N, 2) int64: the row and column of each point; of points outside the image, any pixel."""
    inside: np.ndarray
    """(N,) bool, whether the point lies in the image."""
    free: np.ndarray
    """(N,) bool, whether the camera looks through the point at something behind it, so that nothing is there."""
    there: np.ndarray
    """(N,) bool, whether the camera sees a surface at the point. Points that are neither free nor there are hidden, out
    of view or without valid depth."""

    def part(self, points: slice) -> Sighting:
        """Returns the same of some of the points."""
        return Sighting(self.pixels[points], self.inside[points], self.free[points], self.there[points])

    def share(self, which: np.ndarray) -> float:
        """Returns the share of all points that ``which`` (N,) holds, 0..1; 0 without points."""
        return float(np.count_nonzero(which)) / max(1, len(which))


def look_for(points_m: np.ndarray, depth_m: np.ndarray, intrinsics: CameraIntrinsics) -> Sighting:
    """Compares surface points with a depth image.

    Args:
        points_m: (N, 3) in the camera's optical frame, metres.
        depth_m: (H, W) float32 metres along the optical axis.
        intrinsics: Of that image.
    """
    height, width = depth_m.shape
    points = np.array(points_m, np.float64).reshape(-1, 3)
    z = points[:, 2].copy()
    ahead = z > MARGIN_M
    points[~ahead] = (0, 0, 1)  # what is behind the camera has no pixel
    columns, rows = _pixels(points, intrinsics).T
    inside = ahead & (columns >= -0.5) & (columns < width - 0.5) & (rows >= -0.5) & (rows < height - 0.5)
    column = np.rint(np.where(inside, columns, 0)).astype(np.int64).clip(0, width - 1)
    row = np.rint(np.where(inside, rows, 0)).astype(np.int64).clip(0, height - 1)
    behind = depth_m[row, column] - z  # NaN compares as false
    margin = np.maximum(MARGIN_M, MARGIN_SHARE * z)
    return Sighting(
        np.stack([row, column], axis=1), inside, inside & (behind > margin), inside & (np.abs(behind) <= margin)
    )


def _pixels(points_m: np.ndarray, intrinsics: CameraIntrinsics) -> np.ndarray:
    """Returns the x and y of points (N, 3) in the image, (N, 2) float64."""
    if len(points_m) == 0:
        return np.empty((0, 2))
    lens = np.array([[intrinsics.fx, 0, intrinsics.cx], [0, intrinsics.fy, intrinsics.cy], [0, 0, 1]])
    distortion = np.array(intrinsics.distortion) if intrinsics.distortion else None
    pixels, _ = cv2.projectPoints(points_m, np.zeros(3), np.zeros(3), lens, distortion)
    return pixels.reshape(-1, 2)
