# SPDX-License-Identifier: Apache-2.0
"""The connected objects of a label image, those of all labels at once.

An image is read as runs: stretches of a row that have one label. There are some thousands of them in an image of
millions of pixels, and everything about an object follows from its runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clip_seg_ros.pipeline.postprocess import MAX_REGIONS, window_of
from clip_seg_ros.types import ObjectRegion


@dataclass(frozen=True)
class _Runs:
    """The runs of a label image, row by row."""

    first: np.ndarray
    """(R,) int64, the first pixel of each run, as an index into the flat image."""
    end: np.ndarray
    """(R,) int64, the first pixel after each run."""
    label: np.ndarray
    """(R,) uint8."""


def label_objects(labels: np.ndarray, values: np.ndarray, names: Sequence[str], min_area_px: int) -> list[ObjectRegion]:
    """Splits each label's pixels into connected objects; parts that touch at a corner are one object.

    Args:
        labels: (H, W) uint8.
        values: (H, W) float32. An object's score is their mean over it.
        names: What the labels 0, 1, ... name; pixels of other labels belong to no object.
        min_area_px: Smaller objects are left out.

    Returns:
        The objects as ``postprocess.regions`` returns them: at most 255, the one with the best score first.
    """
    height, width = labels.shape
    runs = _runs(labels)
    part = _connected(len(runs.first), *_touching(runs, width))  # the object of each run
    count = int(part.max(initial=-1)) + 1
    row, left = np.divmod(runs.first, width)
    length = runs.end - runs.first
    area = np.bincount(part, length, count)
    sums = np.bincount(part, np.add.reduceat(values.reshape(-1), runs.first), count)
    label = np.zeros(count, np.int64)
    label[part] = runs.label
    found = np.flatnonzero((label < len(names)) & (area >= min_area_px))
    score = sums[found] / area[found]
    # Equal scores keep the order of the names, and then that of the first pixels.
    found = found[np.lexsort((label[found], -score))][:MAX_REGIONS]
    id_of = np.zeros(count, np.uint8)
    id_of[found] = np.arange(1, len(found) + 1)
    ids = np.repeat(id_of[part], length).reshape(height, width)
    # The sum of the columns of a run is its length times their mean.
    x = np.bincount(part, length * (left + (length - 1) / 2), count) / np.maximum(area, 1)
    y = np.bincount(part, length * row, count) / np.maximum(area, 1)
    boxes = _boxes(part, count, row, left, length)
    # The system clears memory of this size only where it is touched.
    masks = np.zeros((len(found), height, width), np.bool_)
    objects = []
    for id, (index, mask) in enumerate(zip(found.tolist(), masks), start=1):
        box = tuple(boxes[index].tolist())
        window = window_of(box)
        np.equal(ids[window], id, out=mask[window])
        centroid = (float(x[index]), float(y[index]))
        score_of = float(sums[index] / area[index])
        objects.append(ObjectRegion(names[label[index]], id, score_of, mask, box, centroid, int(area[index])))
    return objects


def _runs(labels: np.ndarray) -> _Runs:
    height, width = labels.shape
    begins = np.ones((height, width), np.bool_)
    np.not_equal(labels[:, 1:], labels[:, :-1], out=begins[:, 1:])
    first = np.flatnonzero(begins)
    return _Runs(first, np.append(first[1:], height * width), labels.reshape(-1)[first])


def _touching(runs: _Runs, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pairs (upper, lower) of runs of one label in successive rows that touch, also at a corner."""
    start_of_row = runs.first // width * width
    upper = np.flatnonzero(start_of_row < start_of_row[-1])  # all but those of the last row
    below = start_of_row[upper] + width
    lowest = np.maximum(runs.first[upper] + width - 1, below)
    highest = np.minimum(runs.end[upper] + width, below + width - 1)
    first = np.searchsorted(runs.first, lowest, side="right") - 1
    count = np.searchsorted(runs.first, highest, side="right") - first
    pair = np.repeat(np.arange(len(upper)), count)
    lower = first[pair] + np.arange(len(pair)) - (np.cumsum(count) - count)[pair]
    upper = upper[pair]
    same = runs.label[upper] == runs.label[lower]
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


def _boxes(part: np.ndarray, count: int, row: np.ndarray, left: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Returns (count, 4) int64: x_min, y_min, x_max, y_max of each object; the maxima are exclusive."""
    boxes = np.empty((count, 4), np.int64)
    boxes[:, :2], boxes[:, 2:] = np.iinfo(np.int64).max, 0
    np.minimum.at(boxes[:, 0], part, left)
    np.minimum.at(boxes[:, 1], part, row)
    np.maximum.at(boxes[:, 2], part, left + length)
    np.maximum.at(boxes[:, 3], part, row + 1)
    return boxes
