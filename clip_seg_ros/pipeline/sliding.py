# SPDX-License-Identifier: Apache-2.0
"""Sliding-window inference of semantic segmentation: overlapping windows over an image, and their mean logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from clip_seg_ros.models.spec import SlidingWindow

Box = tuple[int, int, int, int]
"""(top, left, bottom, right) in pixels; the last two are exclusive."""


def window_boxes(size: tuple[int, int], window: SlidingWindow) -> list[Box]:
    """Covers an image with windows of one size, row by row.

    Args:
        size: (H, W) of the prepared image. Along a side that is shorter than ``window.crop``, windows are as short.
        window: The side and the stride of the windows. A window that would pass the border is moved back inside.
    """
    rows, columns = (_spans(side, window) for side in size)
    return [(top, left, bottom, right) for top, bottom in rows for left, right in columns]


def merge_windows(logits: torch.Tensor, boxes: Sequence[Box], size: tuple[int, int]) -> torch.Tensor:
    """Averages the logits of all windows at every pixel.

    Args:
        logits: (W, P, h, w) of W windows at any resolution; each is resized bilinearly to its window.
        boxes: The W boxes from ``window_boxes``.
        size: (H, W) of the prepared image.

    Returns:
        (P, H, W).
    """
    top, left, bottom, right = boxes[0]
    logits = F.interpolate(logits, size=(bottom - top, right - left), mode="bilinear", align_corners=False)
    total = logits.new_zeros((logits.shape[1], *size))
    count = logits.new_zeros(size)
    for window_logits, (top, left, bottom, right) in zip(logits, boxes, strict=True):
        total[:, top:bottom, left:right] += window_logits
        count[top:bottom, left:right] += 1
    return total / count


def _spans(side: int, window: SlidingWindow) -> list[tuple[int, int]]:
    """Returns (first, last + 1) of every window along one axis."""
    count = max(0, -(-(side - window.crop) // window.stride)) + 1
    ends = (min(index * window.stride + window.crop, side) for index in range(count))
    return [(max(0, end - window.crop), end) for end in ends]
