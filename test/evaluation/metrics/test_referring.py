# SPDX-License-Identifier: Apache-2.0
"""Scores of referring expressions against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from clip_seg_ros.evaluation.metrics.referring import ReferringIoU, sentence_iou, training_metric


def looped_iou(a: np.ndarray, b: np.ndarray) -> float:
    both = either = 0
    for x, y in zip(a.ravel().tolist(), b.ravel().tolist(), strict=True):
        both += x and y
        either += x or y
    return both / (either + 1e-6)


def test_scores_equal_plain_loops() -> None:
    rng = np.random.default_rng(0)
    total, ious = ReferringIoU(), []
    for share in np.linspace(0, 0.5, 20):
        true = rng.random(rng.integers(5, 15, size=2)) < 0.5
        predicted = true ^ (rng.random(true.shape) < share)
        ious.append(looped_iou(predicted, true))
        assert total.add(predicted, true) == pytest.approx(ious[-1], abs=1e-12)
    scores = total.scores()
    assert scores.mean_iou == pytest.approx(sum(ious) / 20)
    assert list(scores.precision_at) == [0.5, 0.6, 0.7, 0.8, 0.9]
    for level, share in scores.precision_at.items():
        assert share == pytest.approx(sum(iou > level for iou in ious) / 20)
    assert 0 < scores.precision_at[0.9] < scores.precision_at[0.5] < 1


def test_empty_masks_and_an_iou_at_the_level_do_not_count_as_found() -> None:
    empty = np.zeros((2, 2), bool)
    assert sentence_iou(empty, empty) == 0
    predicted, true = np.array([[True, True]]), np.array([[True, False]])
    iou = sentence_iou(predicted, true)
    total = ReferringIoU(levels=(iou, iou - 1e-9))
    total.add(predicted, true)
    assert list(total.scores().precision_at.values()) == [0, 1]


def test_the_training_metric_equals_a_plain_loop() -> None:
    rng = np.random.default_rng(1)
    targets = (rng.random((6, 1, 5, 7)) < 0.5) * rng.random((6, 1, 5, 7))
    logits = np.where(targets > 0, 2.0, -2.0) + rng.normal(size=targets.shape)
    predicted = 1 / (1 + np.exp(-logits)) >= 0.35
    ious = [looped_iou(sample, target > 0) for sample, target in zip(predicted, targets, strict=True)]
    scores = training_metric(logits, targets)
    assert scores.mean_iou == pytest.approx(sum(ious) / 6)
    assert scores.precision_at == {0.5: pytest.approx(sum(iou > 0.5 for iou in ious) / 6)}


def test_in_training_a_probability_at_the_threshold_is_inside() -> None:
    assert training_metric(np.zeros((1, 2, 2)), np.ones((1, 2, 2)), threshold=0.5).mean_iou == pytest.approx(1)


def test_huge_logits_do_not_overflow() -> None:
    logits = np.array([[[-1e30, 1e30]]], np.float32)
    with np.errstate(all="raise"):
        assert training_metric(logits, np.array([[[0, 1]]])).mean_iou == pytest.approx(1, abs=1e-5)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="no sentence"):
        ReferringIoU().scores()
    with pytest.raises(ValueError, match="no sentence"):
        training_metric(np.zeros((0, 2, 2)), np.zeros((0, 2, 2)))
    with pytest.raises(ValueError, match="one shape"):
        sentence_iou(np.ones((2, 3), bool), np.ones((3, 2), bool))
    with pytest.raises(ValueError, match="bool"):
        sentence_iou(np.ones((2, 3), bool), np.full((2, 3), 255, np.uint8))
    with pytest.raises(ValueError, match="targets"):
        training_metric(np.zeros((1, 1, 2, 2)), np.zeros((1, 2, 2)))
