# SPDX-License-Identifier: Apache-2.0
"""Draws PhraseCut+ (PC+), CLIPSeg's training samples, with negatives, example images, random crops and templates.

The method is that of Lüddecke & Ecker (CVPR 2022). The colours of images are not changed. The backgrounds of example
images are not changed either, because their preparation for CLIP is part of the model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import cv2
import numpy as np

from clip_seg_ros.data.samples import ReferringDataset, ReferringSample

TEMPLATES = (
    "a photo of a {}.",
    "a photograph of a {}.",
    "an image of a {}.",
    "{}.",
    "a cropped photo of a {}.",
    "a good photo of a {}.",
    "a photo of one {}.",
    "a bad photo of a {}.",
    "a photo of the {}.",
)
"""The templates of CLIPSeg's training, as its authors' code samples them."""
NEGATIVE_PROBABILITY = 0.2
"""The share of phrases that the authors replace by a phrase of another image."""
MIN_CROP_SHARE = 0.05
"""The share of the whole image that the object inside a good crop exceeds."""


class IndexedReferringDataset(ReferringDataset, Protocol):
    """A data set that knows its phrases without reading images, like all referring data sets of this package."""

    phrases: Sequence[str]
    """The phrase of each sample."""
    pictures: Sequence[str]
    """The name of the image of each sample; samples of one image share it."""


class PhraseCutPlus:
    """Draws training samples from a data set of phrases. All random choices use the generator passed to ``draw``."""

    def __init__(
        self,
        dataset: IndexedReferringDataset,
        size_px: int = 352,
        negative_probability: float = NEGATIVE_PROBABILITY,
        templates: Sequence[str] = TEMPLATES,
        examples: bool = True,
    ) -> None:
        """Indexes the phrases without reading images.

        Args:
            dataset: Data set of the samples.
            size_px: Side of the square to which images, masks and example images are resized.
            negative_probability: Probability, 0..1, that a phrase is replaced by one that the data set has for other
                images but not for this one, with an empty mask.
            templates: Sentences with one ``{}`` for the phrase, of which one is drawn for each sample.
            examples: Whether samples have example images.
        """
        if size_px < 1:
            raise ValueError(f"size_px must be at least 1, not {size_px}")
        if not 0 <= negative_probability <= 1:
            raise ValueError(f"negative_probability must be in 0..1, not {negative_probability}")
        self.size_px = size_px
        self.negative_probability = negative_probability
        self._templates, self._examples = tuple(templates), examples
        self._dataset = dataset
        self._samples_of: dict[str, list[int]] = defaultdict(list)
        self._phrases_on: dict[str, set[str]] = defaultdict(set)
        for index, (phrase, picture) in enumerate(zip(dataset.phrases, dataset.pictures, strict=True)):
            self._samples_of[phrase].append(index)
            self._phrases_on[picture].add(phrase)
        self._phrases = tuple(self._samples_of)

    def __len__(self) -> int:
        return len(self._dataset)

    def draw(self, index: int, rng: np.random.Generator) -> ReferringSample:
        """Draws one training sample from sample ``index``.

        Returns:
            The image (size_px, size_px, 3), the mask and the ignored pixels (size_px, size_px), and the phrase in one
            of the templates. ``support`` is another sample of the same phrase, cropped and resized likewise, or
            ``None`` if there is none or its crop has no object: the authors then train on the phrase alone. The support
            of a negative shows an object of its phrase.
        """
        sample = self._dataset[index]
        rgb, mask, ignored = self._cut(sample, rng)
        phrase = sample.phrase
        if rng.random() < self.negative_probability:
            absent = self._absent_phrase(self._dataset.pictures[index], rng)
            if absent is not None:
                phrase, mask = absent, np.zeros_like(mask)
        support = self._support(phrase, index, rng) if self._examples else None
        template = self._templates[int(rng.integers(len(self._templates)))]
        phrase = template.format(phrase)
        return replace(sample, rgb=rgb, mask=mask, phrase=phrase, support=support, ignored=ignored)

    def _absent_phrase(self, picture: str, rng: np.random.Generator) -> str | None:
        """Draws a phrase that is not among the annotations of ``picture``; ``None`` if all phrases are."""
        present = self._phrases_on[picture]
        if len(present) == len(self._phrases):
            return None
        while True:
            phrase = self._phrases[int(rng.integers(len(self._phrases)))]
            if phrase not in present:
                return phrase

    def _support(self, phrase: str, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray] | None:
        others = [other for other in self._samples_of[phrase] if other != index]
        if not others:
            return None
        rgb, mask, _ = self._cut(self._dataset[others[int(rng.integers(len(others)))]], rng)
        return (rgb, mask) if mask.any() else None

    def _cut(
        self, sample: ReferringSample, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Returns image, mask and ignored pixels of a random square of the sample, resized."""
        top, left, side = square_crop(sample.mask, rng)
        window = slice(top, top + side), slice(left, left + side)
        square = (self.size_px, self.size_px)
        # As in the authors' code, there is no smoothing before downscaling, and masks use the nearest pixels.
        rgb = cv2.resize(np.ascontiguousarray(sample.rgb[window]), square, interpolation=cv2.INTER_LINEAR)
        mask, ignored = (
            None
            if part is None
            else cv2.resize(part[window].astype(np.uint8), square, interpolation=cv2.INTER_NEAREST).astype(bool)
            for part in (sample.mask, sample.ignored)
        )
        return rgb, mask, ignored


def square_crop(mask: np.ndarray, rng: np.random.Generator) -> tuple[int, int, int]:
    """Draws a square with the short side of the image as its side that keeps the object in view.

    The authors try up to 50 random squares for one in which the object covers more than ``MIN_CROP_SHARE`` of the
    image, and otherwise use the best of them. Here, all places are considered: one of the good ones is drawn, or one
    of the best if none is good.

    Args:
        mask: Mask of the object, (H, W) bool.
        rng: Generator of the choice.

    Returns:
        The top, the left and the side of the square in pixels.
    """
    height, width = mask.shape
    side = min(height, width)
    # The square moves along one axis only. Cumulative sums of object pixels give the number in every place.
    before = np.concatenate([[0], np.cumsum(mask.sum(axis=0 if width >= height else 1))])
    held = before[side:] - before[:-side]
    good = np.flatnonzero(held > MIN_CROP_SHARE * mask.size)
    places = good if len(good) else np.flatnonzero(held == held.max())
    place = int(places[rng.integers(len(places))])
    return (0, place, side) if width >= height else (place, 0, side)
