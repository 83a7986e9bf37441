# SPDX-License-Identifier: Apache-2.0
"""Keeps the ids of objects from image to image.

The objects of a prompt are assigned to the tracks of this prompt so that the sum of all costs is least. The cost of a
pair lies in 0..1 and is a weighted mean of three:

    shape    1 - IoU of the mask with the track's last mask, which is moved on with the track's velocity
    place    distance of the centroids as a share of the reach, which is given in sizes (the root of the mask's area)
    looks    Hellinger distance of the colour histograms

A track without an object is kept for a while, so that a hidden object returns with its id.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from clip_seg_ros.pipeline.postprocess import MAX_REGIONS, shared_px
from clip_seg_ros.types import ObjectRegion

SHAPE_WEIGHT, PLACE_WEIGHT, LOOKS_WEIGHT = 0.35, 0.25, 0.4
MAX_COST = 0.75
"""The cost from which a pair is no match. An object that moved by its size costs 0.5 if its colour is the same, and
more than 0.8 if it differs."""
REACH_SIZES = 2.0
"""Radius around the predicted place within which an object is searched, in sizes of the object."""
REACH_SIZES_PER_S = 2.0
"""Growth of this radius for every second that the object was not seen, in sizes of the object."""
HISTOGRAM_BINS = (8, 3, 3)
"""The number of bins for hue, saturation and value."""
LOOKS_GAIN = 0.1
VELOCITY_GAIN = 0.4
USUAL_GROWTH = 1.5
"""If the area of a mask differs from the usual one by a larger factor, it shows a part of an object or several objects:
it moves the track, but does not update its looks and velocity."""


@dataclass(frozen=True)
class _Look:
    """One object in one image, as tracks compare it."""

    inside: np.ndarray
    """(h, w) bool, the mask in the window of ``box_px``."""
    box_px: tuple[int, int, int, int]
    centroid_px: np.ndarray
    """(2,) float64: x, y."""
    area_px: float
    histogram: np.ndarray
    """Colour histogram, which sums to 1."""

    @property
    def size_px(self) -> float:
        return math.sqrt(self.area_px)


@dataclass
class _Track:
    """One object over time."""

    prompt: str
    id: int
    score: float
    seen_ns: int
    last: _Look
    """``area_px`` and ``histogram`` are means over time; the rest is from the last image that showed the object."""
    velocity_px_s: np.ndarray
    """(2,) float64: x, y."""


class Tracker:
    """Gives objects the ids of their tracks, 1..255, which stay while an object is seen or briefly hidden.

    A tracker has state: use one for each camera, with its images in the order of their stamps. It starts anew with a
    stamp before the last one, and with an image of another size. A freed id is used again only after all ids that were
    freed earlier.

    Args:
        max_age_s: Time in seconds after which an object that is not seen is given up.

    Raises:
        ValueError: ``max_age_s`` is not positive.
    """

    def __init__(self, max_age_s: float = 2.0) -> None:
        if not max_age_s > 0.0:
            raise ValueError(f"max_age_s must be positive, got {max_age_s}")
        self.max_age_s = max_age_s
        self.reset()

    def reset(self) -> None:
        """Forgets everything; the next image is the first."""
        self._tracks: list[_Track] = []
        self._free_ids = deque(range(1, MAX_REGIONS + 1))
        self._stamp_ns: int | None = None
        self._shape: tuple[int, ...] = ()

    def forget(self, prompt: str) -> None:
        """Gives up the objects of one prompt."""
        self._give_up(lambda track: track.prompt == prompt)

    def update(self, regions: Sequence[ObjectRegion], rgb: np.ndarray, stamp_ns: int) -> list[ObjectRegion]:
        """Recognises the objects of one image.

        Args:
            regions: The regions from ``postprocess.regions``; those of one prompt share no pixel.
            rgb: (H, W, 3) uint8, the image of the regions.
            stamp_ns: When the image was taken, in nanoseconds.

        Returns:
            The same regions in the same order with lasting ids; of more than 255, the 255 with the best scores.

        Raises:
            ValueError: ``rgb`` is not such an array, or a region is from an image of another size.
        """
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
            raise ValueError(f"rgb must be a (H, W, 3) uint8 array, got {rgb.shape} {rgb.dtype}")
        for region in regions:
            if region.image_size != rgb.shape[:2]:
                raise ValueError(f"region {region.id} is of an image of {region.image_size}, this has {rgb.shape[:2]}")
        if rgb.shape != self._shape or self._stamp_ns is None or stamp_ns < self._stamp_ns:
            self.reset()
        self._stamp_ns, self._shape = stamp_ns, rgb.shape
        self._give_up(lambda track: (stamp_ns - track.seen_ns) * 1e-9 > self.max_age_s)
        order = sorted(range(len(regions)), key=lambda index: -regions[index].score)[:MAX_REGIONS]
        looks = {index: _look(regions[index], rgb) for index in order}
        taken: dict[int, _Track] = {}
        for prompt in dict.fromkeys(regions[index].prompt for index in order):
            rows = [track for track in self._tracks if track.prompt == prompt]
            columns = [index for index in order if regions[index].prompt == prompt]
            costs = _costs(rows, [looks[index] for index in columns], stamp_ns)
            for row, column in best_pairs(costs, MAX_COST):
                taken[columns[column]] = rows[row]
        for index, track in taken.items():
            _follow(track, looks[index], regions[index].score, stamp_ns)
        self._make_room(len(order) - len(taken))
        for index in order:
            if index not in taken:
                taken[index] = self._begin(regions[index], looks[index])
        return [replace(region, id=taken[index].id) for index, region in enumerate(regions) if index in taken]

    def _begin(self, region: ObjectRegion, look: _Look) -> _Track:
        id = self._free_ids.popleft()
        track = _Track(region.prompt, id, region.score, self._stamp_ns, look, np.zeros(2))
        self._tracks.append(track)
        return track

    def _make_room(self, wanted: int) -> None:
        """Gives up the objects that have been hidden longest, until ``wanted`` ids are free."""
        missing = wanted - len(self._free_ids)
        if missing > 0:
            hidden = [track for track in self._tracks if track.seen_ns < self._stamp_ns]
            hidden.sort(key=lambda track: (track.seen_ns, track.score))
            ids = {track.id for track in hidden[:missing]}
            self._give_up(lambda track: track.id in ids)

    def _give_up(self, is_over: Callable[[_Track], bool]) -> None:
        over = sorted((track for track in self._tracks if is_over(track)), key=lambda track: (track.seen_ns, track.id))
        self._free_ids.extend(track.id for track in over)
        self._tracks = [track for track in self._tracks if not is_over(track)]


def best_pairs(costs: np.ndarray, max_cost: float) -> list[tuple[int, int]]:
    """Solves the assignment problem: finds the pairs with the least sum of costs.

    It uses successive shortest paths (Jonker and Volgenant, Computing 38, 1987), one for each row: O(N² (N + M)).

    Args:
        costs: (N, M), finite or infinite; pairs that cost ``max_cost`` or more are never chosen.
        max_cost: The cost of a row without a column, which is part of the sum.

    Returns:
        (row, column) pairs, each row and each column at most once, in the order of rows.
    """
    count, width = costs.shape
    # Every row also has a column of its own that stands for "none".
    none = np.where(np.eye(count, dtype=bool), max_cost, np.inf)
    padded = np.concatenate([np.where(costs < max_cost, costs, np.inf), none], axis=1)
    row_of = np.full(width + count, -1)
    row_price, column_price = np.zeros(count), np.zeros(width + count)
    for start in range(count):
        row, done = start, np.zeros(width + count, bool)
        distance, came_from = np.full(width + count, np.inf), np.full(width + count, -1)
        reached, column = 0.0, -1
        while row >= 0:
            # Costs minus prices are never negative, so that the nearest column is final, as in Dijkstra's algorithm.
            through = reached + padded[row] - row_price[row] - column_price
            nearer = ~done & (through < distance)
            distance[nearer], came_from[nearer] = through[nearer], column
            column = int(np.argmin(np.where(done, np.inf, distance)))
            reached, row = float(distance[column]), int(row_of[column])
            done[column] = True
        raised = reached - distance[done]
        row_price[start] += reached
        inner = row_of[done] >= 0
        row_price[row_of[done][inner]] += raised[inner]
        column_price[done] -= raised
        while column >= 0:
            before = came_from[column]
            row_of[column] = row_of[before] if before >= 0 else start
            column = before
    return sorted((int(row), column) for column, row in enumerate(row_of[:width]) if row >= 0)


def color_histogram(region: ObjectRegion, rgb: np.ndarray) -> np.ndarray:
    """Returns the colours of a region of an image, (H, W, 3) uint8, as a histogram over ``HISTOGRAM_BINS``.

    Returns:
        (B,) float32 that sums to 1.
    """
    hsv = cv2.cvtColor(np.ascontiguousarray(rgb[region.window]), cv2.COLOR_RGB2HSV)
    ranges = [0, 180, 0, 256, 0, 256]
    histogram = cv2.calcHist([hsv], [0, 1, 2], region.inside.view(np.uint8), list(HISTOGRAM_BINS), ranges)
    return histogram.ravel() / region.area_px


def unlikeness(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the Hellinger distance of two histograms that sum to 1: 0 for the same, 1 if they share no colour."""
    alike = float(np.sqrt(one * other).sum())  # Bhattacharyya coefficient
    return math.sqrt(max(0.0, 1.0 - alike))


def _look(region: ObjectRegion, rgb: np.ndarray) -> _Look:
    centroid = np.array(region.centroid_px)
    return _Look(region.inside, region.box_px, centroid, float(region.area_px), color_histogram(region, rgb))


def _costs(tracks: Sequence[_Track], looks: Sequence[_Look], stamp_ns: int) -> np.ndarray:
    """Returns the cost of assigning each look to each track: (N, M) in 0..1, infinite out of reach."""
    costs = np.full((len(tracks), len(looks)), np.inf)
    if costs.size == 0:
        return costs
    centroids = np.array([look.centroid_px for look in looks])  # (M, 2)
    sizes = np.array([look.size_px for look in looks])
    for row, track in enumerate(tracks):
        unseen_s = (stamp_ns - track.seen_ns) * 1e-9
        shift = track.velocity_px_s * unseen_s
        away = np.linalg.norm(centroids - track.last.centroid_px - shift, axis=1)
        reach = (REACH_SIZES + REACH_SIZES_PER_S * unseen_s) * np.maximum(track.last.size_px, sizes)
        for column in np.flatnonzero(away <= reach):
            look = looks[column]
            costs[row, column] = (
                SHAPE_WEIGHT * (1.0 - _shifted_iou(track.last, look, shift))
                + PLACE_WEIGHT * away[column] / reach[column]
                + LOOKS_WEIGHT * unlikeness(track.last.histogram, look.histogram)
            )
    return costs


def _shifted_iou(before: _Look, now: _Look, shift: np.ndarray) -> float:
    """Returns the IoU of two masks after the first is moved by ``shift`` (x, y), rounded to whole pixels."""
    dx, dy = (round(float(value)) for value in shift)
    shared = shared_px(before, now, (dx, dy))
    return shared / (np.count_nonzero(before.inside) + np.count_nonzero(now.inside) - shared)


def _follow(track: _Track, look: _Look, score: float, stamp_ns: int) -> None:
    """Updates ``track`` with the object that was assigned to it."""
    growth = look.area_px / track.last.area_px
    seconds = (stamp_ns - track.seen_ns) * 1e-9
    histogram = track.last.histogram
    if 1 / USUAL_GROWTH < growth < USUAL_GROWTH:
        histogram = histogram + LOOKS_GAIN * (look.histogram - histogram)
        if seconds > 0:
            velocity = (look.centroid_px - track.last.centroid_px) / seconds
            track.velocity_px_s = track.velocity_px_s + VELOCITY_GAIN * (velocity - track.velocity_px_s)
    area = track.last.area_px + LOOKS_GAIN * (look.area_px - track.last.area_px)
    track.last = replace(look, area_px=area, histogram=histogram)
    track.score, track.seen_ns = score, stamp_ns
