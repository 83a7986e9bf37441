# SPDX-License-Identifier: Apache-2.0
"""Ids over time, on drawn objects whose identity is known; the assignment against all permutations."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from clip_seg_ros.pipeline import postprocess
from clip_seg_ros.pipeline.stream.tracking import Tracker, best_pairs
from clip_seg_ros.types import ObjectRegion, ProbabilityMaps

FRAME_NS = 100_000_000
SHAPE = (120, 160)
RED, BLUE, GREEN = (200, 30, 30), (30, 40, 190), (20, 150, 40)


def draw(*things: tuple[float, float, tuple[int, int, int]], radius: float = 10) -> tuple[np.ndarray, np.ndarray]:
    """A picture of disks (x, y, colour), later ones in front, and one mask of them all."""
    rgb, mask = np.full((*SHAPE, 3), 120, np.uint8), np.zeros(SHAPE, bool)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for cx, cy, color in things:
        inside = (x - cx) ** 2 + (y - cy) ** 2 <= radius**2
        rgb[inside], mask[inside] = color, True
    return rgb, mask


def found(mask: np.ndarray, rng: np.random.Generator | None = None, prompt: str = "cup") -> list[ObjectRegion]:
    """What ``postprocess`` makes of a mask; with ``rng`` the scores, and so the order, are random."""
    values = np.where(mask, np.float32(0.8), np.float32(0.0))
    if rng is not None:
        _, labels = cv2.connectedComponents(mask.astype(np.uint8))
        values = np.where(mask, rng.uniform(0.6, 0.9, labels.max() + 1)[labels], 0).astype(np.float32)
    maps = ProbabilityMaps((prompt,), values[None])
    return postprocess.regions(maps, postprocess.masks(maps, 0.5))


def ids_at(regions: list[ObjectRegion], *places: tuple[float, float]) -> list[int | None]:
    """The id of the region at each (x, y)."""
    return [next((item.id for item in regions if item.mask[round(y), round(x)]), None) for x, y in places]


def looped_best(costs: np.ndarray, max_cost: float) -> float:
    rows, columns = costs.shape
    totals = [0.0] if rows == 0 else []
    for choice in itertools.permutations([*range(columns), *[-1] * rows], rows):
        taken = [max_cost if column < 0 else costs[row, column] for row, column in enumerate(choice)]
        totals.append(sum(cost if cost <= max_cost else np.inf for cost in taken))
    return min(totals)


def test_the_assignment_is_the_best_of_all() -> None:
    rng = np.random.default_rng(0)
    for trial in range(150):
        costs = rng.random(rng.integers(0, 5, 2))
        costs[rng.random(costs.shape) < 0.2] = np.inf
        if trial % 3 == 0:
            costs = np.round(costs * 4) / 4  # ties
        pairs = best_pairs(costs, 0.75)
        rows, columns = [row for row, _ in pairs], [column for _, column in pairs]
        assert rows == sorted(set(rows))
        assert len(set(columns)) == len(columns)
        assert all(costs[pair] < 0.75 for pair in pairs)
        total = sum(costs[pair] for pair in pairs) + 0.75 * (len(costs) - len(pairs))
        assert total == pytest.approx(looped_best(costs, 0.75)), costs


def test_ids_stay_while_objects_move_and_their_scores_change_places() -> None:
    tracker, rng = Tracker(), np.random.default_rng(1)
    seen = []
    for index in range(20):
        places = [(20 + 3 * index, 30), (130 - 2 * index, 60), (40, 90 - index)]
        rgb, mask = draw(*((x, y, RED) for x, y in places))
        regions = found(mask, rng)
        tracked = tracker.update(regions, rgb, index * FRAME_NS)
        assert [item.score for item in tracked] == [item.score for item in regions], "the order stays"
        assert all(a.inside is b.inside for a, b in zip(tracked, regions, strict=True))
        seen.append(ids_at(tracked, *places))
    assert sorted(seen[0]) == [1, 2, 3]
    assert all(ids == seen[0] for ids in seen)


def test_objects_side_by_side_keep_their_ids_when_the_camera_jumps_by_less_than_half_their_distance() -> None:
    tracker = Tracker()
    places = [(30, 60), (60, 60), (90, 60)]
    rgb, mask = draw(*((*place, RED) for place in places))
    first = ids_at(tracker.update(found(mask), rgb, 0), *places)
    places = [(x + 13, y) for x, y in places]
    rgb, mask = draw(*((*place, RED) for place in places))
    assert ids_at(tracker.update(found(mask), rgb, FRAME_NS), *places) == first


@pytest.mark.parametrize("colors", [(RED, BLUE), (RED, RED)])
@pytest.mark.parametrize("dy", [0, 6])
def test_two_that_cross_and_merge_on_the_way_keep_their_ids(colors: tuple, dy: int) -> None:
    tracker = Tracker()
    merged = 0
    for index in range(24):
        a, b = (25 + 5 * index, 60), (140 - 5 * index, 60 + dy)
        rgb, mask = draw((*a, colors[0]), (*b, colors[1]))
        tracked = tracker.update(found(mask), rgb, index * FRAME_NS)
        merged += len(tracked) == 1
        if index == 0:
            first = ids_at(tracked, a, b)
    assert merged >= 3
    assert ids_at(tracked, a, b) == first


@pytest.mark.parametrize("together", [1, 4])
def test_two_that_meet_and_part_again_are_told_apart_by_their_colours(together: int) -> None:
    tracker = Tracker()
    ways = [*range(0, 60, 5), *[60] * together, *range(55, -1, -5)]
    alone = 0
    for index, way in enumerate(ways):
        a, b = (15 + way, 60), (145 - way, 60)
        rgb, mask = draw((*a, RED), (*b, BLUE), radius=14)
        tracked = tracker.update(found(mask), rgb, index * FRAME_NS)
        alone += len(tracked) == 1
        if index == 0:
            first = ids_at(tracked, a, b)
    assert alone > together
    assert ids_at(tracked, a, b) == first


def test_a_long_time_as_one_region_teaches_neither_looks_nor_velocity() -> None:
    tracker = Tracker(max_age_s=3.0)
    for index, way in enumerate([*range(0, 60, 5), *[60] * 20, *range(65, 131, 5)]):
        a, b = (15 + way, 60), (145 - way, 60)
        rgb, mask = draw((*a, RED), (*b, RED), radius=14)
        tracked = tracker.update(found(mask), rgb, index * FRAME_NS)
        if index == 0:
            first = ids_at(tracked, a, b)
    assert ids_at(tracked, a, b) == first, "alike, so that each is taken to go on as it went"


def test_a_ring_and_the_disk_in_it_are_told_apart_by_their_shapes() -> None:
    tracker, rng, seen = Tracker(), np.random.default_rng(2), []
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for index in range(8):
        away = np.hypot(y - 60, x - 60 - index)
        rgb = np.full((*SHAPE, 3), 120, np.uint8)
        tracked = tracker.update(found((away < 20) | ((away > 25) & (away < 32)), rng), rgb, index * FRAME_NS)
        seen.append(ids_at(tracked, (60 + index, 60), (88 + index, 60)))
    assert all(ids == seen[0] for ids in seen)


def test_a_hidden_object_returns_with_its_id_and_after_too_long_with_a_new_one() -> None:
    for hidden, same in ((7, True), (14, False)):
        tracker = Tracker(max_age_s=1.0)
        rgb, mask = draw((30, 60, RED), (100, 60, BLUE))
        first = ids_at(tracker.update(found(mask), rgb, 0), (30, 60), (100, 60))
        for index in range(1, hidden):
            rgb, mask = draw((30, 60, RED))
            tracker.update(found(mask), rgb, index * FRAME_NS)
        rgb, mask = draw((30, 60, RED), (104, 60, BLUE))
        last = ids_at(tracker.update(found(mask), rgb, hidden * FRAME_NS), (30, 60), (104, 60))
        assert last[0] == first[0]
        assert (last[1] == first[1]) == same


def test_one_that_moves_behind_something_is_expected_where_it_goes() -> None:
    tracker = Tracker()
    for index in range(18):
        x = 20 + 6 * index
        things = [(x, 60, RED)] if index < 8 or index > 13 else []
        # Another one, just like it, appears where it vanished.
        things += [(62, 60, RED)] if index > 13 else []
        rgb, mask = draw(*things)
        tracked = tracker.update(found(mask), rgb, index * FRAME_NS)
    assert ids_at(tracked, (x, 60), (62, 60)) == [1, 2]


def test_another_object_in_its_place_nearby_is_another() -> None:
    tracker = Tracker()
    rgb, mask = draw((60, 60, RED))
    assert ids_at(tracker.update(found(mask), rgb, 0), (60, 60)) == [1]
    rgb, mask = draw((78, 60, BLUE))
    assert ids_at(tracker.update(found(mask), rgb, FRAME_NS), (78, 60)) == [2]
    rgb, mask = draw((78, 60, BLUE))
    assert ids_at(tracker.update(found(mask, prompt="box"), rgb, 2 * FRAME_NS), (78, 60)) == [3], "another prompt"


def test_a_freed_id_waits_for_all_that_were_freed_before() -> None:
    tracker, (rgb, mask) = Tracker(max_age_s=0.5), draw((60, 60, RED))
    regions = found(mask)
    seen = [tracker.update(regions, rgb, index * 10 * FRAME_NS)[0].id for index in range(300)]
    assert seen == [*range(1, 256), *range(1, 46)]


def dots(count: int, offset: int, first_score: float = 0.5) -> tuple[np.ndarray, list[ObjectRegion]]:
    """Regions of one pixel each, rising scores, none near another; their ids repeat after 255."""
    regions = []
    for index in range(count):
        y, x = 6 * (index // 26) + offset, 6 * (index % 26) + offset
        mask = np.zeros(SHAPE, bool)
        mask[y, x] = True
        score = first_score + index / 1000
        regions.append(ObjectRegion.of_mask("cup", 1 + index % 255, score, mask))
    return np.full((*SHAPE, 3), 120, np.uint8), regions


def test_of_too_many_objects_the_best_are_kept() -> None:
    rgb, regions = dots(300, 0)
    tracked = Tracker().update(regions, rgb, 0)
    assert [item.score for item in tracked] == [item.score for item in regions[45:]]
    assert sorted(item.id for item in tracked) == list(range(1, 256))


def test_hidden_objects_make_room_for_visible_ones() -> None:
    tracker = Tracker()
    rgb, regions = dots(200, 0)
    first = tracker.update(regions[:100], rgb, 0)
    second = tracker.update(regions[100:], rgb, FRAME_NS)
    assert {item.id for item in first}.isdisjoint(item.id for item in second)
    rgb, others = dots(150, 3)
    third = tracker.update(others, rgb, 2 * FRAME_NS)
    assert len({item.id for item in third}) == 150
    assert {item.id for item in third}.isdisjoint(item.id for item in second), "those unseen for longest go first"


@pytest.mark.parametrize("case", ["backwards", "size"])
def test_an_earlier_stamp_and_another_size_start_anew(case: str) -> None:
    tracker = Tracker()
    for index in range(3):
        rgb, mask = draw((40 + 40 * index, 60, RED))
        tracker.update(found(mask), rgb, index * FRAME_NS)
    if case == "size":
        rgb, mask = rgb[:-10], mask[:-10]
    stamp_ns = FRAME_NS if case == "backwards" else 3 * FRAME_NS
    assert ids_at(tracker.update(found(mask), rgb, stamp_ns), (120, 60)) == [1]


def test_the_same_stamp_again_changes_nothing() -> None:
    tracker = Tracker()
    for stamp_ns in (0, FRAME_NS, FRAME_NS, FRAME_NS, 2 * FRAME_NS):
        rgb, mask = draw((40 + 30 * stamp_ns // (10 * FRAME_NS), 60, GREEN))
        assert [item.id for item in tracker.update(found(mask), rgb, stamp_ns)] == [1]
    assert tracker.update([], rgb, 2 * FRAME_NS) == []


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="max_age_s must be positive"):
        Tracker(max_age_s=0.0)
    rgb, mask = draw((60, 60, RED))
    with pytest.raises(ValueError, match="rgb must be a"):
        Tracker().update(found(mask), rgb[..., 0], 0)
    with pytest.raises(ValueError, match="this has"):
        Tracker().update(found(mask), rgb[:-1], 0)
