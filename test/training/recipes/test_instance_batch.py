# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from clip_seg_ros.data.samples import InstanceSample
from clip_seg_ros.training.augment_instances import InstanceViews
from clip_seg_ros.training.recipes.instance_batch import InstanceBatches, instance_batch
from nearness import assert_near


def sample(height: int, width: int, masks: bool = True) -> InstanceSample:
    """Three objects: one to learn, one without an area, and a crowd."""
    drawn = np.zeros((3, height, width), bool)
    drawn[0, 2:10, 4:12] = drawn[2, 1:20, 1:20] = True
    return InstanceSample(
        rgb=np.full((height, width, 3), 51, np.uint8),
        labels=np.array([2, 0, 1]),
        boxes_px=np.array([[4, 2, 12, 10], [5, 5, 5, 9], [1, 1, 20, 20]], np.float32),
        masks=drawn if masks else None,
        areas_px=np.array([64, 0, 361], np.float32),
        crowd=np.array([False, False, True]),
        name=f"{width}x{height}",
    )


class Pair:
    class_names = ("a", "b", "c")

    def __init__(self, masks: bool = True) -> None:
        self._samples = [sample(40, 60, masks), sample(64, 30, masks)]

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> InstanceSample:
        return self._samples[index]


def test_images_of_any_sizes_are_padded_to_one() -> None:
    batch = instance_batch([sample(40, 60), sample(64, 30)], (0.5, 0.4, 0.3))
    assert batch.pixels.shape == (2, 3, 64, 64)
    assert batch.sizes == ((40, 60), (64, 30))
    assert_near(batch.pixels[0, :, :40, :60], 0.2)
    assert_near(batch.pixels[0, :, 40:].mean(dim=(1, 2)), torch.tensor([0.5, 0.4, 0.3]))
    assert_near(batch.pixels[1, :, :, 30:].mean(dim=(1, 2)), torch.tensor([0.5, 0.4, 0.3]))


def test_only_objects_with_an_area_that_are_no_crowd_are_learnt() -> None:
    (target, _) = instance_batch([sample(40, 60), sample(64, 30)], (0, 0, 0)).targets
    assert target.labels.tolist() == [2]
    assert target.boxes.tolist() == [[4, 2, 12, 10]]
    assert target.masks.shape == (1, 64, 64)
    assert target.masks[0, 2:10, 4:12].all()
    assert target.masks.sum() == 64
    assert instance_batch([sample(40, 60, masks=False)], (0, 0, 0)).targets[0].masks is None


def test_changed_pixels_take_the_place_of_the_samples() -> None:
    pixels = torch.rand(1, 3, 40, 60)
    batch = instance_batch([sample(40, 60)], (0, 0, 0), pixels)
    assert torch.equal(batch.pixels[:, :, :40, :60], pixels)


@pytest.mark.parametrize("masks", [True, False])
def test_batches_of_a_data_set_show_every_sample_once_an_epoch(masks: bool) -> None:
    batches = InstanceBatches(Pair(masks), InstanceViews(40, 80, mirrored=0.0), 2, (0, 0, 0), seed=0)
    for number in range(2):
        batches.load(number)
        batch = batches(np.random.default_rng(0))
        assert sorted(batch.sizes) == [(40, 60), (80, 38)]
        assert batch.pixels.shape == (2, 3, 96, 64)
    assert len(batch.share().targets) == 2
