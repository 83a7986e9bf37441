# SPDX-License-Identifier: Apache-2.0
"""Scores of label maps against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clip_seg_ros.evaluation.metrics.classes import ConfusionMatrix, SplitIoU, mean_over_classes


def looped_areas(pairs: list[tuple[np.ndarray, np.ndarray]], c: int, shift: int, classes: int) -> tuple[int, int, int]:
    """(intersection, predicted area, true area) of class ``c``, one pixel after the other."""
    both = predicted_area = true_area = 0
    for predicted, labels in pairs:
        for p, label in zip(predicted.ravel().tolist(), labels.ravel().tolist(), strict=True):
            true = label - shift
            if label == 255 or not 0 <= true < classes:
                continue
            both += p == true == c
            predicted_area += p == c
            true_area += true == c
    return both, predicted_area, true_area


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
@pytest.mark.parametrize("reduce_zero_label", [False, True])
def test_scores_equal_plain_loops(reduce_zero_label: bool, dtype: type) -> None:
    rng = np.random.default_rng(0)
    shift = int(reduce_zero_label)
    pairs = []
    matrix = ConfusionMatrix(4, reduce_zero_label)
    for shape in ((9, 11), (7, 5)):
        labels = rng.choice([0, 1, 2, 3, 4, 5, 255], shape).astype(dtype)
        guess = np.where(rng.random(shape) < 0.5, labels.astype(int) - shift, rng.integers(0, 4, shape))
        pairs.append((guess.clip(0, 3), labels))
        matrix.add(*pairs[-1])
    scores = matrix.scores()
    areas = [looped_areas(pairs, c, shift, 4) for c in range(4)]
    for c, (both, predicted, true) in enumerate(areas):
        precision, recall = both / predicted, both / true
        assert scores.iou[c] == pytest.approx(both / (predicted + true - both))
        assert scores.dice[c] == pytest.approx(2 * both / (predicted + true))
        assert scores.precision[c] == pytest.approx(precision)
        assert scores.recall[c] == pytest.approx(recall)
        for beta in (1, 2):
            expected = (1 + beta**2) * precision * recall / (beta**2 * precision + recall)
            assert scores.f_score(beta)[c] == pytest.approx(expected)
    assert scores.pixel_accuracy == pytest.approx(sum(a[0] for a in areas) / sum(a[2] for a in areas))
    assert scores.mean_iou == pytest.approx(sum(scores.iou.tolist()) / 4)


def test_rows_are_true_classes_and_columns_predicted_ones() -> None:
    matrix = ConfusionMatrix(3)
    matrix.add(np.array([[0, 0, 2]]), np.array([[0, 1, 1]]))
    assert matrix.counts.tolist() == [[1, 0, 0], [1, 0, 1], [0, 0, 0]]


def test_classes_without_pixels_have_no_score_and_do_not_enter_the_mean() -> None:
    matrix = ConfusionMatrix(4)
    # Class 1 is only labelled, class 2 only predicted, class 3 neither.
    matrix.add(np.array([[0, 0, 2]]), np.array([[0, 1, 0]]))
    scores = matrix.scores()
    np.testing.assert_array_equal(scores.iou, [1 / 3, 0, 0, np.nan])
    np.testing.assert_array_equal(scores.precision, [1 / 2, np.nan, 0, np.nan])
    np.testing.assert_array_equal(scores.recall, [1 / 2, 0, np.nan, np.nan])
    assert np.isnan(scores.f_score()).tolist() == [False, True, True, True]
    assert scores.mean_iou == pytest.approx(1 / 9)


def test_nothing_labelled_scores_nan() -> None:
    matrix = ConfusionMatrix(2)
    matrix.add(np.array([[0, 9]]), np.array([[255, 255]]))
    scores = matrix.scores()
    assert math.isnan(scores.pixel_accuracy)
    assert math.isnan(scores.mean_iou)
    assert math.isnan(mean_over_classes(np.array([np.nan])))


def test_wrong_input_is_refused_and_leaves_the_counts_alone() -> None:
    matrix = ConfusionMatrix(2)
    with pytest.raises(ValueError, match=r"\(1, 2\)"):
        matrix.add(np.zeros((1, 2), int), np.zeros((2, 1), int))
    for wrong in (-1, 2):
        with pytest.raises(ValueError, match=r"classes 0\.\.1"):
            matrix.add(np.array([[0, wrong]]), np.array([[0, 1]]))
    assert matrix.counts.sum() == 0


def test_255_is_no_class_of_a_large_vocabulary() -> None:
    matrix = ConfusionMatrix(300)
    matrix.add(np.array([[255, 254]]), np.array([[255, 254]]))
    assert matrix.counts.sum() == 1


def test_seen_and_unseen_classes_have_a_harmonic_mean():
    split = SplitIoU.of(np.array([0.8, np.nan, 0.4, 0.3]), np.array([False, False, False, True]))
    assert (split.seen, split.unseen) == pytest.approx((0.6, 0.3))
    assert split.harmonic == pytest.approx(0.4)
    assert SplitIoU(0.0, 0.0).harmonic == 0
    assert np.isnan(SplitIoU.of(np.array([0.8]), np.array([False])).harmonic)
