# SPDX-License-Identifier: Apache-2.0
"""Masks and label images as runs: stretches of a row that belong together.

There are some thousands of runs in an image of millions of pixels, and everything about the objects of an image follows
from them. A model answers at a few hundred places along each side of an image; where its probabilities exceed a level
at the size of the image is found from these places, without making the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

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
    (height, width), across = size, min(maps.shape[2], size[1])
    columns, weights = columns_of(across, width), _weights(across, width, height)
    # Before each row and after the last one lies a place outside, so that all boundaries are found in one line.
    line = np.full(height * (across + 1) + 1, level, np.float32)
    inside, rows = np.empty(len(line), np.bool_), line[:-1].reshape(height, across + 1)[:, 1:]
    found, runs = [_NOTHING], []
    # What is made of one map stays in the processor's cache. All else is done for several maps at once.
    for index, (one, value) in enumerate(zip(maps, values)):
        to_rows(one, rows)
        np.greater(line, np.float32(level), out=inside)
        # After the first place of each pair, the map rises above the level, and after the second one it falls.
        place = np.flatnonzero(inside[1:] != inside[:-1])
        around = decided = line[place + _AROUND]
        if values is not maps:
            to_rows(value, rows)
            around = line[place + _AROUND]
        np.multiply(line[:-1], weights, out=line[:-1])
        sums = np.add.reduceat(line[: place[-1] + 2], place + 1)[::2] if len(place) else _NOTHING[3]
        found.append((place + index * (height + 1) * (across + 1), decided[1:], around, sums))
        if sum(len(places) for places, *_ in found) > _AT_ONCE:
            runs.append(_runs_between(found, np.float32(level), columns))
            found = [_NOTHING]
    runs.append(_runs_between(found, np.float32(level), columns))
    row, left, right, total = (np.concatenate(parts) for parts in zip(*runs))
    return Runs(size, row // (height + 1), row, left, right, total)


_AT_ONCE = 1 << 15
"""The number of boundaries from which on they are worked on before the next map; more do not stay in the cache."""
_AROUND = np.array([[-1], [0], [1]])
_NOTHING = np.zeros(0, np.int64), np.zeros((2, 0), np.float32), np.zeros((3, 0), np.float32), np.zeros(0, np.float32)


@lru_cache(maxsize=2)  # one takes a megabyte, and the images of a camera have one size
def _weights(places: int, width: int, height: int) -> np.ndarray:
    """Returns (height * (places + 1),) float32: ``Columns.weights`` of all rows, with 1 before each row."""
    return np.tile(np.append(np.float32(1.0), columns_of(places, width).weights), height)


def _runs_between(
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]], level: np.float32, columns: Columns
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Makes runs of the places where maps cross a level.

    Args:
        found: For each map what ``_crossings`` takes, (2 r,), (2, 2 r) and (3, 2 r); and (r,) float32, the sums over
            the weighted places inside.
        level: The level.
        columns: Where the w columns of places lie in the image.

    Returns:
        (R,) each: rows, first columns, ends, and sums, as ``Runs`` has them.
    """
    place, decided, around, sums = (np.concatenate(parts, axis=-1) for parts in zip(*found))
    row, pixel, further = _crossings(place, decided, level, around, columns)
    total = sums.astype(np.float64) + further[1::2] - further[::2]
    marks = row * (len(columns.left) + 1) + pixel
    if (marks[1:] == marks[:-1]).any():
        kept = _not_empty(marks)
        total, marks = np.add.reduceat(total, kept[::2] // 2), marks[kept]
    return *_paired(marks, len(columns.left)), total


def _crossings(
    place: np.ndarray, decided: np.ndarray, level: np.float32, around: np.ndarray, columns: Columns
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds the pixels where runs above a level begin and end.

    Args:
        place: (2 R,) int64, the places after which a map rises above the level and falls again, in turns, in a line in
            which a place outside lies before each row.
        decided: (2, 2 R) float32, the map at these places and at those after them; outside it has the level itself.
        level: The level.
        around: (3, 2 R) float32, the values to be summed, at the places before, at and after ``place``.
        columns: Where the w columns of places lie in the image.

    Returns:
        (2 R,) each: the row, int64; the first pixel inside or the first one after these, int64; and how much more the
        sum over all pixels before it is than that over the weighted places up to ``place``, float32.
    """
    across, width = len(columns.weights), len(columns.left)
    row = place // (across + 1)
    after = place - row * (across + 1)  # the column of the place after
    # In double precision, in which no crossing is rounded to a pixel on its other side.
    start, end = decided.astype(np.float64)
    crossing = columns.pixel(after + ((float(level) - start) / (end - start) - 1.0))
    # Rising, the first pixel after the crossing is inside; falling, the last one before it is. To and from a place
    # outside, a map crosses the level at that place, beyond the first or the last pixel.
    crossing[::2] = np.floor(crossing[::2]) + 1.0
    np.ceil(crossing[1::2], out=crossing[1::2])
    pixel = np.clip(crossing, 0, width).astype(np.int64)
    counts = columns.counts.reshape(3, -1).take((after - columns.cell[pixel]) * (width + 1) + pixel, axis=1)
    return row, pixel, np.einsum("ij,ij->j", counts, around)


def _boundaries(inside: np.ndarray) -> np.ndarray:
    """Returns where the runs of (N, w) bool begin and end, in turns, as indices into the flat (N, w + 1)."""
    count, width = inside.shape
    marks = np.empty((count, width + 1), np.bool_)
    np.not_equal(inside[:, 1:], inside[:, :-1], out=marks[:, 1:-1])
    marks[:, 0], marks[:, -1] = inside[:, 0], inside[:, -1]
    return np.flatnonzero(marks)


def _not_empty(marks: np.ndarray) -> np.ndarray:
    """Returns the indices of boundaries without runs and gaps that hold no pixel: of equal ones, pairs vanish."""
    begins = np.ones(len(marks), np.bool_)
    np.not_equal(marks[1:], marks[:-1], out=begins[1:])
    first = np.flatnonzero(begins)
    return first[np.diff(first, append=len(marks)) % 2 == 1]


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
