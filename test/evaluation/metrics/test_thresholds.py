# SPDX-License-Identifier: Apache-2.0
"""The sweep of thresholds against plain loops."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import torch

from clip_seg_ros.evaluation.metrics.thresholds import (
    THRESHOLDS,
    BinaryCounts,
    ThresholdSweep,
    average_precision,
    count_over_thresholds,
    resize_corners_aligned,
    simpson,
)
from nearness import assert_near


def samples(count: int, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Probabilities that tell something of their masks, many of them exactly on a threshold; sizes differ."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        mask = rng.random(rng.integers(5, 12, size=2)) < 0.4
        probabilities = np.clip(0.3 * mask + 0.7 * rng.random(mask.shape), 0, 1)
        probabilities = np.where(rng.random(mask.shape) < 0.5, probabilities.round(2), probabilities)
        made.append((probabilities.astype(np.float32), mask))
    return made


def looped_counts(sample: tuple[np.ndarray, np.ndarray], threshold: float) -> list[int]:
    """[tp, fp, fn, tn], one pixel after the other."""
    counts = [0, 0, 0, 0]
    for probability, true in zip(sample[0].ravel(), sample[1].ravel(), strict=True):
        predicted = probability > np.float32(threshold)
        counts[(0 if true else 1) if predicted else (2 if true else 3)] += 1
    return counts


def summed(counts: Iterable[list[int]]) -> list[int]:
    return [sum(column) for column in zip(*counts, strict=True)]


def test_counts_and_scores_equal_plain_loops() -> None:
    data = samples(5)
    classes = [2, None, 2, 7, None]
    sweep = ThresholdSweep()
    for (probabilities, mask), class_id in zip(data, classes, strict=True):
        sweep.add(probabilities, mask, class_id)
    scores = sweep.scores()
    for index, threshold in enumerate(THRESHOLDS):
        each = [looped_counts(sample, threshold) for sample in data]
        tp, fp, fn, tn = summed(each)
        counts = scores.counts
        assert [int(a[index]) for a in (counts.tp, counts.fp, counts.fn, counts.tn)] == [tp, fp, fn, tn]
        foreground, background = tp / (1 + tp + fp + fn), tn / (1 + tn + fp + fn)
        assert scores.foreground_iou[index] == pytest.approx(foreground)
        assert scores.binary_iou[index] == pytest.approx((foreground + background) / 2)
        by_class = [summed([each[0], each[2]]), each[1], each[3], each[4]]
        ious = [a / (1 + a + b + c) for a, b, c, _ in by_class]
        assert scores.mean_iou[index] == pytest.approx(sum(ious) / 4)


def test_samples_of_their_own_class_equal_samples_of_classes_that_never_repeat() -> None:
    apart, numbered = ThresholdSweep(), ThresholdSweep()
    for number, sample in enumerate(samples(4)):
        apart.add(*sample)
        numbered.add(*sample, class_id=number)
    np.testing.assert_allclose(apart.scores().mean_iou, numbered.scores().mean_iou)


def test_a_pixel_exactly_on_the_threshold_is_outside_and_nan_is_too() -> None:
    probabilities = np.array([[0.3, np.nextafter(np.float32(0.3), np.float32(1)), np.nan]], np.float32)
    counts = count_over_thresholds(probabilities, np.ones((1, 3), bool), (0.1, 0.3))
    assert counts.tp.tolist() == [2, 1]
    assert counts.fn.tolist() == [1, 2]


def test_the_best_and_the_asked_threshold() -> None:
    sweep = ThresholdSweep((0.2, 0.4, 0.6))
    sweep.add(np.array([[0.1, 0.3, 0.5, 0.7]]), np.array([[False, False, True, True]]))
    scores = sweep.scores()
    assert scores.best(scores.foreground_iou) == (pytest.approx(2 / 3), 0.4)
    assert scores.at(scores.foreground_iou, 0.6) == pytest.approx(1 / 3)
    assert scores.best(np.array([0.5, 0.5, 0.1])) == (0.5, 0.2)
    with pytest.raises(ValueError, match="none of the thresholds"):
        scores.at(scores.foreground_iou, 0.5)


def test_what_cannot_be_counted_is_refused() -> None:
    sweep = ThresholdSweep()
    with pytest.raises(ValueError, match="no sample"):
        sweep.scores()
    with pytest.raises(ValueError, match="as large a bool mask"):
        sweep.add(np.zeros((2, 3)), np.zeros((3, 2), bool))
    with pytest.raises(ValueError, match="bool"):
        sweep.add(np.zeros((2, 3)), np.zeros((2, 3), np.uint8))
    for thresholds in ((), (0.5, 0.5), (0.5, 0.1)):
        with pytest.raises(ValueError, match="rise"):
            ThresholdSweep(thresholds)


@pytest.mark.parametrize("count", [3, 4, 5, 10, 49])
def test_simpson_is_exact_for_parabolas_on_uneven_points(count: int) -> None:
    x = np.sort(np.random.default_rng(count).random(count))
    antiderivative = 2 * x**3 - x**2 + 5 * x
    assert simpson(x, 6 * x**2 - 2 * x + 5) == pytest.approx(antiderivative[-1] - antiderivative[0])


# Computed with SciPy 1.17.1.
@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ([0.1, 0.2, 0.5, 0.9], [1.0, 0.9, 0.4, 0.2], 0.4),
        ([0.1, 0.2, 0.5, 0.9, 1.0], [1.0, 0.9, 0.4, 0.2, 0.5], 0.37694444444444),
        ([0.1, 0.3, 0.3, 0.9], [1.0, 0.8, 0.7, 0.2], 0.15333333333333),
        ([0.1, 0.3, 0.9, 0.9], [1.0, 0.8, 0.7, 0.2], 0.59111111111111),
        ([0.1, 0.1, 0.9, 1.0, 1.0], [0.8, 1.0, 0.7, 0.2, 0.3], 0.43333333333333),
        ([0.1, 0.5], [1.0, 0.5], 0.3),
        ([0.1], [1.0], 0.0),
    ],
)
def test_simpson_equals_scipy(x: list[float], y: list[float], expected: float) -> None:
    assert simpson(np.array(x), np.array(y)) == pytest.approx(expected, abs=1e-12)


def counts(tp: list[int], fp: list[int], true: int = 99) -> BinaryCounts:
    found, wrong = np.array(tp), np.array(fp)
    return BinaryCounts(tp=found, fp=wrong, fn=true - found, tn=200 - wrong)


def test_average_precision_sorts_by_recall_and_counts_equal_points_once() -> None:
    sweep = counts([90, 50, 50, 20, 10], [200, 60, 60, 5, 0])
    recall = np.array([0.1, 0.2, 0.5, 0.9])
    precision = np.array([10 / 11, 20 / 26, 50 / 111, 90 / 291])
    assert average_precision(sweep) == pytest.approx(simpson(recall, precision))


def test_average_precision_leaves_out_thresholds_without_a_prediction() -> None:
    """The authors' program does, so that a model whose probabilities end at 0.6 gains no area from the point (0, 0)."""
    predicting = counts([90, 60, 30, 20], [80, 30, 5, 1])
    silent = counts([90, 60, 30, 20, 0, 0], [80, 30, 5, 1, 0, 0])
    assert average_precision(silent) == average_precision(predicting)
    wrong_alone = counts([90, 60, 30, 20, 0], [80, 30, 5, 1, 1])
    assert average_precision(wrong_alone) != average_precision(predicting), "a wrong prediction is one"
    assert average_precision(counts([0, 0], [0, 0])) == 0


def test_average_precision_of_low_probabilities_is_that_of_the_authors_loop() -> None:
    rng = np.random.default_rng(7)
    sweep = ThresholdSweep()
    for _ in range(3):
        mask = rng.random((12, 10)) < 0.4
        probabilities = (0.6 * (0.5 * mask + 0.5 * rng.random((12, 10)))).astype(np.float32)
        sweep.add(probabilities, mask)
    scores, points = sweep.scores(), set()
    for tp, fp, fn in zip(scores.counts.tp, scores.counts.fp, scores.counts.fn):
        if tp + fp > 0:
            points.add((tp / (1 + tp + fn), tp / (1 + tp + fp)))
    assert scores.counts.tp[-1] == 0
    recall, precision = zip(*sorted(points))
    assert scores.average_precision == pytest.approx(simpson(np.array(recall), np.array(precision)))


@pytest.mark.parametrize("size", [(50, 60), (5, 7), (3, 4), (1, 1), (9, 1)])
def test_resizing_equals_torch(size: tuple[int, int]) -> None:
    maps = np.random.default_rng(0).random((2, 5, 7)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(maps)[None], size=size, mode="bilinear", align_corners=True
    )[0]
    resized = resize_corners_aligned(maps, size)
    assert resized.dtype == np.float32
    assert_near(resized, expected.numpy())


def test_resizing_equals_a_plain_loop() -> None:
    values = np.random.default_rng(1).random((4, 3))
    resized = resize_corners_aligned(values, (7, 6))
    for row in range(7):
        for column in range(6):
            y, x = row * 3 / 6, column * 2 / 5
            top, left = min(int(y), 2), min(int(x), 1)
            expected = sum(
                values[top + i, left + j] * (1 - abs(y - top - i)) * (1 - abs(x - left - j))
                for i in (0, 1)
                for j in (0, 1)
            )
            assert resized[row, column] == pytest.approx(expected)


def test_a_sample_that_shows_nothing_is_no_class_but_its_pixels_count() -> None:
    (probabilities, mask), (others, _) = samples(2)
    sweep = ThresholdSweep((0.5,))
    sweep.add(others, np.zeros(others.shape, bool))
    assert np.isnan(sweep.scores().mean_iou).all()
    sweep.add(probabilities, mask)
    alone = ThresholdSweep((0.5,))
    alone.add(probabilities, mask)
    assert sweep.scores().mean_iou == alone.scores().mean_iou
    assert sweep.scores().counts.fp[0] == alone.scores().counts.fp[0] + np.count_nonzero(others > np.float32(0.5))
