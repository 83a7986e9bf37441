# SPDX-License-Identifier: Apache-2.0
"""Boundaries against plain loops over pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clip_seg_ros.evaluation.metrics.boundary import boundary, boundary_score, class_boundary_f


def looped_boundary(mask: np.ndarray) -> set[tuple[int, int]]:
    height, width = mask.shape
    edge = set()
    for y in range(height):
        for x in range(width):
            for dy, dx in ((0, 1), (1, 0), (1, 1)):
                # Past the border the picture goes on as it ends.
                other = mask[min(y + dy, height - 1), min(x + dx, width - 1)]
                if other != mask[y, x]:
                    edge.add((y, x))
    return edge


def looped_share(edge: set[tuple[int, int]], other: set[tuple[int, int]], radius: int) -> float:
    near = sum(any((y - v) ** 2 + (x - u) ** 2 <= radius**2 for v, u in other) for y, x in edge)
    return near / len(edge)


def blobs(seed: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A disk, and a disk beside it with specks."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    center = rng.uniform(0.3, 0.7, 2) * shape
    radius = 0.25 * min(shape)
    true = (y - center[0]) ** 2 + (x - center[1]) ** 2 < radius**2
    shift = rng.uniform(-3, 3, 2)
    predicted = (y - center[0] - shift[0]) ** 2 + (x - center[1] - shift[1]) ** 2 < (radius * 1.1) ** 2
    return predicted ^ (rng.random(shape) < 0.01), true


@pytest.mark.parametrize(("shape", "tolerance"), [((30, 40), 0.008), ((30, 40), 0.04), ((23, 17), 0.1)])
def test_precision_and_recall_equal_plain_loops(shape: tuple[int, int], tolerance: float) -> None:
    radius = math.ceil(tolerance * math.sqrt(shape[0] ** 2 + shape[1] ** 2))
    for seed in range(4):
        predicted, true = blobs(seed, shape)
        predicted_edge, true_edge = looped_boundary(predicted), looped_boundary(true)
        assert set(zip(*(axis.tolist() for axis in np.nonzero(boundary(predicted))), strict=True)) == predicted_edge
        score = boundary_score(predicted, true, tolerance)
        precision = looped_share(predicted_edge, true_edge, radius)
        recall = looped_share(true_edge, predicted_edge, radius)
        assert (score.precision, score.recall) == pytest.approx((precision, recall))
        assert 0 < precision < 1
        assert score.f == pytest.approx(2 * precision * recall / (precision + recall))


def test_a_shift_within_the_tolerance_is_no_error_and_one_beyond_it_is() -> None:
    true = np.zeros((480, 640), bool)
    true[100:200, 100:300] = True
    # 0.008 of the diagonal of 800 pixels is 6.4, and 7 when rounded up.
    assert boundary_score(np.roll(true, 7, axis=1), true).f == 1
    assert boundary_score(np.roll(true, 8, axis=1), true).f < 1


def test_masks_without_a_boundary() -> None:
    empty, full = np.zeros((20, 20), bool), np.ones((20, 20), bool)
    square = np.zeros((20, 20), bool)
    square[5:10, 5:10] = True
    assert boundary_score(empty, empty).f == 1
    assert boundary_score(full, full).f == 1
    assert boundary_score(square, empty).f == 0
    assert boundary_score(empty, square).f == 0


def test_a_boundary_in_ignored_pixels_does_not_count_against_the_model() -> None:
    labels = np.zeros((60, 80), np.uint8)
    labels[20:40, 20:40] = 1
    labels[:, 60:] = 255
    predicted = np.where(labels == 255, 0, labels)
    predicted[20:40, 65:75] = 1
    assert class_boundary_f(predicted, labels)[1] == 1
    labels[:, 60:] = 0
    assert class_boundary_f(predicted, labels)[1] < 0.9


def test_only_classes_that_are_there_have_a_score() -> None:
    labels = np.full((20, 20), 255, np.uint8)
    assert class_boundary_f(np.zeros((20, 20), int), labels) == {}
    labels[5:15, 5:15] = 3
    assert class_boundary_f(np.full((20, 20), 7), labels) == {3: 0.0}


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="bool and of one shape"):
        boundary_score(np.zeros((2, 3), bool), np.zeros((3, 2), bool))
    with pytest.raises(ValueError, match="bool and of one shape"):
        boundary_score(np.zeros((2, 3)), np.zeros((2, 3), bool))
