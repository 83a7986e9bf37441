# SPDX-License-Identifier: Apache-2.0
"""COCO's average precision on cases that one can work out by hand."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from clip_seg_ros.evaluation.metrics.average_precision import (
    AveragePrecision,
    PlacedObject,
    PrecisionScores,
    PycocotoolsMissing,
)

SIZE = (200, 300)


@pytest.fixture(params=["mask", "box"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def square(left: int, top: int, side: int, label: int = 0, score: float = 1.0, **of_truth) -> PlacedObject:
    mask = np.zeros(SIZE, bool)
    mask[top : top + side, left : left + side] = True
    return PlacedObject(label, (left, top, left + side, top + side), mask, score, **of_truth)


def true(left: int, top: int, side: int, label: int = 0, crowd: bool = False) -> PlacedObject:
    return square(left, top, side, label, area_px=float(side**2), crowd=crowd)


def test_what_is_found_exactly_has_full_precision(kind: str) -> None:
    counted = AveragePrecision(3, kind)
    counted.add(SIZE, [true(10, 10, 20), true(100, 50, 120, 1)], [square(10, 10, 20), square(100, 50, 120, 1)])
    scores = counted.scores()
    assert (scores.ap, scores.ap50, scores.ap75) == pytest.approx((1, 1, 1))
    assert (scores.ap_small, scores.ap_large) == pytest.approx((1, 1))
    assert np.isnan(scores.ap_medium), "there is no object of this size"
    assert scores.class_ap50[:2].tolist() == pytest.approx([1, 1])
    assert np.isnan(scores.class_ap50[2])


def test_the_overlap_decides_at_which_thresholds_an_object_counts(kind: str) -> None:
    counted = AveragePrecision(1, kind)
    # 40 x 28 of 40 x 52 pixels are shared: an IoU of 28 / 52 = 0.538.
    counted.add(SIZE, [true(10, 10, 40)], [square(22, 10, 40, score=0.9)])
    scores = counted.scores()
    assert (scores.ap50, scores.ap75) == pytest.approx((1, 0))
    assert scores.ap == pytest.approx(0.1), "one of ten thresholds"


def test_false_answers_cost_precision_where_they_come_first(kind: str) -> None:
    better, worse = (AveragePrecision(1, kind) for _ in range(2))
    better.add(SIZE, [true(10, 10, 40)], [square(10, 10, 40, score=0.9), square(150, 10, 40, score=0.5)])
    worse.add(SIZE, [true(10, 10, 40)], [square(10, 10, 40, score=0.5), square(150, 10, 40, score=0.9)])
    assert better.scores().ap50 == pytest.approx(1)
    assert worse.scores().ap50 == pytest.approx(0.5)


def test_an_object_that_is_found_twice_is_right_once(kind: str) -> None:
    counted = AveragePrecision(1, kind)
    counted.add(
        SIZE,
        [true(10, 10, 40), true(150, 10, 40)],
        [square(10, 10, 40, score=0.9), square(11, 10, 40, score=0.8), square(150, 10, 40, score=0.7)],
    )
    # Up to a recall of 0.5 the precision is 1, and beyond it 2 / 3, at 51 and 50 of 101 recalls.
    assert counted.scores().ap50 == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_answers_in_a_crowd_are_not_wrong(kind: str) -> None:
    counted = AveragePrecision(1, kind)
    counted.add(
        SIZE,
        [true(10, 10, 40), true(100, 10, 90, crowd=True)],
        [square(110, 20, 40, score=0.95), square(10, 10, 40, score=0.5)],
    )
    assert counted.scores().ap50 == pytest.approx(1)


def test_classes_are_told_apart_and_the_mean_is_over_classes(kind: str) -> None:
    counted = AveragePrecision(2, kind)
    counted.add(SIZE, [true(10, 10, 40, 0), true(100, 10, 40, 1)], [square(10, 10, 40, 0), square(100, 10, 40, 0)])
    scores = counted.scores()
    assert scores.class_ap50.tolist() == pytest.approx([1, 0])
    assert scores.ap50 == pytest.approx(0.5)


def test_nothing_found_is_0_and_nothing_there_is_no_number(kind: str) -> None:
    counted = AveragePrecision(1, kind)
    counted.add(SIZE, [], [])
    assert np.isnan(counted.scores().ap)
    counted.add(SIZE, [true(10, 10, 40)], [])
    assert counted.scores().ap == 0
    assert counted.scores().class_ap50.tolist() == [0]


def test_masks_may_differ_where_boxes_are_equal() -> None:
    mask = np.zeros(SIZE, bool)
    mask[10:50, 10:12] = mask[10:12, 10:50] = True
    hollow = PlacedObject(0, (10, 10, 50, 50), mask, 0.9)
    by_mask, by_box = AveragePrecision(1, "mask"), AveragePrecision(1, "box")
    for counted in (by_mask, by_box):
        counted.add(SIZE, [true(10, 10, 40)], [hollow])
    assert by_mask.scores().ap50 == 0
    assert by_box.scores().ap50 == pytest.approx(1)


def scores_of(counted: AveragePrecision) -> PrecisionScores:
    counted.add(SIZE, [true(10, 10, 40)], [square(10, 10, 40)])
    return counted.scores()


def test_it_says_what_to_install(monkeypatch, kind: str) -> None:
    counted = AveragePrecision(1, kind)
    for part in ("mask", "coco", "cocoeval"):
        monkeypatch.setitem(sys.modules, f"pycocotools.{part}", None)
    with pytest.raises(PycocotoolsMissing, match=r'pip install "clip_seg_ros\[coco\]"'):
        scores_of(counted)
    with pytest.raises(ValueError, match='kind must be "mask" or "box", got "point"'):
        AveragePrecision(1, "point")
