# SPDX-License-Identifier: Apache-2.0
"""Batches of images with objects, for detectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from clip_seg_ros.data.samples import InstanceDataset, InstanceSample
from clip_seg_ros.models.denseclip.instances import InstanceTargets
from clip_seg_ros.training import distributed
from clip_seg_ros.training.augment_instances import InstanceViews
from clip_seg_ros.training.recipes.sampling import EpochSampler, SampleLoader

_MULTIPLE = 32
_THREADS = 4


@dataclass(frozen=True)
class InstanceBatch:
    pixels: torch.Tensor
    """(B, 3, H, W) float32 in 0..1, padded at the right and the bottom; H and W are multiples of 32."""
    sizes: tuple[tuple[int, int], ...]
    """(H, W) of each image without its padding."""
    targets: tuple[InstanceTargets, ...]
    """The objects of each image."""

    def share(self) -> InstanceBatch:
        """Returns this process's part of the batch."""
        share = distributed.share
        return InstanceBatch(share(self.pixels), share(self.sizes), share(self.targets))


def instance_batch(
    samples: Sequence[InstanceSample], fill: Sequence[float], pixels: torch.Tensor | None = None
) -> InstanceBatch:
    """Stacks samples of any sizes.

    Objects that count as ``crowd`` and those without an area are left out.

    Args:
        samples: The samples.
        fill: The colour of the padding, 0..1.
        pixels: (B, 3, H, W) the images, if they were changed after the samples were made, all of one size.
    """
    sizes = tuple(sample.rgb.shape[:2] for sample in samples)
    height, width = (-(-max(sides) // _MULTIPLE) * _MULTIPLE for sides in zip(*sizes, strict=True))
    canvas = torch.tensor(fill, dtype=torch.float32)[None, :, None, None].repeat(len(samples), 1, height, width)
    for row, (sample, (h, w)) in enumerate(zip(samples, sizes, strict=True)):
        image = torch.from_numpy(sample.rgb).permute(2, 0, 1).float() / 255 if pixels is None else pixels[row]
        canvas[row, :, :h, :w] = image
    return InstanceBatch(canvas, sizes, tuple(_targets(sample, (height, width)) for sample in samples))


def _targets(sample: InstanceSample, size: tuple[int, int]) -> InstanceTargets:
    sides = sample.boxes_px[:, 2:] - sample.boxes_px[:, :2]
    learnt = ~sample.crowd & (sides > 0).all(axis=1)
    masks = None
    if sample.masks is not None:
        kept = sample.masks[learnt]
        height, width = kept.shape[1:]
        masks = torch.zeros(len(kept), *size, dtype=torch.uint8)
        masks[:, :height, :width] = torch.from_numpy(kept)
    return InstanceTargets(torch.from_numpy(sample.boxes_px[learnt]), torch.from_numpy(sample.labels[learnt]), masks)


class InstanceBatches:
    """Batches of a data set on disk, loaded and augmented ahead of the steps that need them.

    Args:
        dataset: The data set.
        views: How a sample is resized, cropped and mirrored.
        batch: The number of samples in a batch, over all processes.
        fill: The colour of the padding, 0..1.
        seed: Seed of the order of samples.
    """

    def __init__(
        self, dataset: InstanceDataset, views: InstanceViews, batch: int, fill: Sequence[float], seed: int
    ) -> None:
        self._dataset, self._views, self._batch, self._fill, self._seed = dataset, views, batch, fill, seed
        self._loader: SampleLoader[InstanceSample] | None = None
        self._samples: list[InstanceSample] = []

    def __len__(self) -> int:
        return len(self._dataset)

    def draw(self, index: int, rng: np.random.Generator) -> InstanceSample:
        """Reads and augments one sample."""
        return self._views.of(self._dataset[index], rng)

    def load(self, number: int) -> None:
        """Loads batch ``number``, for ``Stage.before_batch``."""
        if self._loader is None:
            self._loader = SampleLoader(self, EpochSampler(len(self), self._batch, self._seed), _THREADS)
        self._samples = self._loader.load(number)

    def __call__(self, rng: np.random.Generator) -> InstanceBatch:
        """Returns this process's part of the loaded batch."""
        return instance_batch(self._samples, self._fill)
