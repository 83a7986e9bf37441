# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from clip_seg_ros.models.spec import SlidingWindow
from clip_seg_ros.pipeline.sliding import merge_windows, window_boxes
from nearness import assert_near


@pytest.mark.parametrize(
    ("size", "window", "boxes"),
    [
        ((64, 64), SlidingWindow(64, 43), [(0, 0, 64, 64)]),
        ((40, 50), SlidingWindow(64, 43), [(0, 0, 40, 50)]),
        ((64, 100), SlidingWindow(64, 43), [(0, 0, 64, 64), (0, 36, 64, 100)]),
        ((70, 64), SlidingWindow(64, 64), [(0, 0, 64, 64), (6, 0, 70, 64)]),
    ],
)
def test_windows_cover_the_image_and_stay_inside(size: tuple, window: SlidingWindow, boxes: list) -> None:
    assert window_boxes(size, window) == boxes


@pytest.mark.parametrize("size", [(96, 128), (65, 64), (200, 131)])
def test_every_pixel_is_seen(size: tuple[int, int]) -> None:
    window = SlidingWindow(64, 43)
    seen = torch.zeros(size)
    for top, left, bottom, right in window_boxes(size, window):
        assert (bottom - top, right - left) == (64, 64)
        seen[top:bottom, left:right] += 1
    assert seen.min() >= 1


def test_overlaps_are_averaged() -> None:
    boxes = window_boxes((4, 6), SlidingWindow(4, 2))
    logits = torch.stack([torch.full((2, 4, 4), 1.0), torch.full((2, 4, 4), 3.0)])
    merged = merge_windows(logits, boxes, (4, 6))
    assert_near(merged[0, 0], torch.tensor([1.0, 1.0, 2.0, 2.0, 3.0, 3.0]))


def test_coarse_answers_are_resized_to_their_window() -> None:
    logits = torch.tensor([[[[0.0, 1.0]]]])  # one window, one prompt, 1 x 2
    merged = merge_windows(logits, [(0, 0, 2, 4)], (2, 4))
    assert_near(merged[0, 0], torch.tensor([0.0, 0.25, 0.75, 1.0]))


def test_a_stride_that_leaves_gaps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"stride must lie in 1\.\.64, got 65"):
        SlidingWindow(64, 65)
