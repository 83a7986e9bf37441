# SPDX-License-Identifier: Apache-2.0
"""Draws what found objects relate to: thin outlines, lines to them, and the relations in small letters.

All of it is quieter than the objects themselves: the lines have their colours, and all else is grey.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from clip_seg_ros.pipeline.lettering import (
    DARK,
    Box,
    Color,
    Style,
    darken,
    fit,
    line_height,
    overlap,
    text_width,
    write,
)
from clip_seg_ros.pipeline.ties import Tie, Ties
from clip_seg_ros.types import ObjectRegion

QUIET: Color = (214, 214, 220)
"""The colour of what is not found itself, RGB."""
_ALONG = (0.5, 0.4, 0.6, 0.3, 0.7)
"""Where on a line its words may stand, as shares of its length, the best place first."""


def draw_ties(canvas: np.ndarray, ties: Ties, colors: Mapping[str, Color], style: Style) -> None:
    """Draws lines from objects to their anchors, and the anchors' outlines, on ``canvas`` (H, W, 3) uint8 itself.

    Args:
        canvas: The picture.
        ties: What is related to what.
        colors: RGB of each prompt; a line between two anchors is grey.
        style: Sizes.
    """
    thin = max(1, style.thin // 2)
    for tie in ties.ties:
        ends = _pixel(tie.region), _pixel(tie.anchor)
        cv2.line(canvas, *ends, DARK, thin + 2, cv2.LINE_AA)
        cv2.line(canvas, *ends, colors.get(tie.region.prompt, QUIET), thin, cv2.LINE_AA)
    for anchor in ties.anchors:
        crop = anchor.inside.view(np.uint8)
        contours, _ = cv2.findContours(crop, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=anchor.box_px[:2])
        cv2.drawContours(canvas, contours, -1, DARK, thin + 2, cv2.LINE_AA)
        cv2.drawContours(canvas, contours, -1, QUIET, thin, cv2.LINE_AA)
        cv2.circle(canvas, _pixel(anchor), style.thick - 1, DARK, cv2.FILLED, cv2.LINE_AA)
        cv2.circle(canvas, _pixel(anchor), max(1, style.thick - 3), QUIET, cv2.FILLED, cv2.LINE_AA)


def write_ties(
    canvas: np.ndarray, ties: Ties, taken: Sequence[Box], regions: Sequence[ObjectRegion], style: Style
) -> None:
    """Writes the anchors' names, and the relations on the lines, where there is room.

    A relation for which there is no room is written without its distance, or not at all.

    Args:
        canvas: The picture, (H, W, 3) uint8, which is changed.
        ties: What is related to what.
        taken: What must not be covered.
        regions: The found objects, which are covered only if there is no other place.
        style: Sizes.
    """
    page = _Page(canvas, list(taken), [region.box_px for region in regions], style.small)
    for anchor in ties.anchors:
        text = fit(anchor.prompt, canvas.shape[1] - 2 * page.style.pad, page.style)
        page.write(text, _beside(anchor, text, page.style))
    for tie in ties.ties:
        for text in dict.fromkeys((tie.label, tie.words)):
            if page.write(text, _on_line(tie, text, page.style)):
                break


@dataclass
class _Page:
    """A picture and what is written on it already."""

    canvas: np.ndarray
    taken: list[Box]
    avoided: list[Box]
    style: Style

    def write(self, text: str, places: Iterator[Box]) -> bool:
        """Writes a text at the best free place; returns whether there is one."""
        height, width = self.canvas.shape[:2]
        free = [
            box
            for box in places
            if min(box[:2]) >= 0 and box[2] <= width and box[3] <= height and not _meets(box, self.taken)
        ]
        if not text or not free:
            return False
        left, top, right, bottom = box = next((box for box in free if not _meets(box, self.avoided)), free[0])
        self.taken.append(box)
        darken(self.canvas[top:bottom, left:right])
        write(self.canvas, text, left + self.style.pad, top, QUIET, self.style)
        return True


def _meets(box: Box, others: Sequence[Box]) -> bool:
    return any(overlap(box, other) for other in others)


def _beside(region: ObjectRegion, text: str, style: Style) -> Iterator[Box]:
    """Yields places for a name, like those of the names of found objects."""
    wide, high = text_width(text, style) + 2 * style.pad, line_height(style)
    x_min, y_min, x_max, y_max = region.box_px
    gap = 2 * style.pad
    for left in ((x_min + x_max - wide) // 2, x_min, x_max - wide):
        for top in (y_max + gap, y_min - gap - high, y_max - gap - high):
            yield left, top, left + wide, top + high


def _on_line(tie: Tie, text: str, style: Style) -> Iterator[Box]:
    wide, high = text_width(text, style) + 2 * style.pad, line_height(style)
    start, end = np.array(tie.region.centroid_px), np.array(tie.anchor.centroid_px)
    for share in _ALONG:
        x, y = start + share * (end - start)
        left, top = round(float(x)) - wide // 2, round(float(y)) - high // 2
        yield left, top, left + wide, top + high


def _pixel(region: ObjectRegion) -> tuple[int, int]:
    return round(region.centroid_px[0]), round(region.centroid_px[1])
