# SPDX-License-Identifier: Apache-2.0
from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest

from clip_seg_ros.data.phrasecut_plus import MIN_CROP_SHARE, TEMPLATES, PhraseCutPlus, square_crop
from clip_seg_ros.data.samples import ReferringSample

# (phrase, picture) of each sample: the picture's colour is its number, the object's place the sample's.
ROWS = (("a cup", "0"), ("a cup", "1"), ("a cup", "2"), ("red box", "0"), ("blue can", "1"), ("pen", "3"))
ABSENT_ROW = 5


class Pictures:
    """A data set in memory that counts what is read."""

    def __init__(self, rows=ROWS, height=60, width=100):
        self.phrases = tuple(phrase for phrase, _ in rows)
        self.pictures = tuple(picture for _, picture in rows)
        self.size, self.reads = (height, width), []

    def __len__(self):
        return len(self.phrases)

    def __getitem__(self, index):
        self.reads.append(index)
        rgb = np.full((*self.size, 3), 10 * int(self.pictures[index]), np.uint8)
        mask = np.zeros(self.size, bool)
        if index != ABSENT_ROW:
            mask[10:40, 5 + 12 * index : 30 + 12 * index] = True
        rgb[mask, 1] = 200 + index
        return ReferringSample(rgb, self.phrases[index], mask, f"sample_{index}")


def phrase_inside(text):
    """The phrase of a drawn text, whichever template it is in."""
    for template in sorted(TEMPLATES, key=len, reverse=True):
        start, end = template.split("{}")
        if text.startswith(start) and text.endswith(end):
            return text[len(start) : len(text) - len(end)]
    raise AssertionError(text)


def test_a_draw_is_a_function_of_its_generator():
    plus = PhraseCutPlus(Pictures(), size_px=64)
    first, again, other = (plus.draw(0, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert len(plus) == len(ROWS)
    assert first.phrase == again.phrase
    assert (first.rgb == again.rgb).all()
    assert (first.mask == again.mask).all()
    assert (first.support[0] == again.support[0]).all()
    assert (first.support[1] == again.support[1]).all()
    assert first.phrase != other.phrase or (first.rgb != other.rgb).any()


def test_nothing_is_read_before_it_is_drawn():
    data = Pictures()
    plus = PhraseCutPlus(data, negative_probability=0)
    assert not data.reads
    plus.draw(3, np.random.default_rng(0))
    assert data.reads == [3]


def test_pictures_masks_and_supports_are_scaled_together():
    plus = PhraseCutPlus(Pictures(), size_px=48, negative_probability=0)
    for seed in range(20):
        sample = plus.draw(seed % 3, np.random.default_rng(seed))
        assert sample.name == f"sample_{seed % 3}"
        for rgb, mask in ((sample.rgb, sample.mask), sample.support):
            assert rgb.shape == (48, 48, 3)
            assert rgb.dtype == np.uint8
            assert mask.shape == (48, 48)
            assert mask.dtype == bool
            # Only the line between object and background may differ, by how each is scaled.
            assert ((rgb[..., 1] > 100) != mask).mean() < 0.05
            assert mask.any()


def test_supports_are_other_samples_of_the_phrase():
    plus = PhraseCutPlus(Pictures(), size_px=32, negative_probability=0)
    seen = Counter()
    for seed in range(60):
        sample = plus.draw(0, np.random.default_rng(seed))
        assert phrase_inside(sample.phrase) == "a cup"
        rgb, mask = sample.support
        seen[int(rgb[..., 1][mask].max()) - 200] += 1
    assert set(seen) == {1, 2}
    assert min(seen.values()) > 15
    assert plus.draw(3, np.random.default_rng(0)).support is None


def test_a_support_with_nothing_to_see_is_none():
    rows = (*ROWS, ("pen", "2"))
    sample = PhraseCutPlus(Pictures(rows), 32, negative_probability=0).draw(6, np.random.default_rng(0))
    assert sample.mask.any()
    assert sample.support is None


def test_negatives_name_what_is_not_in_the_picture():
    plus = PhraseCutPlus(Pictures(), size_px=32)
    absent = Counter()
    for seed in range(1000):
        sample = plus.draw(0, np.random.default_rng(seed))
        phrase = phrase_inside(sample.phrase)
        assert phrase != "red box", "picture 0 has one"
        assert sample.mask.any() == (phrase == "a cup")
        absent[phrase] += phrase != "a cup"
        if phrase == "blue can":
            rgb, mask = sample.support
            assert (rgb[..., 1][mask] > 100).any(), "it shows the can of picture 1"
            assert (rgb[..., 0] == 10).any(), "it shows the can of picture 1"
    assert 150 < absent.total() < 250
    assert min(absent["blue can"], absent["pen"]) > 60


def test_a_picture_with_every_phrase_has_no_negatives():
    plus = PhraseCutPlus(Pictures((("a cup", "0"), ("red box", "0"))), 16, negative_probability=1)
    assert plus.draw(0, np.random.default_rng(0)).mask.any()


def test_templates_are_drawn_evenly():
    plus = PhraseCutPlus(Pictures(), 8, negative_probability=0)
    drawn = Counter(plus.draw(3, np.random.default_rng(seed)).phrase for seed in range(900))
    assert set(drawn) == {template.format("red box") for template in TEMPLATES}
    assert min(drawn.values()) > 60


@pytest.mark.parametrize("tall", [False, True])
@pytest.mark.parametrize("object_width", [30, 4])
def test_crops_keep_the_object_in_view(tall, object_width):
    mask = np.zeros((20, 100), bool)
    mask[2:18, 60 : 60 + object_width] = True
    held = []
    for place in range(81):
        inside = 0
        for column in range(place, place + 20):
            inside += int(mask[:, column].sum())
        held.append(inside)
    good = {place for place in range(81) if held[place] > MIN_CROP_SHARE * mask.size}
    best = {place for place in range(81) if held[place] == max(held)}
    assert bool(good) == (object_width == 30)
    rng = np.random.default_rng(0)
    crops = [square_crop(mask.T if tall else mask, rng) for _ in range(600)]
    assert {side for _, _, side in crops} == {20}
    assert {left if tall else top for top, left, _ in crops} == {0}
    assert {top if tall else left for top, left, _ in crops} == (good or best)


def test_crops_of_square_and_of_empty_masks():
    rng = np.random.default_rng(0)
    assert square_crop(np.ones((12, 12), bool), rng) == (0, 0, 12)
    assert {square_crop(np.zeros((4, 6), bool), rng) for _ in range(50)} == {(0, 0, 4), (0, 1, 4), (0, 2, 4)}


def test_masks_are_scaled_without_new_values():
    data = Pictures(height=60, width=60)
    sample = PhraseCutPlus(data, 24, negative_probability=0).draw(0, np.random.default_rng(0))
    expected = cv2.resize(data[0].mask.astype(np.float32), (24, 24), interpolation=cv2.INTER_NEAREST) == 1
    assert (sample.mask == expected).all()


@pytest.mark.parametrize("wrong", [{"size_px": 0}, {"negative_probability": 1.5}, {"negative_probability": -0.1}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        PhraseCutPlus(Pictures(), **wrong)


@pytest.mark.parametrize("negative_probability", [0, 1])
def test_ignored_pixels_are_cut_and_scaled_with_the_picture(negative_probability):
    class Edged(Pictures):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            ignored = np.zeros(self.size, bool)
            ignored[40:45, 5 + 12 * index : 30 + 12 * index] = True
            rgb = sample.rgb.copy()
            rgb[ignored, 2] = 255
            return replace(sample, rgb=rgb, ignored=ignored)

    # At the pictures' own scale, the blue pixels tell where the ignored ones went.
    plus = PhraseCutPlus(Edged(), size_px=60, negative_probability=negative_probability)
    for seed in range(10):
        sample = plus.draw(seed % 3, np.random.default_rng(seed))
        assert sample.mask.any() != bool(negative_probability)
        assert sample.ignored.dtype == bool
        assert (sample.ignored == (sample.rgb[..., 2] == 255)).all()
        assert sample.ignored.any()
    assert PhraseCutPlus(Pictures(), size_px=60).draw(0, np.random.default_rng(0)).ignored is None


def test_templates_and_examples_can_be_left_out():
    data = Pictures()
    plus = PhraseCutPlus(data, size_px=64, negative_probability=0.0, templates=["{}"], examples=False)
    for seed in range(5):
        sample = plus.draw(0, np.random.default_rng(seed))
        assert (sample.phrase, sample.support) == ("a cup", None)
    assert data.reads == [0] * 5
