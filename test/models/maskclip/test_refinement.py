# SPDX-License-Identifier: Apache-2.0
"""The refinements against their equations written out, and what they are for."""

from __future__ import annotations

import pytest
import torch

from clip_seg_ros.models.maskclip.refinement import (
    ABSENT_LOGIT,
    denoise_prompts,
    pamr,
    smooth_by_keys,
    sums_to_probabilities,
)
from nearness import assert_near


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_denoising_rules_out_by_image() -> None:
    # Class 2 wins one place of the first image and none of the second.
    places = [[0.2, 0.1, 0.0], [0.1, 0.2, 0.3], [0.2, 0.1, 0.0], [0.2, 0.1, 0.0]]
    logits = torch.tensor(places).T.reshape(3, 2, 2)
    logits = torch.stack([logits, logits.clone()])
    logits[1, 2] = 0.0
    before = logits.clone()
    denoised = denoise_prompts(logits, 0.5, 100.0)
    assert torch.equal(logits, before), "the input must stay as it was"
    assert torch.equal(denoised[0, 0], logits[0, 0])
    assert torch.equal(denoised[0, 2], logits[0, 2])
    assert (denoised[1, 2] == ABSENT_LOGIT).all()
    assert torch.equal(denoised[1, 1], logits[1, 1])
    assert (denoised[0, 1] == ABSENT_LOGIT).all()


def test_denoising_compares_with_the_threshold() -> None:
    logits = torch.log(torch.tensor([0.6, 0.4])).reshape(1, 2, 1, 1)
    assert torch.equal(denoise_prompts(logits, 0.39, 1.0), logits)
    assert denoise_prompts(logits, 0.41, 1.0).flatten().tolist() == [pytest.approx(logits[0, 0].item()), ABSENT_LOGIT]


@pytest.mark.parametrize("threshold", [0.0, 0.6, 1.0])
def test_smoothing_equals_its_equation(threshold: float) -> None:
    logits, keys = 0.02 * random(2, 3, 4, 5), random(2, 20, 6, seed=1)
    expected = torch.empty(2, 3, 4, 5)
    asked = 0
    for image in range(2):
        probabilities = (100 * logits[image]).softmax(dim=0).flatten(1)  # (P, N)
        similar = torch.stack([channel / channel.norm() for channel in keys[image].T], dim=1)
        for place in range(20):
            answer = probabilities[:, place]
            if answer.max() < threshold:
                asked += 1
                answer = sum((similar[place] @ similar[other]) * probabilities[:, other] for other in range(20))
            expected[image, :, place // 5, place % 5] = answer
    assert_near(smooth_by_keys(logits, keys, threshold, 100.0), expected)
    assert (asked == 0) == (threshold == 0.0)
    assert (asked == 40) == (threshold == 1.0)


def test_sums_become_probabilities() -> None:
    sums = torch.tensor([[3.0, 1.0, -5.0], [-2.0, -1.0, -3.0]]).reshape(2, 3, 1, 1)
    probabilities = sums_to_probabilities(sums).flatten(1)
    assert_near(probabilities, torch.tensor([[0.75, 0.25, 0.0], [1 / 3, 1 / 3, 1 / 3]]))


def test_pamr_equals_its_equation() -> None:
    image, values, dilations = random(2, 3, 5, 7), random(2, 4, 5, 7, seed=1).abs(), (1, 3)
    expected = torch.empty_like(values)
    around = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)]
    for b in range(2):
        for i in range(5):
            for j in range(7):
                colors, labels, window = [], [], []
                for distance in dilations:
                    for row, column in around:
                        # Beyond the border lies the border.
                        y, x = min(max(i + row * distance, 0), 4), min(max(j + column * distance, 0), 6)
                        window.append(image[b, :, y, x])
                        if (row, column) != (0, 0):
                            colors.append(image[b, :, y, x])
                            labels.append(values[b, :, y, x])
                deviation = torch.stack(window).std(dim=0)
                difference = (torch.stack(colors) - image[b, :, i, j]).abs() / (1e-8 + 0.1 * deviation)
                weights = (-difference.mean(dim=1)).softmax(dim=0)
                expected[b, :, i, j] = weights @ torch.stack(labels)
    assert_near(pamr(image, values, 1, dilations), expected)
    assert_near(pamr(image, values, 2, dilations), pamr(image, expected, 1, dilations))


def test_pamr_keeps_probabilities_probabilities() -> None:
    values = random(1, 5, 40, 60).softmax(dim=1)
    refined = pamr(random(1, 3, 40, 60, seed=1), values, 4)
    assert_near(refined.sum(dim=1), torch.ones(1, 40, 60))
    assert refined.min() >= values.min()
    assert refined.max() <= values.max()


def test_pamr_stays_finite_where_the_image_is_of_one_colour() -> None:
    flat = pamr(torch.ones(1, 3, 8, 8), torch.ones(1, 1, 8, 8), 3)
    assert_near(flat, torch.ones(1, 1, 8, 8))


def test_pamr_brings_labels_to_the_edge() -> None:
    image = torch.zeros(1, 3, 32, 32)
    image[..., 16:] = 1
    image = image + 0.02 * random(1, 3, 32, 32)
    values = torch.zeros(1, 1, 32, 32)
    values[..., 13:] = 1  # three pixels beside the edge
    refined = pamr(image, values, 10) > 0.5
    true = torch.arange(32).expand(1, 1, 32, 32) >= 16
    assert ((values > 0.5) != true).sum() == 96
    assert (refined != true).sum() < 10


def test_pamr_is_the_same_in_programs_for_other_runtimes(monkeypatch: pytest.MonkeyPatch) -> None:
    image, values = torch.rand(2, 3, 30, 50), torch.rand(2, 3, 30, 50)
    expected = pamr(image, values, 3)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)

    assert_near(pamr(image, values, 3), expected)
