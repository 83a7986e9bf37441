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
    """What sums over runs of pixels need to know of w columns of places in an image of W >= w columns."""

    left: np.ndarray
    """(W,) int64, the place to the left of each pixel, or under it."""
    weights: np.ndarray
    """(w,) float32: how many pixels each place counts for in the sum over a whole row."""
    cell: np.ndarray
    """(W + 1,) int64: the place to the left of the last pixel before pixel x, or under it; 0 for x = 0."""
    counts: np.ndarray
    """(3, 3, W + 1) float32. The sum over the pixels before pixel x is that of all weighted places up to place p, and
    ``counts[:, p + 1 - cell[x], x]`` times the places p - 1, p and p + 1. This holds for p = ``cell[x]`` and for
    p = ``cell[x]`` + 1, and for p = ``cell[x]`` - 1 if no pixel is before x or the last one lies just at ``cell[x]``.
    """

    def pixel(self, coordinate: np.ndarray) -> np.ndarray:
        """Returns the pixel, not rounded, at coordinates among the places."""
        return (coordinate + 0.5) * (len(self.left) / len(self.weights)) - 0.5


@lru_cache(maxsize=32)
def columns_of(places: int, width: int) -> Columns:
    """Prepares ``places`` columns of places in an image of ``width`` columns; the last ones are kept."""
    coordinate = np.clip((np.arange(width) + 0.5) * places / width - 0.5, 0, places - 1)
    left = np.clip(coordinate.astype(np.int64), 0, max(places - 2, 0))
    share = coordinate - left
    right = np.minimum(left + 1, places - 1)
    to_left = np.bincount(left, 1.0 - share, places)
    to_right = np.bincount(right, share, places)
    weights = to_left + to_right
    # The pixels with one place to their left are a group. For each pixel, the sums over its group up to it:
    first = np.searchsorted(left, left)
    sums = [np.concatenate([[0.0], np.cumsum(part)]) for part in (1.0 - share, share)]
    here, there = (part[1:] - part[first] for part in sums)
    if places > 1:
        here += to_right[left]  # what the place already got from the group before
    cell, here, there = (np.concatenate([[0], part]) for part in (left, here, there))
    less_here, less_there = here - weights[cell], there - weights[np.minimum(cell + 1, places - 1)]
    none = np.zeros(width + 1)
    counts = np.array([[none, none, less_here], [none, less_here, less_there], [here, there, none]], np.float32)
    return Columns(left, weights.astype(np.float32), cell, counts)


def to_rows(values: np.ndarray, out: np.ndarray) -> None:
    """Brings (h, w) float32 to the rows of the image, into ``out`` (H, w); also to other columns if it has others."""
    if values.shape == out.shape:
        np.copyto(out, values)
    else:
        cv2.resize(values, out.shape[::-1], dst=out, interpolation=cv2.INTER_LINEAR)
