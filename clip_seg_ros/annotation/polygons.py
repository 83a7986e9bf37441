# SPDX-License-Identifier: Apache-2.0
"""Masks as one polygon each, for formats that know nothing else: bridges join parts and holes."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np


def mask_polygon(mask: np.ndarray) -> np.ndarray:
    """Returns a polygon that ``cv2.fillPoly`` fills to a mask (H, W) bool that is not empty.

    The polygon runs along the middles of the mask's outermost pixels. A bridge, one pixel wide, leads to each further
    part and to each hole and back again; a hole stays empty by the even-odd rule.

    Returns:
        (N, 2) int32, x and y of at least three points.
    """
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings = sorted((contour[:, 0] for contour in contours), key=len, reverse=True)
    polygon = _bridged(rings)
    return np.concatenate([polygon, np.repeat(polygon[-1:], max(0, 3 - len(polygon)), axis=0)])


def _bridged(rings: Sequence[np.ndarray]) -> np.ndarray:
    polygon = rings[0]
    for ring in rings[1:]:
        here, there = _nearest(polygon, ring)
        turned = np.roll(ring, -there, axis=0)
        polygon = np.concatenate([polygon[: here + 1], turned, turned[:1], polygon[here:]])
    return polygon


def _nearest(polygon: np.ndarray, ring: np.ndarray) -> tuple[int, int]:
    """Returns the places of the two points, one on each, that are nearest to each other."""
    best = (np.inf, 0, 0)
    for there, point in enumerate(ring):
        distances = ((polygon - point) ** 2).sum(axis=1)
        here = int(distances.argmin())
        best = min(best, (float(distances[here]), here, there))
    return best[1], best[2]
