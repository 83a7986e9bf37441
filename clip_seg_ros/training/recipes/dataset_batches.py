# SPDX-License-Identifier: Apache-2.0
"""Batches of data sets on disk, for the recipes that also learn from rendered scenes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from clip_seg_ros.data.samples import ReferringDataset, ReferringSample, SemanticDataset, SemanticSample
from clip_seg_ros.models.spec import CLIP_MEAN
from clip_seg_ros.pipeline.letterbox import mask_to_square
from clip_seg_ros.training.augment import letterboxed, semantic_view
from clip_seg_ros.training.recipes.batch import ClassBatch, ExpressionBatch
from clip_seg_ros.training.recipes.sampling import EpochSampler, SampleLoader

_LONG_SIDE_PX = 2048
"""The long side to which DenseCLIP's authors fit images, whatever the short one."""


def sentences_of_objects(dataset: ReferringDataset) -> tuple[tuple[int, ...], ...]:
    """Returns the samples of each object, in the order of the data set.

    Samples belong together by the attribute ``objects`` of the data set, the name of the object of each sample. Without
    it, each sample is an object of its own.
    """
    groups: dict[Any, list[int]] = {}
    for index, name in enumerate(getattr(dataset, "objects", range(len(dataset)))):
        groups.setdefault(name, []).append(index)
    return tuple(map(tuple, groups.values()))


class _Batches:
    """Loads the samples of a batch ahead of the step that needs it.

    Args:
        dataset: The data set.
        batch: The number of samples in a batch, over all processes.
        side_px: Side of the squares that the network sees, in pixels.
        seed: Seed of the order of samples.
        threads: The number of threads that read and augment.
        fill: The colour 0..1 beside an image that does not fill the square: the mean that the model subtracts.
    """

    def __init__(
        self,
        dataset: ReferringDataset | SemanticDataset,
        batch: int,
        side_px: int,
        seed: int,
        threads: int = 4,
        fill: Sequence[float] = CLIP_MEAN,
    ) -> None:
        self._dataset, self._batch, self._side_px, self._seed, self._threads = dataset, batch, side_px, seed, threads
        self._fill = fill
        self._loader: SampleLoader | None = None
        self._samples: list = []

    def __len__(self) -> int:
        return len(self._dataset)

    def load(self, number: int) -> None:
        """Loads batch ``number``, for ``Stage.before_batch``."""
        if self._loader is None:
            self._loader = SampleLoader(self, self._sampler(), self._threads)
        self._samples = self._loader.load(number)

    def _sampler(self) -> EpochSampler:
        return EpochSampler(len(self), self._batch, self._seed)


class LetterboxBatches(_Batches):
    """Images and sentences for CRIS: every image is fitted into a square and not augmented.

    As the authors do, an epoch shows each object once, with one of its sentences, which is drawn anew each time, and
    ends with the last whole batch. In a data set that does not say which sentences belong to one object, each sample is
    an object of its own.
    """

    _dataset: ReferringDataset

    @cached_property
    def _sentences(self) -> tuple[tuple[int, ...], ...]:
        return sentences_of_objects(self._dataset)

    def __len__(self) -> int:
        return len(self._sentences)

    def draw(
        self, index: int, rng: np.random.Generator
    ) -> tuple[ReferringSample, np.ndarray, np.ndarray, np.ndarray | None]:
        """Reads a sentence of one object; returns it with its image, mask and ignored pixels inside the square."""
        sentences = self._sentences[index]
        sample = self._dataset[sentences[int(rng.integers(len(sentences)))]]
        # A pixel to which an ignored one contributes is ignored, too.
        ignored = None if sample.ignored is None else mask_to_square(sample.ignored, self._side_px) > 0
        return (sample, *letterboxed(sample, self._side_px, self._fill), ignored)

    def _sampler(self) -> EpochSampler:
        return EpochSampler(len(self), self._batch, self._seed, drop_last=len(self) >= self._batch)

    def __call__(self, rng: np.random.Generator) -> ExpressionBatch:
        """Returns this process's part of the loaded batch."""
        samples, pictures, masks, ignored = zip(*self._samples, strict=True)
        texts = tuple((sample.phrase,) for sample in samples)
        there = None
        if any(part is not None for part in ignored):
            parts = [np.zeros(mask.shape, bool) if part is None else part for part, mask in zip(ignored, masks)]
            there = torch.from_numpy(np.stack(parts))[:, None]
        return ExpressionBatch(_pixels(pictures), texts, torch.from_numpy(np.stack(masks))[:, None], there)


class SemanticBatches(_Batches):
    """Images and labels for DenseCLIP, which are scaled, cropped, mirrored and recoloured."""

    def draw(self, index: int, rng: np.random.Generator) -> SemanticSample:
        """Reads and augments one sample."""
        long_side_px = min(_LONG_SIDE_PX, 4 * self._side_px)
        return semantic_view(self._dataset[index], rng, self._side_px, (long_side_px, self._side_px), self._fill)

    def __call__(self, rng: np.random.Generator) -> ClassBatch:
        """Returns this process's part of the loaded batch."""
        labels = torch.from_numpy(np.stack([sample.labels for sample in self._samples]).astype(np.int64))
        return ClassBatch(_pixels([sample.rgb for sample in self._samples]), labels)


def _pixels(pictures: Sequence[np.ndarray]) -> torch.Tensor:
    """Stacks images (H, W, 3) uint8 to (B, 3, H, W) float32 in 0..1."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
