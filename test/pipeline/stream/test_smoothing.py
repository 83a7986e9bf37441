# SPDX-License-Identifier: Apache-2.0
"""Smoothing against plain loops, and what it promises: steady where nothing moves, at once where something does."""

from __future__ import annotations

import numpy as np
import pytest

from clip_seg_ros.pipeline.cell_maps import CellMaps
from clip_seg_ros.pipeline.preprocess import Geometry
from clip_seg_ros.pipeline.stream import smoothing
from clip_seg_ros.pipeline.stream.smoothing import TemporalSmoother
from clip_seg_ros.types import MaskSet
from nearness import assert_near

FRAME_NS = 100_000_000


def maps_of(values: np.ndarray, prompts: tuple[str, ...] | None = None) -> CellMaps:
    """Maps of a model that has a cell for every pixel."""
    values = np.asarray(values, np.float32)
    geometry = Geometry(values.shape[1:], values.shape[1:])
    return CellMaps(prompts or tuple(f"p{index}" for index in range(len(values))), values, geometry)


def noisy(picture: np.ndarray, rng: np.random.Generator, sigma: float = 3.0) -> np.ndarray:
    return np.clip(np.rint(picture + rng.normal(0, sigma, picture.shape)), 0, 255).astype(np.uint8)


def textured(rng: np.random.Generator, shape: tuple[int, int] = (120, 160)) -> np.ndarray:
    coarse = rng.uniform(60, 180, (shape[0] // 8 + 1, shape[1] // 8 + 1, 3))
    return np.kron(coarse, np.ones((8, 8, 1)))[: shape[0], : shape[1]]


def smooth(
    smoother: TemporalSmoother, maps: CellMaps, rgb: np.ndarray, stamp_ns: int, threshold: float
) -> tuple[CellMaps, MaskSet]:
    smoothed, decided = smoother.smooth(maps, smoother.look(rgb, stamp_ns), threshold)
    return smoothed, MaskSet(maps.prompts, decided > threshold, threshold)


class LoopedSmoother:
    """The definition, a pixel at a time, for pictures too small to be reduced."""

    def __init__(self, strength: float, margin: float, threshold: float) -> None:
        self.strength, self.margin, self.threshold = strength, margin, threshold
        self.mean = None

    def smooth(self, values: np.ndarray, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        height, width = rgb.shape[:2]
        pixels = [(y, x) for y in range(height) for x in range(width)]
        if self.mean is None:
            self.mean, self.count, self.variance = rgb.astype(float), dict.fromkeys(pixels, 1), None
            self.weight = dict.fromkeys(pixels, 1.0)
            self.values, self.masks = values.astype(float), values > self.threshold
            return self.values.copy(), self.masks.copy()
        evens = [(y, x) for y, x in pixels if y % 2 == x % 2 == 0 and self.mean[y, x, 1] > smoothing.DARK]
        ratios = [rgb[y, x, 1] / self.mean[y, x, 1] for y, x in evens]
        self.mean *= np.median(ratios)
        energy = {pixel: self.energy(rgb, *pixel) / (1 + self.weight[pixel]) for pixel in pixels}
        measured = sorted(energy.values())[int(smoothing.QUIET_SHARE * len(pixels))]
        allowed = measured if self.variance is None else smoothing.NOISE_RISE * self.variance
        self.variance = min(max(min(measured, allowed), smoothing.NOISE_VARIANCE[0]), smoothing.NOISE_VARIANCE[1])
        for y, x in pixels:
            changed = energy[y, x] > smoothing.CHANGED_ENERGY * self.variance
            self.count[y, x] = 1 if changed else self.count[y, x] + 1
            weight = self.weight[y, x] = max(1 / self.count[y, x], 1 - self.strength)
            self.mean[y, x] += (rgb[y, x] - self.mean[y, x]) * weight
            for p in range(len(values)):
                self.values[p, y, x] += (values[p, y, x] - self.values[p, y, x]) * weight
                side = -self.margin if self.masks[p, y, x] else self.margin
                level = self.threshold if weight == 1 else self.threshold + side
                self.masks[p, y, x] = self.values[p, y, x] > level
        return self.values.copy(), self.masks.copy()

    def energy(self, rgb: np.ndarray, y: int, x: int) -> float:
        height, width = rgb.shape[:2]
        squares = []
        for v in range(y - 2, y + 3):
            for u in range(x - 2, x + 3):
                # Past the border the picture is mirrored about its outermost pixels.
                row, column = (height - 1) - abs((height - 1) - abs(v)), (width - 1) - abs((width - 1) - abs(u))
                squares += [(float(rgb[row, column, c]) - self.mean[row, column, c]) ** 2 for c in range(3)]
        return sum(squares) / len(squares)


@pytest.mark.parametrize(("strength", "margin"), [(0.9, 0.05), (0.6, 0.0)])
def test_smoothing_equals_plain_loops(strength: float, margin: float) -> None:
    rng = np.random.default_rng(4)
    picture = rng.uniform(60, 180, (9, 13, 3))
    fast, slow = TemporalSmoother(strength, margin), LoopedSmoother(strength, margin, 0.5)
    renewed = 0
    for index in range(7):
        if index in (3, 5):
            picture[:2, index : index + 2] = rng.uniform(60, 180, (2, 2, 3))
        rgb, values = noisy(picture, rng), (0.5 + rng.normal(0, 0.06, (2, 9, 13))).astype(np.float32)
        smoothed, mask_set = smooth(fast, maps_of(values), rgb, index * FRAME_NS, 0.5)
        expected, masks = slow.smooth(values, rgb)
        assert_near(smoothed.values, expected)
        assert (mask_set.values == masks).all()
        renewed += index > 0 and (smoothed.values == values).any() and not (smoothed.values == values).all()
    assert renewed >= 2, "the picture changed in places twice"


def test_strength_0_gives_exactly_the_input() -> None:
    rng = np.random.default_rng(0)
    smoother = TemporalSmoother(strength=0.0, margin=0.2)
    for index in range(3):
        maps = maps_of(rng.random((2, 30, 40)))
        smoothed, mask_set = smooth(smoother, maps, np.full((30, 40, 3), 90, np.uint8), index * FRAME_NS, 0.4)
        assert smoothed is maps
        assert (mask_set.values == (maps.values > 0.4)).all()
        assert mask_set.threshold == 0.4


def flicker(masks: list[np.ndarray]) -> float:
    return float(np.mean([(a != b).mean() for a, b in zip(masks[1:], masks[:-1], strict=True)]))


@pytest.mark.parametrize("shape", [(120, 160), (181, 243)])
def test_a_still_noisy_picture_stops_flickering(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    picture, truth = textured(rng, shape), rng.uniform(0.3, 0.7, (2, *shape))
    smoother, plain, steady = TemporalSmoother(), [], []
    for index in range(15):
        maps = maps_of(truth + rng.normal(0, 0.05, truth.shape))
        plain.append(maps.values > 0.5)
        steady.append(smooth(smoother, maps, noisy(picture, rng), index * FRAME_NS, 0.5)[1].values)
    assert flicker(steady) < 0.05 * flicker(plain)
    assert (steady[-1] == (truth > 0.5)).mean() > 0.9


def test_nothing_trails_behind_a_moving_object() -> None:
    rng = np.random.default_rng(2)
    picture, smoother = textured(rng), TemporalSmoother()
    for index in range(25):
        left = 20 + 4 * max(0, index - 8)
        scene = picture.copy()
        # As bright as what it covers: grey alone would not show it.
        scene[40:70, left : left + 25] = picture[40:70, left : left + 25] + [60, -30, 5]
        truth = np.zeros((1, 120, 160), np.float32)
        truth[0, 40:70, left : left + 25] = 1.0
        smoothed, mask_set = smooth(smoother, maps_of(truth), noisy(scene, rng), index * FRAME_NS, 0.5)
        assert (mask_set.values == (truth > 0.5)).all(), index
        assert np.abs(smoothed.values - truth).max() < 1e-6


def test_what_drifts_slower_than_the_noise_is_renewed_too() -> None:
    rng = np.random.default_rng(3)
    picture, smoother, errors = textured(rng), TemporalSmoother(strength=0.98), []
    for index in range(40):
        scene = picture.copy()
        scene[40:80, 60:100] += index  # grey levels, of noise 3
        truth = np.full((1, 120, 160), index / 40, np.float32)
        smoothed, _ = smooth(smoother, maps_of(truth), noisy(scene, rng), index * FRAME_NS, 0.5)
        errors.append(truth[0, 0, 0] - smoothed.values[0])
    assert errors[-1][50:70, 70:90].max() < 0.25
    assert errors[-1][:20].min() > 0.3, "elsewhere the average is long"


def test_a_change_of_brightness_is_no_change() -> None:
    rng = np.random.default_rng(5)
    picture, smoother = textured(rng), TemporalSmoother()
    for index in range(12):
        bright = picture * (1.0 if index < 6 else 1.25)
        value = 0.4 if index < 11 else 0.8
        smoothed, _ = smooth(
            smoother, maps_of(np.full((1, 120, 160), value)), noisy(bright, rng), index * FRAME_NS, 0.5
        )
    assert smoothed.values.max() < 0.45


def test_a_camera_that_moves_all_along_is_not_noise() -> None:
    rng = np.random.default_rng(6)
    world, smoother = textured(rng, (120, 320)), TemporalSmoother()
    for index in range(15):
        truth = rng.random((1, 120, 160)).astype(np.float32)
        rgb = noisy(world[:, 5 * index : 5 * index + 160], rng)
        smoothed, _ = smooth(smoother, maps_of(truth), rgb, index * FRAME_NS, 0.5)
        # Places that look as before are averaged even then.
        assert index < 2 or (smoothed.values == truth).mean() > 0.85


def test_when_everything_changes_a_little_it_is_no_noise_either() -> None:
    rng = np.random.default_rng(8)
    picture, smoother = textured(rng), TemporalSmoother()
    for index in range(6):
        if index == 5:
            picture = picture + rng.uniform(-6, 6, picture.shape)
        truth = rng.random((1, 120, 160)).astype(np.float32)
        rgb = noisy(picture, rng, sigma=0.5)
        smoothed, _ = smooth(smoother, maps_of(truth), rgb, index * FRAME_NS, 0.5)
    assert (smoothed.values == truth).all()


def test_hysteresis_holds_pixels_between_the_two_levels() -> None:
    smoother, rgb = TemporalSmoother(strength=1e-6, margin=0.1), np.full((6, 8, 3), 100, np.uint8)
    decided = []
    for index, value in enumerate([0.45, 0.58, 0.62, 0.45, 0.42, 0.38, 0.55]):
        maps = maps_of(np.full((1, 6, 8), value))
        decided.append(bool(smooth(smoother, maps, rgb, index * FRAME_NS, 0.5)[1].values[0, 3, 3]))
    assert decided == [False, False, True, True, True, False, False]


@pytest.mark.parametrize("case", ["size", "backwards", "gap"])
def test_another_size_an_earlier_stamp_and_a_gap_start_anew(case: str) -> None:
    smoother = TemporalSmoother(max_gap_s=0.5)
    for index in range(5):
        smooth(smoother, maps_of(np.zeros((1, 20, 30))), np.full((20, 30, 3), 90, np.uint8), index * FRAME_NS, 0.5)
    shape = (30, 20) if case == "size" else (20, 30)
    stamp_ns = {"size": 5 * FRAME_NS, "backwards": 3 * FRAME_NS, "gap": 10 * FRAME_NS}[case]
    new = maps_of(np.full((1, *shape), 0.8))
    smoothed, mask_set = smooth(smoother, new, np.full((*shape, 3), 90, np.uint8), stamp_ns, 0.5)
    assert (smoothed.values == new.values).all()
    assert mask_set.values.all()


def test_each_prompt_has_its_own_past() -> None:
    smoother, rgb = TemporalSmoother(), np.full((20, 30, 3), 90, np.uint8)
    for index in range(5):
        smooth(smoother, maps_of(np.full((1, 20, 30), 0.2), ("cup",)), rgb, index * FRAME_NS, 0.5)
    both = maps_of(np.full((2, 20, 30), 0.9), ("box", "cup"))
    box, cup = smooth(smoother, both, rgb, 5 * FRAME_NS, 0.5)[0].values
    assert (box == np.float32(0.9)).all()
    assert cup.max() < 0.5
    smooth(smoother, maps_of(np.full((1, 20, 30), 0.2), ("box",)), rgb, 6 * FRAME_NS, 0.5)
    cup = smooth(smoother, both, rgb, 7 * FRAME_NS, 0.5)[0].values[1]
    assert (cup == np.float32(0.9)).all(), "what is not asked is forgotten"


def test_a_prompt_can_be_forgotten_and_others_go_on() -> None:
    smoother, rgb = TemporalSmoother(), np.full((20, 30, 3), 90, np.uint8)
    for index in range(5):
        smooth(smoother, maps_of(np.full((2, 20, 30), 0.2), ("box", "cup")), rgb, index * FRAME_NS, 0.5)
    smoother.forget("cup")
    smoother.forget("what was never asked")
    box, cup = smooth(smoother, maps_of(np.full((2, 20, 30), 0.9), ("box", "cup")), rgb, 5 * FRAME_NS, 0.5)[0].values
    assert box.max() < 0.5
    assert (cup == np.float32(0.9)).all()


def test_another_threshold_decides_without_hysteresis_once() -> None:
    smoother, rgb = TemporalSmoother(margin=0.2), np.full((20, 30, 3), 90, np.uint8)
    maps = maps_of(np.full((1, 20, 30), 0.5))
    assert not smooth(smoother, maps, rgb, 0, 0.6)[1].values.any()
    assert smooth(smoother, maps, rgb, FRAME_NS, 0.4)[1].values.all()
    assert smooth(smoother, maps, rgb, 2 * FRAME_NS, 0.4)[1].values.all()


def test_what_was_handed_out_never_changes_and_the_input_neither() -> None:
    rng, smoother = np.random.default_rng(7), TemporalSmoother()
    rgb = np.full((20, 30, 3), 90, np.uint8)
    kept = []
    for index in range(4):
        maps = maps_of(rng.random((1, 20, 30)))
        smoothed, mask_set = smooth(smoother, maps, rgb, index * FRAME_NS, 0.5)
        kept += [(array, array.copy()) for array in (maps.values, smoothed.values, mask_set.values)]
    assert all((array == copy).all() for array, copy in kept)


def test_nan_counts_as_0_and_does_not_stay() -> None:
    smoother, rgb = TemporalSmoother(), np.full((20, 30, 3), 90, np.uint8)
    values = np.full((1, 20, 30), 0.8)
    values[0, 5, 5] = np.nan
    for index in range(2):
        smoothed, mask_set = smooth(smoother, maps_of(values), rgb, index * FRAME_NS, 0.5)
        assert smoothed.values[0, 5, 5] == 0
        assert not mask_set.values[0, 5, 5]
    values[0, 5, 5] = 0.8
    assert smooth(smoother, maps_of(values), rgb, 2 * FRAME_NS, 0.5)[0].values[0, 5, 5] > 0.2


def test_no_prompt_is_fine() -> None:
    smoother, rgb = TemporalSmoother(), np.full((20, 30, 3), 90, np.uint8)
    for index in range(2):
        smoothed, mask_set = smooth(smoother, maps_of(np.zeros((0, 20, 30))), rgb, index * FRAME_NS, 0.5)
        assert smoothed.values.shape == mask_set.values.shape == (0, 20, 30)


def test_wrong_arguments_are_refused() -> None:
    for arguments, message in (
        ({"strength": 1.0}, "strength must lie"),
        ({"strength": float("nan")}, "strength must lie"),
        ({"margin": -0.1}, "margin must lie"),
        ({"max_gap_s": 0.0}, "max_gap_s must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            TemporalSmoother(**arguments)
    maps = maps_of(np.zeros((1, 20, 30)))
    with pytest.raises(ValueError, match=r"the image is \(30, 20\)"):
        smooth(TemporalSmoother(), maps, np.zeros((30, 20, 3), np.uint8), 0, 0.5)
    with pytest.raises(ValueError, match="threshold must lie"):
        smooth(TemporalSmoother(), maps, np.zeros((20, 30, 3), np.uint8), 0, 1.5)
    for rgb in (np.zeros((20, 30), np.uint8), np.zeros((20, 30, 3))):
        with pytest.raises(ValueError, match="rgb must be"):
            TemporalSmoother().look(rgb, 0)
