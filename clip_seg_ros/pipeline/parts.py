# SPDX-License-Identifier: Apache-2.0
"""The connected parts of a label image, those of all labels at once.

An image is read as runs: stretches of a row that have one label. There are some thousands of them in an image of
millions of pixels, and everything about a part follows from its runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Parts:
    """The N connected parts of a label image (H, W); parts that touch at a corner are one."""

    shape: tuple[int, int]
    label: np.ndarray
    """(N,) uint8."""
    area: np.ndarray
    """(N,) float64, whole numbers."""
    value: np.ndarray
    """(N,) float64, the mean over the part of the values that came with the labels."""
    _part: np.ndarray
    """(R,) int64, the part of each run."""
    _row: np.ndarray
    """(R,) int64."""
    _left: np.ndarray
    """(R,) int64, the first column of each run."""
    _length: np.ndarray
    """(R,) int64."""

    def numbered(self, number: np.ndarray) -> np.ndarray:
        """Draws the parts: (N,) numbers of any type -> (H, W) of that type."""
        return np.repeat(number[self._part], self._length).reshape(self.shape)

    def centroids(self, chosen: np.ndarray) -> np.ndarray:
        """Returns (n, 2) float64, x and y in pixels of the parts with these numbers."""
        # The sum of the columns of a run is its length times their mean.
        middles = (self._left + (self._length - 1) / 2, self._row)
        sums = [np.bincount(self._part, self._length * middle, len(self.area)) for middle in middles]
        return np.stack(sums, axis=1)[chosen] / self.area[chosen, None]

    def boxes(self, chosen: np.ndarray) -> np.ndarray:
        """Returns (n, 4) int64, x_min, y_min, x_max, y_max of the parts with these numbers; maxima are exclusive."""
        boxes = np.empty((len(self.area), 4), np.int64)
        boxes[:, :2], boxes[:, 2:] = np.iinfo(np.int64).max, 0
        np.minimum.at(boxes[:, 0], self._part, self._left)
        np.minimum.at(boxes[:, 1], self._part, self._row)
        np.maximum.at(boxes[:, 2], self._part, self._left + self._length)
        np.maximum.at(boxes[:, 3], self._part, self._row + 1)
        return boxes[chosen]


def parts_of(labels: np.ndarray, values: np.ndarray) -> Parts:
    """Finds the parts of ``labels`` (H, W) uint8, numbered in the order of their first pixels.

    Args:
        labels: The labels.
        values: (H, W) float32, whose means over the parts are wanted.
    """
    height, width = labels.shape
    begins = np.ones((height, width), np.bool_)
    np.not_equal(labels[:, 1:], labels[:, :-1], out=begins[:, 1:])
    first = np.flatnonzero(begins)
    length = np.diff(first, append=height * width)
    run_label = labels.reshape(-1)[first]
    part = _connected(len(first), *_touching(first, length, run_label, width))
    count = int(part.max(initial=-1)) + 1
    label = np.zeros(count, np.uint8)
    label[part] = run_label
    area = np.bincount(part, length, count)
    sums = np.bincount(part, np.add.reduceat(values.reshape(-1), first), count)
    row, left = np.divmod(first, width)
    return Parts((height, width), label, area, sums / area, part, row, left, length)


def _touching(first: np.ndarray, length: np.ndarray, label: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pairs (upper, lower) of runs of one label in successive rows that touch, also at a corner.

    Args:
        first: (R,) the first pixel of each run, as an index into the flat image.
        length: (R,).
        label: (R,).
        width: Of the image.
    """
    start_of_row = first // width * width
    upper = np.flatnonzero(start_of_row < start_of_row[-1])  # all but those of the last row
    below = start_of_row[upper] + width
    lowest = np.maximum(first[upper] + width - 1, below)
    highest = np.minimum(first[upper] + length[upper] + width, below + width - 1)
    first_lower = np.searchsorted(first, lowest, side="right") - 1
    count = np.searchsorted(first, highest, side="right") - first_lower
    pair = np.repeat(np.arange(len(upper)), count)
    lower = first_lower[pair] + np.arange(len(pair)) - (np.cumsum(count) - count)[pair]
    upper = upper[pair]
    same = label[upper] == label[lower]
    return upper[same], lower[same]


def _connected(count: int, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns (count,) int64: the number of each one's group, given the pairs that are joined.

    Groups are numbered in the order of their first members.
    """
    root = np.arange(count)
    while True:
        a, b = root[one], root[other]
        if (a == b).all():
            break
        # The root of each group becomes that of the lowest group it is joined with, and then all follow to the end.
        low = np.minimum(a, b)
        np.minimum.at(root, a, low)
        np.minimum.at(root, b, low)
        while (root != root[root]).any():
            root = root[root]
    return np.unique(root, return_inverse=True)[1].reshape(-1)
