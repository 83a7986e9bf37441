# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest

from clip_seg_ros.evaluation.metrics.masks import mask_iou


def test_iou_equals_counting_one_pixel_after_the_other():
    rng = np.random.default_rng(0)
    for share in (0.1, 0.5, 0.9):
        a, b = rng.random((2, 13, 17)) < share
        both = sum(bool(x and y) for x, y in zip(a.ravel(), b.ravel(), strict=True))
        either = sum(bool(x or y) for x, y in zip(a.ravel(), b.ravel(), strict=True))
        assert mask_iou(a, b) == pytest.approx(both / either)


def test_the_ends_of_the_scale():
    full, empty = np.ones((4, 4), bool), np.zeros((4, 4), bool)
    assert mask_iou(full, full) == 1
    assert mask_iou(full, empty) == 0
    assert math.isnan(mask_iou(empty, empty))


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="different shapes"):
        mask_iou(np.ones((2, 3), bool), np.ones((3, 2), bool))
