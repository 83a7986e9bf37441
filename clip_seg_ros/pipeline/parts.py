# SPDX-License-Identifier: Apache-2.0
"""The connected parts that runs form, those of all masks or labels at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from clip_seg_ros.pipeline.runs import Runs


@dataclass(frozen=True)
class Parts:
    """The N connected parts of runs; parts that touch at a corner are one."""

    runs: Runs
    joints: np.ndarray
    """(N,) int64: how many pairs of a part's runs touch."""
    order: np.ndarray
    """(R,) int64: the indices of all runs, those of each part together and sorted as ``runs`` are."""
    first: np.ndarray
    """(N + 1,) int64: where each part begins in ``order``."""

    def __len__(self) -> int:
        return len(self.joints)

    @cached_property
    def label(self) -> np.ndarray:
        """(N,) int64, the label of the runs."""
        return self.runs.label[self.order[self.first[:-1]]]

    @cached_property
    def area(self) -> np.ndarray:
        """(N,) int64, in pixels."""
        return self._sums(self._rights - self._lefts)

    @cached_property
    def value(self) -> np.ndarray:
        """(N,) float64, the mean over the part of the values that were summed over the runs."""
        return self._sums(self.runs.total[self.order]) / self.area

    @cached_property
    def centroids(self) -> np.ndarray:
        """(N, 2) float64: x and y in pixels."""
        # The sum of the columns of a run is its length times their mean.
        lengths = self._rights - self._lefts
        doubled = self._sums(lengths * (self._lefts + self._rights - 1))
        return np.stack([doubled / 2, self._sums(lengths * self._rows)], axis=1) / self.area[:, None]

    @cached_property
    def holes(self) -> np.ndarray:
        """(N,) int64: how many holes each part has, by Euler's formula for its runs and the pairs that touch."""
        return self.joints - np.diff(self.first) + 1

    @cached_property
    def boxes(self) -> np.ndarray:
        """(N, 4) int64: x_min, y_min, x_max, y_max; the maxima are exclusive."""
        starts, lasts = self.first[:-1], self.first[1:] - 1
        left = np.minimum.reduceat(self._lefts, starts)
        right = np.maximum.reduceat(self._rights, starts)
        return np.stack([left, self._rows[starts], right, self._rows[lasts] + 1], axis=1)

    def runs_of(self, part: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns (n,) int64 each: the rows, first columns and ends of a part's runs, sorted by row and column."""
        window = slice(self.first[part], self.first[part + 1])
        return self._rows[window], self._lefts[window], self._rights[window]

    def in_window(self, part: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns where the same runs begin and end in the flat window of the part's box, as ``in_window`` does."""
        window = slice(self.first[part], self.first[part + 1])
        starts, ends = self._in_windows
        return starts[window], ends[window]

    def indices_of(self, part: int) -> np.ndarray:
        """Returns (n,) int64, the places of the same runs in ``runs``."""
        return self.order[self.first[part] : self.first[part + 1]]

    @cached_property
    def _rows(self) -> np.ndarray:
        return self.runs.row_in_image[self.order]

    @cached_property
    def _lefts(self) -> np.ndarray:
        return self.runs.left[self.order]

    @cached_property
    def _rights(self) -> np.ndarray:
        return self.runs.right[self.order]

    @cached_property
    def _in_windows(self) -> tuple[np.ndarray, np.ndarray]:
        # For all runs at once, because there are many small parts.
        return in_window(self._rows, self._lefts, self._rights, np.repeat(self.boxes, np.diff(self.first), axis=0).T)

    def _sums(self, values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values, self.first[:-1])


def parts_of(runs: Runs) -> Parts:
    """Finds the parts, numbered in the order of their first runs."""
    upper, lower = touching(runs)
    part, count = connected(len(runs.row), upper, lower)
    # Numbers of 16 bits are sorted by their digits, in a fifth of the time.
    order = np.argsort(part.astype(np.uint16) if count <= 1 << 16 else part, kind="stable")
    first = np.concatenate([[0], np.cumsum(np.bincount(part, minlength=count))])
    return Parts(runs, np.bincount(part[upper], minlength=count), order, first)


def touching(runs: Runs, corners: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pairs (upper, lower) of runs of one label in successive rows that touch.

    Args:
        runs: The runs.
        corners: Whether it is enough that they touch at a corner.
    """
    # Keys in which the pixels of all rows follow one another, with a margin on either side, so that not even corners of
    # rows that do not succeed one another touch.
    stride = runs.size[1] + 2
    start = runs.row * stride + runs.left + 1
    end = start + runs.right - runs.left
    shared = 0 if corners else 1
    first = _below(end, start + stride + shared)
    count = _below(start, end + stride - shared + 1) - first
    upper = np.repeat(np.arange(len(start)), count)
    lower = (first + count - np.cumsum(count))[upper] + np.arange(len(upper))
    same = runs.label[upper] == runs.label[lower]
    return (upper, lower) if same.all() else (upper[same], lower[same])


def _below(numbers: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Returns how many of ascending numbers are below each of ascending limits, as ``np.searchsorted`` does.

    To merge the two takes a third of the time.
    """
    merged = np.argsort(np.concatenate([limits, numbers]), kind="stable")
    return np.flatnonzero(merged < len(limits)) - np.arange(len(limits))


def connected(count: int, one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, int]:
    """Groups ``count`` things of which pairs (``one``, ``other``) are joined.

    Returns:
        (count,) int64, the number of each one's group, and the number of groups, which are numbered in the order of
        their first members.
    """
    root = np.arange(count)
    while len(one):
        # The root of each group becomes that of the lowest group it is joined with, and then all follow to the end.
        np.minimum.at(root, np.maximum(one, other), np.minimum(one, other))
        while not np.array_equal(further := root[root], root):
            root = further
        one, other = root[one], root[other]
        apart = np.flatnonzero(one != other)
        one, other = one[apart], other[apart]
    is_first = root == np.arange(count)
    number = np.cumsum(is_first) - 1
    return number[root], int(number[-1]) + 1 if count else 0


def in_small_holes(
    part: np.ndarray,
    rows: np.ndarray,
    lefts: np.ndarray,
    rights: np.ndarray,
    size: tuple[int, int],
    limits_px: np.ndarray,
) -> np.ndarray:
    """Finds the gaps between the runs of connected parts that belong to a small hole.

    Args:
        part: (n,) int64, the number of each run's part, 0, 1, ...; they ascend.
        rows: (n,) int64, the rows of the runs, which are sorted by part, row and column.
        lefts: (n,) int64, their first columns.
        rights: (n,) int64, the columns after their last ones.
        size: (H, W) of the image.
        limits_px: The area of the largest hole of each part that is small.

    Returns:
        (n,) bool, True where the gap between a run and the next one belongs to such a hole.
    """
    begins = np.ones(len(rows), np.bool_)
    begins[1:] = (rows[1:] != rows[:-1]) | (part[1:] != part[:-1])
    first, gaps = np.flatnonzero(begins), np.flatnonzero(~begins[1:])
    # The rows of all parts follow one another, with an empty one before each part and after the last one.
    line = np.cumsum(begins) + part
    row, left, right = line[gaps], rights[gaps], lefts[gaps + 1]
    starts, ends = np.full(line[-1] + 2, size[1]), np.zeros(line[-1] + 2, np.int64)
    starts[line[first]], ends[line[first]] = lefts[first], rights[np.append(first[1:], len(rows)) - 1]
    is_open = np.zeros(len(gaps), np.bool_)
    for neighbour in (row - 1, row + 1):
        is_open |= (left < starts[neighbour]) | (right > ends[neighbour])
    nothing = np.zeros(len(gaps))
    upper, lower = touching(Runs(size, np.zeros(len(gaps), np.int64), row, left, right, nothing), corners=False)
    # The last thing to be joined is all that is outside.
    outer = np.flatnonzero(is_open)
    outside = np.full(len(outer), len(gaps))
    group, count = connected(len(gaps) + 1, np.append(upper, outer), np.append(lower, outside))
    area = np.bincount(group[:-1], right - left, count)
    area[group[-1]] = np.inf
    found = np.zeros(len(rows), np.bool_)
    found[gaps] = area[group[:-1]] <= limits_px[part[gaps]]
    return found


def in_window(
    rows: np.ndarray, lefts: np.ndarray, rights: np.ndarray, box_px: Sequence[int] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (n,) int64 each: where runs begin and end in the flat window of a box.

    Args:
        rows: (n,) int64, the rows of the runs in the image.
        lefts: (n,) int64, their first columns.
        rights: (n,) int64, the columns after their last ones.
        box_px: x_min, y_min, x_max, y_max; or (4, n) int64, the box of each run.
    """
    x_min, y_min, x_max, _ = box_px
    starts = (rows - y_min) * (x_max - x_min) + lefts - x_min
    return starts, starts + rights - lefts


def drawn(starts: np.ndarray, ends: np.ndarray, box_px: Sequence[int]) -> np.ndarray:
    """Draws runs, which begin and end at ascending places of the flat window of a box: (h, w) bool."""
    x_min, y_min, x_max, y_max = box_px
    height, width = y_max - y_min, x_max - x_min
    # What is outside and what is inside, in turns: how many pixels.
    lengths = np.empty(2 * len(starts) + 1, np.int64)
    lengths[0], lengths[-1] = starts[0], height * width - ends[-1]
    np.subtract(ends, starts, out=lengths[1::2])
    np.subtract(starts[1:], ends[:-1], out=lengths[2:-1:2])
    return _turns(len(lengths)).repeat(lengths).reshape(height, width)


@lru_cache(maxsize=256)
def _turns(count: int) -> np.ndarray:
    """Returns (count,) bool: False, True, False, ..."""
    turns = np.arange(count) % 2 == 1
    turns.setflags(write=False)
    return turns
