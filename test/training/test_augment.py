# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from clip_seg_ros.data.samples import IGNORED, ReferringSample, SemanticSample
from clip_seg_ros.training.augment import (
    fill_up,
    letterboxed,
    photometric_distortion,
    random_crop,
    random_flip,
    random_scale,
    semantic_view,
)


def tied_sample(height: int = 60, width: int = 100, classes: int = 8) -> SemanticSample:
    """A sample of vertical stripes whose colour tells their class: 10 + 20 * class."""
    labels = np.repeat(np.arange(width) * classes // width, height).reshape(width, height).T.astype(np.uint8)
    return SemanticSample(np.repeat((10 + 20 * labels)[..., None], 3, axis=2), labels, "stripes")


def labels_from_colours(rgb: np.ndarray) -> np.ndarray:
    return np.round((rgb[..., 0].astype(float) - 10) / 20).astype(int)


def test_the_scale_is_spread_over_half_to_double_of_what_fits() -> None:
    sides, rng = [], np.random.default_rng(0)
    for _ in range(400):
        scaled = random_scale(tied_sample(), rng, (200, 90))
        assert scaled.rgb.shape[:2] == scaled.labels.shape
        height, width = scaled.labels.shape
        assert abs(width / height - 100 / 60) < 0.05
        sides.append(height)
    # 60 x 100 fits (90, 200) at 1.5: 90 x 150.
    assert 45 <= min(sides) < 52
    assert 170 < max(sides) <= 180
    assert np.mean(sides) == pytest.approx(90 * 1.25, rel=0.05)


def test_a_long_picture_is_held_by_its_long_side() -> None:
    scaled = random_scale(tied_sample(50, 400), np.random.default_rng(0), (200, 90), (1.0, 1.0))
    assert scaled.labels.shape == (25, 200)


def test_picture_and_labels_stay_together() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        sample = random_flip(random_crop(random_scale(tied_sample(), rng, (400, 120)), rng, 48), rng)
        agree = labels_from_colours(sample.rgb) == sample.labels
        assert agree.mean() > 0.9, "all but the edges, which bilinear resizing smears"
        assert max(sample.labels.shape) <= 48


def test_a_crop_avoids_that_one_class_covers_it() -> None:
    labels = np.zeros((100, 100), np.uint8)
    labels[60:, 60:] = 1
    labels[:30, :30] = IGNORED
    sample = SemanticSample(np.zeros((100, 100, 3), np.uint8), labels, "corner")
    shares = []
    for seed in range(100):
        cut = random_crop(sample, np.random.default_rng(seed), 40).labels
        assert cut.shape == (40, 40)
        areas = [np.count_nonzero(cut == label) for label in (0, 1)]
        shares.append(max(areas) / sum(areas) if sum(areas) else 1.0)
    blind = np.mean([np.mean(labels[y : y + 40, x : x + 40] == 1) > 0.25 for y in range(61) for x in range(61)])
    assert blind < 0.25, "few crops are good"
    assert np.mean(np.array(shares) < 0.75) > 1 - (1 - blind) ** 8, "and yet most that are taken are"


def test_a_crop_larger_than_the_picture_is_the_picture() -> None:
    sample = tied_sample()
    cut = random_crop(sample, np.random.default_rng(0), 100)
    assert np.array_equal(cut.labels, sample.labels)


def test_every_other_sample_is_mirrored() -> None:
    sample, mirrored = tied_sample(), 0
    for seed in range(200):
        flipped = random_flip(sample, np.random.default_rng(seed))
        if not np.array_equal(flipped.labels, sample.labels):
            mirrored += 1
            assert np.array_equal(flipped.labels, np.fliplr(sample.labels))
            assert np.array_equal(flipped.rgb, sample.rgb[:, ::-1])
    assert 75 < mirrored < 125


def test_colours_change_within_their_bounds() -> None:
    grey = np.full((4, 4, 3), 100, np.uint8)
    rng = np.random.default_rng(0)
    found = np.array([photometric_distortion(grey, rng)[0, 0] for _ in range(1500)])
    assert (np.ptp(found.astype(int), axis=1) == 0).all(), "grey has neither hue nor saturation"
    levels = found[:, 0]
    # (100 - 32) * 0.5 .. (100 + 32) * 1.5
    assert 34 <= levels.min() < 50
    assert 170 < levels.max() <= 198
    # Brightness and contrast are both left alone in a quarter of all cases, and change too little in a few.
    assert 0.2 < np.mean(levels == 100) < 0.3


def test_a_hue_turns_by_36_degrees_at_most() -> None:
    red = np.zeros((1, 1, 3), np.uint8)
    red[..., 0] = 200
    rng = np.random.default_rng(0)
    found = np.array([photometric_distortion(red, rng)[0, 0] for _ in range(400)]).astype(int)
    assert (found[:, 0] >= found.max(axis=1)).all(), "red stays the strongest channel within 36 degrees"
    assert (found[:, 1] > found[:, 2]).any()
    assert (found[:, 2] > found[:, 1]).any()
    second = np.sort(found, axis=1)[:, 1] / found[:, 0]
    assert second.max() < 0.85


def test_what_is_added_has_no_class() -> None:
    full = fill_up(tied_sample(), 128, (0.5, 0.25, 1.0))
    assert full.rgb.shape == (128, 128, 3)
    assert (full.labels[60:] == IGNORED).all()
    assert (full.labels[:, 100:] == IGNORED).all()
    assert np.array_equal(full.labels[:60, :100], tied_sample().labels)
    assert full.rgb[127, 127].tolist() == [128, 64, 255]
    with pytest.raises(ValueError, match="a 100x60 sample does not fit a square of 64 pixels"):
        fill_up(tied_sample(), 64)


def test_a_view_is_a_square_that_the_generator_alone_decides() -> None:
    one, two, other = (semantic_view(tied_sample(), np.random.default_rng(seed), 64, (200, 60)) for seed in (3, 3, 4))
    assert one.rgb.shape == (64, 64, 3)
    assert one.rgb.dtype == np.uint8
    assert one.labels.shape == (64, 64)
    assert np.abs(one.rgb.astype(int) - two.rgb).max() <= 1, "a grey level of rounding"
    assert np.array_equal(one.labels, two.labels)
    assert not np.array_equal(one.rgb, other.rgb)
    assert set(np.unique(one.labels)) <= {*range(8), IGNORED}


def test_a_letterboxed_sample_keeps_its_shape_inside_the_square() -> None:
    mask = np.zeros((60, 120), bool)
    mask[:, 60:] = True
    sample = ReferringSample(np.repeat(mask[..., None] * np.uint8(255), 3, axis=2), "the right half", mask, "x")
    rgb, square = letterboxed(sample, 80, (0.5, 0.5, 0.5))
    assert rgb.shape == (80, 80, 3)
    assert square.shape == (80, 80)
    assert square.dtype == np.float32
    assert (square[25:55, 45:78] == 1).all()
    assert not square[:18].any()
    assert not square[62:].any()
    assert (rgb[:16] == 127).all() or (rgb[:16] == 128).all(), "the rest has the mean colour"
    assert rgb[40, 70].tolist() == [255] * 3
    assert rgb[40, 10].tolist() == [0] * 3
