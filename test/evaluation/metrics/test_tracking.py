# SPDX-License-Identifier: Apache-2.0
"""Steadiness over time against sets of pixels and all ways to match."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from clip_seg_ros.evaluation.metrics.tracking import TrackingMeter, TrueObject
from clip_seg_ros.types import ObjectRegion

SHAPE = (12, 16)


def mask_of(*pixels: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    for pixel in pixels:
        mask[pixel] = True
    return mask


def block(top: int, left: int, height: int = 3, width: int = 4) -> np.ndarray:
    return mask_of(*itertools.product(range(top, top + height), range(left, left + width)))


def region(id: int, mask: np.ndarray, prompt: str = "cup", position_m: tuple | None = None) -> ObjectRegion:
    return ObjectRegion.of_mask(prompt, id, 0.8, mask, position_m)


class LoopedMeter:
    """CLEAR MOT by its definition: keep old pairs, then try every way to match the others."""

    def __init__(self) -> None:
        self.pairs, self.last, self.switches, self.matches, self.objects = {}, {}, 0, 0, 0
        self.errors, self.changed, self.compared, self.before = [], 0, 0, None

    def add(self, regions: list, masks: np.ndarray, truth: list, still: bool) -> None:
        if still and self.before is not None:
            for y, x in itertools.product(range(SHAPE[0]), range(SHAPE[1])):
                self.compared += 1
                self.changed += any(now[y, x] != old[y, x] for now, old in zip(masks, self.before, strict=True))
        self.before = masks
        pixels = {r.id: set(zip(*np.nonzero(r.mask), strict=True)) for r in regions}
        truth = [(t, set(zip(*np.nonzero(t.mask), strict=True))) for t in truth if t.mask.any()]
        iou = {
            ((t.prompt, t.index), r.id): len(own & pixels[r.id]) / len(own | pixels[r.id])
            for t, own in truth
            for r in regions
            if t.prompt == r.prompt
        }
        kept = {key: id for key, id in self.pairs.items() if iou.get((key, id), 0) >= 0.5}
        keys = [(t.prompt, t.index) for t, _ in truth if (t.prompt, t.index) not in kept]
        ids = [r.id for r in regions if r.id not in kept.values()]
        best, most = {}, -1.0
        for choice in itertools.permutations([*ids, *[None] * len(keys)], len(keys)):
            chosen = {k: i for k, i in zip(keys, choice, strict=True) if i is not None and iou.get((k, i), 0) >= 0.5}
            if sum(iou[pair] for pair in chosen.items()) > most:
                best, most = chosen, sum(iou[pair] for pair in chosen.items())
        self.pairs = {**kept, **best}
        self.objects += len(truth)
        for key, id in self.pairs.items():
            self.matches += 1
            self.switches += key in self.last and self.last[key] != id
            self.last[key] = id
            place = next(t.position_m for t, _ in truth if (t.prompt, t.index) == key)
            guess = next(r.position_m for r in regions if r.id == id)
            if place and guess:
                self.errors.append(sum((a - b) ** 2 for a, b in zip(place, guess, strict=True)) ** 0.5)


@pytest.mark.parametrize("seed", range(4))
def test_scores_equal_plain_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fast, slow = TrackingMeter(), LoopedMeter()
    for _ in range(25):
        truth, regions = [], []
        for index, prompt in enumerate(("cup", "cup", "box")):
            mask = block(4 * index, 6, 3, 6)
            position = tuple(rng.uniform(0, 1, 3)) if rng.random() < 0.8 else None
            truth.append(TrueObject(prompt, index, mask if rng.random() < 0.9 else np.zeros(SHAPE, bool), position))
            if rng.random() < 0.85:
                shifted = np.roll(mask, rng.integers(0, 4), axis=1) & (rng.random(SHAPE) < 0.9)
                regions.append((shifted, prompt))
        ids = rng.permutation(4)[: len(regions)] + 1 if rng.random() < 0.3 else range(1, len(regions) + 1)
        regions = [
            region(int(id), mask, prompt, tuple(rng.uniform(0, 1, 3)) if rng.random() < 0.8 else None)
            for id, (mask, prompt) in zip(ids, regions, strict=True)
        ]
        masks, still = rng.random((2, *SHAPE)) < 0.5, bool(rng.random() < 0.6)
        fast.add(regions, masks, truth, still)
        slow.add(regions, masks, truth, still)
    scores = fast.scores()
    assert (scores.object_frames, scores.matches, scores.switches) == (slow.objects, slow.matches, slow.switches)
    assert scores.switches > 2
    assert scores.matches < scores.object_frames
    assert scores.switches_per_1000 == pytest.approx(1000 * slow.switches / slow.objects)
    assert scores.flicker == pytest.approx(slow.changed / slow.compared)
    middle = sorted(slow.errors)
    assert scores.position_error_m == pytest.approx((middle[(len(middle) - 1) // 2] + middle[len(middle) // 2]) / 2)


def none(count: int = 1) -> np.ndarray:
    return np.zeros((count, *SHAPE), bool)


def test_a_switch_counts_after_a_gap_too_and_only_once() -> None:
    meter, truth = TrackingMeter(), [TrueObject("cup", 1, block(2, 2))]
    for id in (5, 5, None, 7, 7, 5):
        meter.add([] if id is None else [region(id, block(2, 2))], none(), truth, still=False)
    scores = meter.scores()
    assert (scores.switches, scores.matches, scores.object_frames) == (2, 5, 6)


def test_an_old_pair_stays_while_it_overlaps_by_half() -> None:
    meter, truth = TrackingMeter(), [TrueObject("cup", 1, block(0, 0, 2, 8))]
    meter.add([region(1, block(0, 0, 2, 8))], none(), truth, still=False)
    # Both cover one half: the old one keeps it.
    meter.add([region(2, block(0, 0, 2, 4)), region(1, block(0, 4, 2, 4))], none(), truth, still=False)
    assert meter.scores().switches == 0


def test_only_frames_in_which_nothing_moved_are_compared() -> None:
    meter = TrackingMeter()
    full, half = np.ones((1, *SHAPE), bool), none()
    half[0, :6] = True
    meter.add([], none(), [], still=True)
    meter.add([], full, [], still=False)
    assert math.isnan(meter.scores().flicker)
    meter.add([], half, [], still=True)
    assert meter.scores().flicker == 0.5
    meter.add([], none(2), [], still=True)  # other prompts: nothing to compare
    assert meter.scores().flicker == 0.5
    meter.add([], none(2), [], still=True)
    assert meter.scores().flicker == 0.25


def test_sequences_are_not_compared_with_each_other() -> None:
    meter, truth = TrackingMeter(), [TrueObject("cup", 1, block(2, 2))]
    meter.add([region(1, block(2, 2))], none(), truth, still=True)
    meter.start_sequence()
    meter.add([region(2, block(2, 2))], ~none(), truth, still=True)
    scores = meter.scores()
    assert scores.switches == 0
    assert scores.matches == 2
    assert math.isnan(scores.flicker)


def test_without_anything_there_is_no_score() -> None:
    scores = TrackingMeter().scores()
    assert math.isnan(scores.switches_per_1000)
    assert math.isnan(scores.position_error_m)


def test_wrong_masks_are_refused() -> None:
    with pytest.raises(ValueError, match="masks must be"):
        TrackingMeter().add([], np.zeros(SHAPE, bool), [], still=True)
    truth = [TrueObject("cup", 1, np.ones((3, 3), bool))]
    with pytest.raises(ValueError, match="different shapes"):
        TrackingMeter().add([region(1, block(0, 0))], none(), truth, still=True)
