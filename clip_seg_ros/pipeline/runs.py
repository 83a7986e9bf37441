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
        pitch = self.size[0] + 1
        return self.row - self.row // pitch * pitch  # NumPy's "%" takes twice as long


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
    row = first // width  # NumPy's "divmod" takes twice as long
    left = first - row * width
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
    total = _sums(values.reshape(-1), np.stack([left, right], axis=1) + (row * width)[:, None])
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
    line = np.full(height * (across + 1) + 1, level, np.float32)
    with_outside = line[:-1].reshape(height, across + 1)
    rows, weights = with_outside[:, 1:], np.append(np.float32(1.0), columns.weights)
    found = []
    for one, value in zip(maps, values):
        to_rows(one, rows)
        row, pixel = _crossings(line, np.float32(level), columns)
        if values is not maps:
            to_rows(value, rows)
        with_outside *= weights
        found.append((row, pixel, _totals(line, row, pixel, columns)))
    row, pixel, total = (np.concatenate(parts) for parts in zip(*found, _NO_RUNS))
    label = np.repeat(np.arange(len(maps)), np.array([len(parts[0]) for parts in found], np.int64))
    return Runs(size, label, row + label * (size[0] + 1), pixel[:, 0].copy(), pixel[:, 1].copy(), total)


_NO_RUNS = np.zeros(0, np.int64), np.zeros((0, 2), np.int64), np.zeros(0)


def _crossings(line: np.ndarray, level: np.float32, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows (R,) int64 of the runs of pixels above a level, and where they begin and end, (R, 2) int64.

    Args:
        line: (H * (w + 1) + 1,) float32, a map at the rows of the image, with a place outside before each row and at
            the end, which has the level itself.
        level: The level.
        columns: Where the w columns of places lie in the image.
    """
    across, width = len(columns.weights), len(columns.left)
    inside = line > level
    # The first of each pair rises above the level, the second one falls.
    place = np.flatnonzero(inside[1:] != inside[:-1]).reshape(-1, 2)
    row = place[:, 0] // (across + 1)
    cell = place - (row * (across + 1) + 1)[:, None]
    # In double precision, in which no crossing is rounded to a pixel on its other side.
    before, after = line[place].astype(np.float64), line[place + 1].astype(np.float64)
    crossing = columns.pixel(cell + (float(level) - before) / (after - before))
    # Rising, the first pixel after the crossing is inside; falling, the last one before it is. To and from a place
    # outside, a map crosses the level at that place, beyond the first or the last pixel.
    crossing[:, 0] = np.floor(crossing[:, 0]) + 1.0
    np.ceil(crossing[:, 1], out=crossing[:, 1])
    pixel = np.clip(crossing, 0, width).astype(np.int64)
    marks = ((row * (width + 1))[:, None] + pixel).reshape(-1)
    if (marks[1:] != marks[:-1]).all():
        return row, pixel
    row, left, right = _paired(_without_empty(marks), width)
    return row, np.stack([left, right], axis=1)


def _totals(weighted: np.ndarray, row: np.ndarray, pixel: np.ndarray, columns: Columns) -> np.ndarray:
    """Returns (R,) float64, the sums of values over the runs of ``_crossings``.

    Args:
        weighted: The values, in a line of places as in ``_crossings``, times ``Columns.weights``.
        row: (R,) int64, the rows of the runs.
        pixel: (R, 2) int64, where they begin and end.
        columns: Where the places lie.
    """
    place = (row * (len(columns.weights) + 1) + 1)[:, None] + columns.cell[pixel]
    total = _sums(weighted, place)
    # The columns of the lattice at both ends count only in part. The last one of a row has no neighbour, and no share.
    here, there = columns.ends
    part = weighted[place] * here[pixel] + weighted[place + 1] * there[pixel]
    return total + part[:, 1] - part[:, 0]


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
    first = np.flatnonzero(begins)
    return marks[first[np.diff(first, append=len(marks)) % 2 == 1]]


def _paired(marks: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (row, left, right) of runs whose boundaries are indices into the flat (N, ``width`` + 1)."""
    row, left = np.divmod(marks[::2], width + 1)
    return row, left, marks[1::2] - row * (width + 1)


def _sums(values: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """Returns (R,) float64, the sums of flat ``values`` over R spans from one index to before another, in order."""
    if not len(spans):
        return np.zeros(0)
    edges = spans.reshape(-1)
    # The last boundary may lie after the last value, where "reduceat" takes no index.
    whole = edges[-1] == len(values)
    sums = np.add.reduceat(values, edges[:-1] if whole else edges)[::2].astype(np.float64)
    sums[spans[:, 0] == spans[:, 1]] = 0.0  # "reduceat" returns the value at the first index there
    return sums
