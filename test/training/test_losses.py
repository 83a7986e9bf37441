# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch

from clip_seg_ros.training.losses import dice_loss, shrink_mask, text_to_pixel_loss
from nearness import assert_near


def test_a_mask_shrinks_to_its_nearest_pixels() -> None:
    mask = torch.arange(2 * 8 * 12.0).reshape(2, 8, 12)
    # No mean of neighbours: each is one of the pixels, the first of its square.
    assert torch.equal(shrink_mask(mask, (2, 3)), mask[:, ::4, ::4])
    assert shrink_mask(mask, (8, 12)) is mask


def test_the_loss_is_the_mean_over_objects_and_the_rest() -> None:
    logits = torch.tensor([[[2.0, -1.0]], [[0.0, 3.0]]])
    mask = torch.tensor([[[1.0, 0.0]], [[0.25, 1.0]]])
    probabilities = logits.sigmoid()
    # Equation 9: -log of the probability inside, -log of its complement outside; a soft mask weighs both.
    each = -(mask * probabilities.log() + (1 - mask) * (1 - probabilities).log())
    assert text_to_pixel_loss(logits, mask).item() == pytest.approx(each.mean().item(), rel=1e-5)


def test_the_mask_may_have_the_resolution_of_the_image() -> None:
    logits = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2, 16, 24)
    mask[:, :8] = 1
    assert_near(text_to_pixel_loss(logits, mask), text_to_pixel_loss(logits, mask[:, ::4, ::4]))
    with pytest.raises(ValueError, match=r"[Tt]arget size"):
        text_to_pixel_loss(logits, mask[:1])


def test_the_gradient_pulls_up_inside_and_down_outside() -> None:
    logits = torch.zeros(1, 2, 2, requires_grad=True)
    text_to_pixel_loss(logits, torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])).backward()
    assert_near(logits.grad, torch.tensor([[[-0.125, -0.125], [0.125, 0.125]]]))
    # Logits of hundreds, as an untrained kernel gives, cost much and no NaN.
    assert_near(text_to_pixel_loss(torch.full((1, 2, 2), -500.0), torch.ones(1, 2, 2)), 500.0)


def test_dice_counts_each_mask_once_whatever_its_size() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator)
    masks = (torch.rand(2, 3, 4, 5, generator=generator) > 0.6).float()
    masks[1, 2] = 0
    expected = []
    for p, mask in zip(logits.sigmoid().flatten(0, 1), masks.flatten(0, 1), strict=True):
        if mask.any():
            expected.append(float(1 - (2 * (p * mask).sum() + 1) / (p.sum() + mask.sum() + 1)))
    assert len(expected) == 5
    assert dice_loss(logits, masks).item() == pytest.approx(sum(expected) / 5, rel=1e-5)
    assert_near(dice_loss(logits.flatten(0, 1), masks.flatten(0, 1)), dice_loss(logits, masks))


def test_dice_of_nothing_is_nothing_and_has_a_gradient() -> None:
    logits = torch.randn(1, 2, 2, requires_grad=True)
    loss = dice_loss(logits, torch.zeros(1, 2, 2))
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


def test_ignored_pixels_have_no_part_in_the_losses() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 4, 6, generator=generator, requires_grad=True)
    masks = (torch.rand(3, 4, 6, generator=generator) > 0.5).float()
    ignored = torch.rand(3, 4, 6, generator=generator) > 0.7
    ignored[2] = False
    entropies, dices = [], []
    for logit, mask, out in zip(logits.tolist(), masks.tolist(), ignored.tolist()):
        overlap = sizes = 0.0
        for y in range(4):
            for x in range(6):
                if out[y][x]:
                    continue
                p = 1 / (1 + math.exp(-logit[y][x]))
                entropies.append(-math.log(p if mask[y][x] else 1 - p))
                overlap, sizes = overlap + p * mask[y][x], sizes + p + mask[y][x]
        dices.append(1 - (2 * overlap + 1) / (sizes + 1))
    entropy, dice = text_to_pixel_loss(logits, masks, ignored), dice_loss(logits, masks, ignored)
    assert entropy.item() == pytest.approx(sum(entropies) / len(entropies), rel=1e-5)
    assert dice.item() == pytest.approx(sum(dices) / 3, rel=1e-5)
    (entropy + dice).backward()
    assert torch.isfinite(logits.grad).all()
    assert ((logits.grad == 0) == ignored).all()


def test_what_is_ignored_may_have_the_resolution_of_the_image() -> None:
    logits = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    mask, ignored = torch.zeros(2, 16, 24), torch.zeros(2, 16, 24, dtype=torch.bool)
    mask[:, :8], ignored[:, 5:9] = 1, True
    small = text_to_pixel_loss(logits, mask[:, ::4, ::4], ignored[:, ::4, ::4])
    assert_near(text_to_pixel_loss(logits, mask, ignored), small)
    assert abs(text_to_pixel_loss(logits, mask) - small) > 1e-3
