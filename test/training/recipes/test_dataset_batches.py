# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from clip_seg_ros.data.samples import ReferringSample, SemanticSample
from clip_seg_ros.pipeline.letterbox import mask_to_square
from clip_seg_ros.training import distributed
from clip_seg_ros.training.augment import letterboxed
from clip_seg_ros.training.recipes import dataset_batches
from clip_seg_ros.training.recipes.dataset_batches import LetterboxBatches, SemanticBatches, sentences_of_objects
from clip_seg_ros.training.recipes.sampling import EpochSampler
from nearness import assert_near

COUNT = 7


class Phrases:
    """Pictures of different sizes, each of one grey level."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> ReferringSample:
        mask = np.zeros((20 + index, 40), bool)
        mask[5:10, 10:30] = True
        return ReferringSample(np.full((20 + index, 40, 3), 10 * index, np.uint8), f"object {index}", mask, str(index))


class Classes:
    """Pictures of two halves, whose labels are their number and the next."""

    class_names = tuple(map(str, range(COUNT + 1)))

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> SemanticSample:
        labels = np.full((40, 60), index, np.uint8)
        labels[:, 30:] = index + 1
        return SemanticSample(np.repeat(labels[..., None] * 20, 3, axis=-1), labels, str(index))


Make = Callable[[int], LetterboxBatches | SemanticBatches]


@pytest.fixture(params=["phrases", "classes"])
def make(request: pytest.FixtureRequest) -> Make:
    """Batches of four from the data set, with a seed."""
    if request.param == "phrases":
        return lambda seed: LetterboxBatches(Phrases(), 4, 32, seed, threads=2)
    return lambda seed: SemanticBatches(Classes(), 4, 32, seed, threads=2)


def parts(batches: LetterboxBatches | SemanticBatches, number: int) -> tuple[torch.Tensor, ...]:
    """What batch ``number`` holds. The step's generator has no part in it."""
    batches.load(number)
    return tuple(value for value in vars(batches(np.random.default_rng())).values() if isinstance(value, torch.Tensor))


def test_a_batch_is_the_same_whatever_came_before(make: Make) -> None:
    straight = make(0)
    in_order = [parts(straight, number) for number in range(6)]
    for number in (4, 1, 5, 1):
        for expected, found in zip(in_order[number], parts(straight, number), strict=True):
            assert_near(found, expected, message="one that was loaded before, or left out")
    for expected, found in zip(in_order[3], parts(make(0), 3), strict=True):
        assert_near(found, expected, message="a run that goes on")
    assert not torch.equal(in_order[0][0], parts(make(1), 0)[0]), "another seed"


def test_pictures_are_letterboxed_with_their_masks_and_phrases() -> None:
    batches, data = LetterboxBatches(Phrases(), 4, 32, 0), Phrases()
    batches.load(1)
    batch = batches(np.random.default_rng(0))
    assert batch.pixels.shape == (4, 3, 32, 32)
    assert batch.masks.shape == (4, 1, 32, 32)
    for row, index in enumerate(EpochSampler(COUNT, 4, 0, drop_last=True).indices(1)):
        rgb, mask = letterboxed(data[int(index)], 32)
        assert batch.texts[row] == (f"object {index}",)
        assert (batch.masks[row, 0].numpy() == mask).all()
        assert mask.any()
        assert np.allclose(batch.pixels[row].numpy() * 255, rgb.transpose(2, 0, 1), atol=1e-3)


def test_ignored_pixels_are_letterboxed_with_their_pictures() -> None:
    class Edged(Phrases):
        def __getitem__(self, index: int) -> ReferringSample:
            sample = super().__getitem__(index)
            return replace(sample, ignored=np.roll(sample.mask, 9, axis=0)) if index % 2 else sample

    batches, data = LetterboxBatches(Edged(), 4, 32, 0), Edged()
    batches.load(1)
    batch = batches(np.random.default_rng(0))
    assert batch.ignored.shape == batch.masks.shape
    assert batch.ignored.dtype == torch.bool
    for row, index in enumerate(EpochSampler(COUNT, 4, 0, drop_last=True).indices(1)):
        ignored = data[int(index)].ignored
        # Wherever the letterbox would have put something of an ignored pixel.
        expected = mask_to_square(ignored, 32) > 0 if index % 2 else np.zeros((32, 32), bool)
        assert (batch.ignored[row, 0].numpy() == expected).all()
        assert expected.any() == bool(index % 2)
    plain = LetterboxBatches(Phrases(), 4, 32, 0)
    plain.load(1)
    assert plain(np.random.default_rng(0)).ignored is None


@pytest.mark.parametrize("kind", [LetterboxBatches, SemanticBatches])
def test_what_an_image_does_not_fill_has_the_models_mean_colour(kind: type) -> None:
    mean = (0.2, 0.4, 0.6)
    batches = kind(Phrases() if kind is LetterboxBatches else Classes(), 4, 96, 0, threads=1, fill=mean)
    batches.load(0)
    beside = torch.round(255 * torch.tensor(mean)).view(3, 1, 1) / 255
    pixels = batches(np.random.default_rng(0)).pixels
    # Views that were enlarged fill the square; no image has a pixel of this colour.
    assert ((pixels - beside).abs() < 1e-3).all(dim=1).any()


class Sentences(Phrases):
    """Three objects, with three, one and three sentences, not in order."""

    objects = ("a", "b", "a", "c", "a", "c", "c")


def test_an_epoch_shows_each_object_once_with_a_sentence_drawn_anew() -> None:
    assert sentences_of_objects(Sentences()) == ((0, 2, 4), (1,), (3, 5, 6))
    assert sentences_of_objects(Phrases()) == tuple((index,) for index in range(COUNT))
    batches = LetterboxBatches(Sentences(), 2, 32, 0)
    assert len(batches) == 3
    drawn = []
    for number in range(60):  # an epoch has one whole batch of two
        batches.load(number)
        asked = [int(texts[0].split()[1]) for texts in batches(np.random.default_rng(0)).texts]
        assert len({Sentences.objects[index] for index in asked}) == 2
        drawn += asked
    shares = {name: sum(Sentences.objects[index] == name for index in drawn) / len(drawn) for name in "abc"}
    assert all(0.2 < share < 0.5 for share in shares.values()), "an object with more sentences comes no more often"
    assert set(drawn) == set(range(COUNT))


def test_a_data_set_smaller_than_a_batch_is_not_dropped() -> None:
    batches = LetterboxBatches(Sentences(), 4, 32, 0)
    batches.load(0)
    assert len(batches(np.random.default_rng(0)).texts) == 4


def test_the_long_side_is_that_of_the_authors(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = []

    def view(
        sample: SemanticSample, rng: np.random.Generator, side_px: int, fit_px: tuple[int, int], *_
    ) -> SemanticSample:
        fitted.append(fit_px)
        return sample

    monkeypatch.setattr(dataset_batches, "semantic_view", view)
    for side_px in (512, 640, 64):
        SemanticBatches(Classes(), 1, side_px, 0).draw(0, np.random.default_rng(0))
    assert fitted == [(2048, 512), (2048, 640), (256, 64)]


def test_labels_stay_with_their_pictures() -> None:
    batches = SemanticBatches(Classes(), 4, 32, 0)
    batches.load(0)
    batch = batches(np.random.default_rng(0))
    assert batch.pixels.shape == (4, 3, 32, 32)
    assert batch.labels.dtype == torch.int64
    for labels, index in zip(batch.labels, EpochSampler(COUNT, 4, 0).indices(0), strict=True):
        assert set(labels.unique().tolist()) <= {index, index + 1, 255}


def test_two_processes_share_a_batch(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = parts(make(0), 2)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        shares.append(parts(make(0), 2))
    for expected, *halves in zip(whole, *shares, strict=True):
        assert_near(torch.cat(halves), expected)
