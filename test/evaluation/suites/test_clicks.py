# SPDX-License-Identifier: Apache-2.0
"""What the suite says of clicks and boxes on held-out scenes."""

from __future__ import annotations

import numpy as np
import pytest

from clip_seg_ros.evaluation.suites.clicks import JITTER, ClickExaminer, box_of, jittered
from clip_seg_ros.pipeline.predictor import Predictor


@pytest.fixture(scope="module")
def examined(held_out):
    examiner = ClickExaminer(Predictor.from_name("clipseg-pocket", "cpu", engine="eager"))
    for scene, view in held_out:
        examiner.examine(scene, view)
    return examiner


def test_the_best_way_is_better_than_its_parts(examined):
    figures = {figure.name: figure.value for figure in examined.figures()}
    assert figures["clicks.count"] > 0
    assert figures["clicks.box.mean_iou"] > 0.8
    assert figures["clicks.point.mean_iou"] > figures["clicks.features.mean_iou"] + 0.05
    assert figures["clicks.point.mean_iou"] > figures["clicks.colours.mean_iou"]
    assert figures["clicks.point.ms"] > 0


def test_pictures_show_points_and_boxes(examined):
    (picture,) = examined.pictures().values()
    assert picture.shape[1:] == (4 * 320, 3)


def test_boxes_are_drawn_carelessly_but_never_outside():
    rng = np.random.default_rng(0)
    drawn = np.array([jittered((0, 20, 100, 60), (70, 101), rng) for _ in range(200)])
    assert drawn[:, 0].min() == 0
    assert drawn[:, 2].max() == 101
    assert drawn[:, 1].min() == 20 - 40 * JITTER
    assert drawn[:, 3].max() == 60 + 40 * JITTER
    assert (drawn[:, :2] < drawn[:, 2:]).all()


def test_the_box_of_a_mask_ends_after_its_last_pixel():
    mask = np.zeros((6, 8), np.bool_)
    mask[3:5, 4:7] = True
    assert box_of(mask) == (4, 3, 7, 5)
