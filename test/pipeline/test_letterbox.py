# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import cv2
import numpy as np
import pytest

from clip_seg_ros.pipeline.letterbox import from_square, letterbox_affine, mask_to_square, to_square
from nearness import assert_near

MEAN = (0.5, 0.25, 0.75)


@pytest.mark.parametrize("size", [(60, 80), (75, 50), (50, 50), (480, 640)])
def test_the_image_lies_in_the_middle(size: tuple[int, int]) -> None:
    rgb = np.full((*size, 3), 200, np.uint8)
    square = to_square(rgb, 96, MEAN)
    assert square.shape == (96, 96, 3)
    short = round(96 * min(size) / max(size))
    margin = (96 - short) // 2
    lines = square if size[0] < size[1] else square.transpose(1, 0, 2)
    assert (lines[: max(0, margin - 2)] == np.round(np.multiply(255, MEAN))).all()
    assert (lines[margin + 3 : 96 - margin - 3, 3:-3] == 200).all()


@pytest.mark.parametrize("size", [(60, 80), (75, 50), (375, 1242), (640, 480)])
def test_there_and_back(size: tuple[int, int]) -> None:
    height, width = size
    mask = np.zeros(size, bool)
    mask[height // 4 : height // 2, width // 3 : width // 2] = True
    square = mask_to_square(mask, 416)
    assert 0.9 < square.sum() / (mask.sum() * (416 / max(size)) ** 2) < 1.1
    restored = from_square(square[None], 416, size)[0]
    assert restored.shape == size
    assert restored.dtype == np.float32
    # Two pixels of the square, at the image's scale, blur an edge; everything farther inside or outside is decided.
    blur = 2 * max(1, round(max(size) / 416)) + 1
    kernel = np.ones((2 * blur + 1, 2 * blur + 1), np.uint8)
    inner, outer = (change(mask.view(np.uint8), kernel) > 0 for change in (cv2.erode, cv2.dilate))
    assert (restored[inner] > 0.5).all()
    assert (restored[~outer] < 0.5).all()


def test_the_affine_map_scales_both_axes_alike() -> None:
    affine = letterbox_affine((60, 80), 96)
    assert_near(affine, [[1.2, 0, 0], [0, 1.2, 12]])
