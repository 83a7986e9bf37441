# SPDX-License-Identifier: Apache-2.0
"""Lines of text on an image, in sizes that suit it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

Color = tuple[int, int, int]
"""RGB, 0..255."""
Box = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels; right and bottom are exclusive."""

DARK: Color = (20, 20, 24)
LIGHT: Color = (255, 255, 255)
BAR = 0.65
"""The opacity of a dark bar behind text."""
SMALL = 0.8
"""The size of small letters, as a share of the size of all others."""
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class Style:
    """Sizes in pixels that suit an image, drawn for 480 pixels of height."""

    font_scale: float
    thin: int
    thick: int
    pad: int
    stroke: int
    spacing: int
    """From one stroke of the pattern to the next, along a row."""

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> Style:
        scale = min(max(min(shape[:2]) / 480, 0.75), 5.0)
        thin = round(2 * scale)
        return cls(
            font_scale=0.5 * scale,
            thin=thin,
            thick=thin + 2 * max(1, round(scale)),
            pad=round(4 * scale),
            stroke=max(1, round(1.4 * scale)),
            spacing=round(14 * scale),
        )

    @property
    def small(self) -> Style:
        """The same with small letters."""
        return replace(self, font_scale=SMALL * self.font_scale, pad=max(2, self.pad // 2))


def darken(canvas: np.ndarray) -> None:
    """Darkens a part of an image (H, W, 3) itself, so that light letters can be read on it."""
    canvas[:] = cv2.addWeighted(canvas, 1 - BAR, np.full_like(canvas, DARK), BAR, 0)


def fit(text: str, width: int, style: Style) -> str:
    """Shortens ``text`` with "..." until it is at most ``width`` pixels wide; empty if not even "..." fits."""
    text = " ".join(text.split())
    if text_width(text, style) <= width:
        return text
    for length in range(len(text) - 1, -1, -1):
        shortened = text[:length].rstrip() + "..."
        if text_width(shortened, style) <= width:
            return shortened
    return ""


def text_width(text: str, style: Style) -> int:
    return cv2.getTextSize(text, _FONT, style.font_scale, 1)[0][0]


def line_height(style: Style) -> int:
    (_, ascent), baseline = cv2.getTextSize("Ag", _FONT, style.font_scale, 1)
    return ascent + baseline + style.pad + style.pad // 2


def write(canvas: np.ndarray, text: str, left: int, top: int, color: Color, style: Style) -> None:
    """Writes one line whose box of ``_line_height`` begins at ``top``."""
    (_, ascent), _ = cv2.getTextSize("Ag", _FONT, style.font_scale, 1)
    baseline = top + style.pad // 2 + style.pad // 4 + ascent
    cv2.putText(canvas, text, (left, baseline), _FONT, style.font_scale, color, 1, cv2.LINE_AA)


def overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
