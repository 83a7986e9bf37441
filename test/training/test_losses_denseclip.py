# SPDX-License-Identifier: Apache-2.0
"""DenseCLIP's losses against the slow way: pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from clip_seg_ros.training.losses import dense_cross_entropy, identity_loss, pixel_accuracy
from nearness import assert_near


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels() -> torch.Tensor:
    """(2, 4, 5) classes 0..2, a quarter of them ignored."""
    labels = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(1))
    labels[:, 1] = 255
    return labels


def pixelwise(logits: torch.Tensor, labels: torch.Tensor) -> float:
    total = 0.0
    for image, row, column in labels.ne(255).nonzero().tolist():
        scores = logits[image, :, row, column].tolist()
        total += math.log(sum(map(math.exp, scores))) - scores[labels[image, row, column]]
    return total / labels.numel()


def test_ignored_pixels_count_for_nothing_but_in_the_mean(logits: torch.Tensor, labels: torch.Tensor) -> None:
    loss = dense_cross_entropy(logits, labels)
    assert_near(loss.item(), pixelwise(logits, labels))
    changed = logits.clone()
    changed[:, :, 1] += torch.randn(2, 3, 5)
    assert_near(dense_cross_entropy(changed, labels), loss)
    # torch's own mean leaves them out of the count.
    assert_near(loss, 0.75 * F.cross_entropy(logits, labels, ignore_index=255))


def test_an_image_without_labels_gives_no_loss(logits: torch.Tensor) -> None:
    nothing = torch.full((2, 4, 5), 255)
    assert dense_cross_entropy(logits, nothing) == 0
    assert pixel_accuracy(logits, nothing) == 0


def test_another_label_can_be_ignored(logits: torch.Tensor, labels: torch.Tensor) -> None:
    other = torch.where(labels == 255, -1, labels)
    assert_near(dense_cross_entropy(logits, other, ignore=-1), dense_cross_entropy(logits, labels))


def test_logits_are_resized_to_the_labels(logits: torch.Tensor) -> None:
    labels = torch.randint(0, 3, (2, 8, 10), generator=torch.Generator().manual_seed(2))
    resized = F.interpolate(logits, size=(8, 10), mode="bilinear", align_corners=False)
    assert_near(dense_cross_entropy(logits, labels).item(), pixelwise(resized, labels))


def test_the_score_map_is_sharpened_and_weighed(logits: torch.Tensor, labels: torch.Tensor) -> None:
    cosines = logits.tanh()
    assert_near(identity_loss(cosines, labels), 0.4 * dense_cross_entropy(cosines / 0.07, labels))
    assert_near(identity_loss(cosines, labels, tau=0.5, weight=1.0), dense_cross_entropy(2 * cosines, labels))


def test_accuracy_is_a_share_of_all_pixels() -> None:
    labels = torch.tensor([[[0, 1], [2, 255]]])
    right = F.one_hot(labels.clamp(max=2), 3).permute(0, 3, 1, 2).float()
    assert_near(pixel_accuracy(right, labels), 0.75)
    assert pixel_accuracy(right.roll(1, dims=1), labels) == 0.0
