# SPDX-License-Identifier: Apache-2.0
"""Intrinsics -> the ray of every pixel."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from clip_seg_ros.types import CameraIntrinsics

TOLERANCE_PX = 0.01
"""The largest distance between a pixel and its ray after the lens distorts the ray again."""
MAX_ROUNDS = 20


@lru_cache(maxsize=2)
def ray_table(intrinsics: CameraIntrinsics) -> np.ndarray:
    """Computes the ray through the centre of every pixel, with the distortion of the lens undone.

    The point of a pixel at depth z (metres along the optical axis) is ``(x * z, y * z, z)``. The table is computed once
    for a camera and shared: it takes some milliseconds for a pinhole camera, and a few hundred with distortion.

    Args:
        intrinsics: The intrinsics of the camera.

    Returns:
        (H, W, 2) float32, read-only: x and y of the ray where it meets the plane z = 1. It is NaN where no ray leads to
        the pixel, which happens outside the range in which the coefficients describe the lens.
    """
    columns = (np.arange(intrinsics.width) - intrinsics.cx) / intrinsics.fx
    rows = (np.arange(intrinsics.height) - intrinsics.cy) / intrinsics.fy
    seen = np.stack(np.meshgrid(columns, rows), axis=-1)  # (H, W, 2), the rays as the lens has bent them
    if any(intrinsics.distortion):
        seen = _undistorted(seen.reshape(-1, 2), intrinsics).reshape(seen.shape)
    rays = seen.astype(np.float32)
    rays.flags.writeable = False
    return rays


def _undistorted(seen: np.ndarray, intrinsics: CameraIntrinsics) -> np.ndarray:
    """Converts bent rays (N, 2) float64 to straight ones; NaN where there is none."""
    coefficients = np.array(intrinsics.distortion)
    rays = cv2.undistortPoints(seen[:, None], np.eye(3), coefficients).reshape(-1, 2)
    # OpenCV stops after five iterations, which leaves errors of several pixels in the corners of a wide lens.
    tolerance = TOLERANCE_PX / max(intrinsics.fx, intrinsics.fy)
    open_ = np.arange(len(rays))
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for _ in range(MAX_ROUNDS):
            error = seen[open_] - _distorted(rays[open_], coefficients)
            off = ~(np.abs(error).max(axis=1) < tolerance)  # true for NaN, too
            open_ = open_[off]
            if len(open_) == 0:
                return rays
            rays[open_] += error[off]
    rays[open_] = np.nan
    return rays


def _distorted(rays: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Bends rays (N, 2) as the lens does, by OpenCV's model (Brown's, and its rational extension)."""
    k1, k2, p1, p2, k3, k4, k5, k6 = np.pad(coefficients, (0, 8 - len(coefficients)))
    x, y = rays.T
    xy, r2 = x * y, x * x + y * y
    radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    return np.stack(
        [x * radial + 2 * p1 * xy + p2 * (r2 + 2 * x * x), y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * xy], axis=1
    )
