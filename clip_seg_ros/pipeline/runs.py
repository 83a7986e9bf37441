# SPDX-License-Identifier: Apache-2.0
"""Masks and label images as runs: stretches of a row that belong together.

There are some thousands of runs in an image of millions of pixels, and everything about the objects of an image follows
from them. A model answers at a few hundred places along each side of an image; where its probabilities exceed a level
at the size of the image is found from these places, without making the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from clip_seg_ros.pipeline.lattice import Columns, columns_of, to_rows


@dataclass(frozen=True)
class Runs:
    """The R runs of one image, or of several images of one size, sorted by image, row and column."""

    size: tuple[int, int]
    """(H, W) of the image."""
    label: np.ndarray
    """(R,) int64: what the run belongs to, such as the index of a prompt or of a class."""
    row: np.ndarray
    """(R,) int64. Of several images, each one begins ``H + 1`` rows after the one before it, so that runs of different
    images never lie in successive rows."""
    left: np.ndarray
    """(R,) int64, the first column."""
    right: np.ndarray
    """(R,) int64, the column after the last one; it is greater than ``left``."""
    total: np.ndarray
    """(R,) float64, the sum of some values over the pixels of the run."""

    @cached_property
    def row_in_image(self) -> np.ndarray:
        """(R,) int64, the row in the run's own image."""
        return self.row % (self.size[0] + 1)


def runs_of_labels(labels: np.ndarray, values: np.ndarray) -> Runs:
    """Splits a label image into runs, which together cover it.

    Args:
        labels: (H, W) uint8.
        values: (H, W) float32, to be summed over each run.
    """
    height, width = labels.shape
    begins = np.ones((height, width), np.bool_)
    np.not_equal(labels[:, 1:], labels[:, :-1], out=begins[:, 1:])
    first = np.flatnonzero(begins)
    row, left = np.divmod(first, width)
    right = left + np.diff(first, append=height * width)
    total = np.add.reduceat(values.reshape(-1), first).astype(np.float64)
    return Runs((height, width), labels.reshape(-1)[first].astype(np.int64), row, left, right, total)


def runs_of_masks(masks: np.ndarray, values: np.ndarray) -> Runs:
    """Finds the runs inside masks; the label of a run is the index of its mask.

    Args:
        masks: (P, H, W) bool.
        values: (P, H, W) float32, to be summed over each run.
    """
    _, height, width = masks.shape
    row, left, right = _paired(_boundaries(masks.reshape(-1, width)), width)
    start = row * width + left
    total = _sums(values.reshape(-1), start, row * width + right)
    label = row // height
    return Runs((height, width), label, row + label, left, right, total)


def runs_above(maps: np.ndarray, level: float, values: np.ndarray, size: tuple[int, int]) -> Runs:
    """Finds the runs where maps exceed a level, at the size of the image.

    Along the columns, maps are interpolated linearly to the rows of the image. Along the rows, the places where they
    cross the level follow by one division each, so that the pixels are never made.

    Args:
        maps: (P, h, w) float32 without NaN, whose places are the middles of equal parts of the image.
        level: The level, 0..1.
        values: (P, h, w) float32, to be interpolated likewise and summed over each run; it may be ``maps``.
        size: (H, W) of the image.

    Returns:
        The runs of the P maps; the label of a run is the index of its map.
    """
    columns, (height, across) = columns_of(maps.shape[2], size[1]), (size[0], maps.shape[2])
    # One map after the other, because what is made of one map stays in the processor's cache. Before each row and after
    # the last one lies a place outside, so that all boundaries are found in one line of places.
    line = np.full(height * (across + 1) + 1, -np.inf, np.float32)
    rows = line[:-1].reshape(height, across + 1)[:, 1:]
    weighted, found = np.empty((height, across), np.float32), []
    for one, value in zip(maps, values):
        to_rows(one, rows)
        run = _crossings(line, np.float32(level), columns)
        if values is not maps:
            to_rows(value, weighted)
        np.multiply(rows if values is maps else weighted, columns.weights, out=weighted)
        found.append((*run, _totals(weighted, *run, columns)))
    row, left, right, total = (np.concatenate(parts) for parts in zip(*found, _NO_RUNS))
    label = np.repeat(np.arange(len(maps)), np.array([len(parts[0]) for parts in found], np.int64))
    return Runs(size, label, row + label * (size[0] + 1), left, right, total)


_NO_RUNS = (np.zeros(0, np.int64),) * 3 + (np.zeros(0),)


def _crossings(line: np.ndarray, level: np.float32, columns: Columns) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (row, left, right) of the runs of pixels above a level.

    Args:
        line: (H * (w + 1) + 1,) float32, a map at the rows of the image, with a place outside before each row and at
            the end.
        level: The level.
        columns: Where the w columns of places lie in the image.
    """
    across, width = len(columns.weights), len(columns.left)
    inside = line > level
    # The boundary before the first place of a row has the mark 0, and that after its last one the mark w.
    row, mark = np.divmod(np.flatnonzero(inside[1:] != inside[:-1]), across + 1)
    pixel = np.where(mark == 0, 0, width)
    inner = np.flatnonzero((mark > 0) & (mark < across))
    cell = mark[inner] - 1
    place = row[inner] * (across + 1) + 1 + cell
    # In double precision, in which no crossing is rounded to a pixel on its other side.
    before, after = (line[at].astype(np.float64) for at in (place, place + 1))
    crossing = columns.pixel(cell + (float(level) - before) / (after - before))
    # Rising, the first pixel after the crossing is inside; falling, the last one before it is.
    pixel[inner] = np.where(after > before, np.floor(crossing) + 1.0, np.ceil(crossing))
    return _paired(_without_empty(row * (width + 1) + pixel), width)


def _totals(weighted: np.ndarray, row: np.ndarray, left: np.ndarray, right: np.ndarray, columns: Columns) -> np.ndarray:
    """Returns (R,) float64, the sums of values over runs, of (H, w) values times ``columns.weights``."""
    flat, across = weighted.reshape(-1), weighted.shape[1]
    first, last = row * across + columns.cell[left], row * across + columns.cell[right]
    total = _sums(flat, first, last)
    # The columns of the lattice at both ends count only in part. The last one of a row has no neighbour, and no share.
    for place, pixel, sign in ((last, right, 1.0), (first, left, -1.0)):
        here, there = columns.ends[:, pixel]
        total += sign * (flat[place] * here + flat[np.minimum(place + 1, len(flat) - 1)] * there)
    return total


def _boundaries(inside: np.ndarray) -> np.ndarray:
    """Returns where the runs of (N, w) bool begin and end, in turns, as indices into the flat (N, w + 1)."""
    count, width = inside.shape
    marks = np.empty((count, width + 1), np.bool_)
    np.not_equal(inside[:, 1:], inside[:, :-1], out=marks[:, 1:-1])
    marks[:, 0], marks[:, -1] = inside[:, 0], inside[:, -1]
    return np.flatnonzero(marks)


def _without_empty(marks: np.ndarray) -> np.ndarray:
    """Removes runs and gaps that hold no pixel: of equal boundaries, pairs vanish."""
    begins = np.ones(len(marks), np.bool_)
    np.not_equal(marks[1:], marks[:-1], out=begins[1:])
    if begins.all():
        return marks
    first = np.flatnonzero(begins)
    return marks[first[np.diff(first, append=len(marks)) % 2 == 1]]


def _paired(marks: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (row, left, right) of runs whose boundaries are indices into the flat (N, ``width`` + 1)."""
    row, left = np.divmod(marks[::2], width + 1)
    return row, left, marks[1::2] - row * (width + 1)


def _sums(values: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Returns (R,) float64, the sums of flat ``values`` from ``start`` to before ``end``, which ascend in turns."""
    if not len(start):
        return np.zeros(0)
    edges = np.empty(2 * len(start), np.int64)
    edges[::2], edges[1::2] = start, end
    # The last boundary may lie after the last value, where "reduceat" takes no index.
    whole = edges[-1] == len(values)
    sums = np.add.reduceat(values, edges[:-1] if whole else edges)[::2].astype(np.float64)
    sums[start == end] = 0.0  # "reduceat" returns the value at "start" there
    return sums
