# SPDX-License-Identifier: Apache-2.0
"""Where the places of a model's answer lie in the camera's image.

The places are the middles of equal parts of the image, as all resizing without ``align_corners`` has it: the coordinate
of pixel x among w places is (x + 0.5) w / W - 0.5. Between the places the answer is linear, and beyond the outermost
ones it is constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np


@dataclass(frozen=True)
class Columns:
    """What sums over runs of pixels need to know of the w columns of places in an image of W columns."""

    left: np.ndarray
    """(W,) int64, the place to the left of each pixel, or under it."""
    weights: np.ndarray
    """(w,) float32: how many pixels each place counts for in the sum over a whole row."""
    cell: np.ndarray
    """(W + 1,) int64. The sum over the pixels before pixel x is that of all weighted places before ``cell[x]``, ..."""
    ends: np.ndarray
    """(2, W + 1) float64: ... and these shares of the weighted places ``cell[x]`` and ``cell[x] + 1``."""

    def pixel(self, coordinate: np.ndarray) -> np.ndarray:
        """Returns the pixel, not rounded, at coordinates among the places."""
        return (coordinate + 0.5) * (len(self.left) / len(self.weights)) - 0.5


@lru_cache(maxsize=32)
def columns_of(places: int, width: int) -> Columns:
    """Prepares ``places`` columns of places in an image of ``width`` columns; the last ones are kept."""
    coordinate = np.clip((np.arange(width) + 0.5) * places / width - 0.5, 0, places - 1)
    left = np.clip(coordinate.astype(np.int64), 0, max(places - 2, 0))
    share = coordinate - left
    to_left = np.bincount(left, 1.0 - share, places)
    to_right = np.bincount(np.minimum(left + 1, places - 1), share, places)
    weights = to_left + to_right
    # The pixels with one place to their left are a group. For each pixel, the sums over its group up to it:
    first = np.searchsorted(left, left)
    sums = [np.concatenate([[0.0], np.cumsum(part)]) for part in (1.0 - share, share)]
    here, there = (part[1:] - part[first] for part in sums)
    if places > 1:
        here += to_right[left]  # what the place already got from the group before
    ends = np.zeros((2, width + 1))
    # A place without weight has no share in any sum.
    for shares, counted, of in zip(ends, (here, there), (left, np.minimum(left + 1, places - 1))):
        np.divide(counted, weights[of], out=shares[1:], where=weights[of] > 0)
    return Columns(left, weights.astype(np.float32), np.concatenate([[0], left]), ends)


def to_rows(values: np.ndarray, out: np.ndarray) -> None:
    """Brings (h, w) float32 to the rows of the image, into ``out`` (H, w)."""
    if values.shape == out.shape:
        np.copyto(out, values)
    else:
        cv2.resize(values, out.shape[::-1], dst=out, interpolation=cv2.INTER_LINEAR)
