# SPDX-License-Identifier: Apache-2.0
"""Draws regions over a camera's image, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

from clip_seg_ros.types import ObjectRegion

Color = tuple[int, int, int]

# Okabe and Ito's palette, which colour-blind people tell apart, without its black; RGB.
PALETTE: tuple[Color, ...] = (
    (86, 180, 233),  # sky blue
    (230, 159, 0),  # orange
    (0, 158, 115),  # bluish green
    (204, 121, 167),  # reddish purple
    (240, 228, 66),  # yellow
    (213, 94, 0),  # vermillion
    (0, 114, 178),  # blue
)
_DARK: Color = (20, 20, 24)
_LIGHT: Color = (255, 255, 255)
_STROKE = 0.6  # opacity of the pattern's strokes; between them an object keeps its own colour
_BAR = 0.65  # opacity of the dark bar behind the caption
_SMALL = 0.8  # size of the letters in the corner, as a share of the size of all others
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class _Style:
    """Sizes in pixels that suit an image, drawn for 480 pixels of height."""

    font_scale: float
    thin: int
    thick: int
    pad: int
    stroke: int
    spacing: int
    """From one stroke of the pattern to the next, along a row."""

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> _Style:
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


def prompt_colors(prompts: Sequence[str]) -> dict[str, Color]:
    """Gives each prompt an RGB colour by its place in ``prompts``; after the end of ``PALETTE`` colours repeat."""
    return {prompt: PALETTE[i % len(PALETTE)] for i, prompt in enumerate(dict.fromkeys(prompts))}


def draw(
    rgb: np.ndarray,
    regions: Sequence[ObjectRegion],
    prompts: Sequence[str] = (),
    caption: str | None = None,
    corner: str = "",
) -> np.ndarray:
    """Draws contours, a light pattern in the masks, centroids and labels such as "red cup 0.93" on a copy of an image.

    Args:
        rgb: (H, W, 3) uint8 of any size; it is not changed.
        regions: The regions of that image; the first ones lie on top.
        prompts: All prompts that were asked, found or not. Their order fixes the colours, so that a prompt keeps its
            colour from image to image. Without them, the order of the regions fixes the colours.
        caption: A line for the bottom of the image, for example "red cup: not found".
        corner: A small line for the lower left corner, above the caption.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    style = _Style.of(rgb.shape)
    colors = prompt_colors([*prompts, *(region.prompt for region in regions)])
    canvas = rgb.copy()
    for region in reversed(regions):
        _hatch(canvas, region, colors[region.prompt], style)
    for region in reversed(regions):
        _outline(canvas, region, colors[region.prompt], style)
    free_height = canvas.shape[0]
    if caption:
        free_height -= _draw_caption(canvas, caption, style)
    free_height -= draw_corner(canvas[:free_height], corner)
    _draw_tags(canvas[:free_height], regions, colors, style)
    return canvas


def draw_corner(canvas: np.ndarray, text: str) -> int:
    """Writes a small line on a dark strip in the lower left corner of ``canvas`` (H, W, 3) itself.

    Returns:
        The height of the strip in pixels; 0 where there is no text, or no room for it.
    """
    style = _Style.of(canvas.shape)
    style = replace(style, font_scale=_SMALL * style.font_scale, pad=max(2, style.pad // 2))
    height = _line_height(style)
    text = _fit(text, canvas.shape[1] - 2 * style.pad, style)
    if not text or height > canvas.shape[0]:
        return 0
    strip = canvas[-height:, : _text_width(text, style) + 2 * style.pad]
    strip[:] = cv2.addWeighted(strip, 1 - _BAR, np.full_like(strip, _DARK), _BAR, 0)
    _write(canvas, text, style.pad, canvas.shape[0] - height, _LIGHT, style)
    return height


def _hatch(canvas: np.ndarray, region: ObjectRegion, color: Color, style: _Style) -> None:
    """Draws slanted strokes within a mask. A region that is hardly larger than their spacing gets none."""
    x_min, y_min, x_max, y_max = region.box_px
    if min(x_max - x_min, y_max - y_min) < 2 * style.spacing:
        return
    patch = canvas[region.window]
    strokes = _strokes(style.spacing, style.stroke, max(canvas.shape[:2]))
    # Every row is the one above it, shifted by one pixel, so that a view is enough. The start depends on the place in
    # the image, so that the pattern stays where it is when the box changes.
    start = (x_min + y_min) % style.spacing
    rows, columns = patch.shape[:2]
    step = strokes.strides[0]
    inside = np.lib.stride_tricks.as_strided(strokes[start:], (rows, columns), (step, step), writeable=False)
    inside = inside & region.inside
    under = patch[inside]  # (N, 3)
    if len(under):
        patch[inside] = cv2.addWeighted(under, 1 - _STROKE, np.full_like(under, color), _STROKE, 0)


@lru_cache(maxsize=8)
def _strokes(spacing: int, stroke: int, side: int) -> np.ndarray:
    """Returns (N,) bool: one row of the pattern, long enough for any box of an image whose longer side is ``side``."""
    return np.arange(2 * side + spacing) % spacing < stroke


def _outline(canvas: np.ndarray, region: ObjectRegion, color: Color, style: _Style) -> None:
    """Draws contour and centroid in the region's colour over a wider dark line, to stand out on any background."""
    crop = region.inside.view(np.uint8)
    contours, _ = cv2.findContours(crop, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=region.box_px[:2])
    center = (round(region.centroid_px[0]), round(region.centroid_px[1]))
    cv2.drawContours(canvas, contours, -1, _DARK, style.thick, cv2.LINE_AA)
    cv2.drawContours(canvas, contours, -1, color, style.thin, cv2.LINE_AA)
    cv2.circle(canvas, center, style.thick + 1, _DARK, cv2.FILLED, cv2.LINE_AA)
    cv2.circle(canvas, center, style.thick - 1, _LIGHT, cv2.FILLED, cv2.LINE_AA)


def _draw_tags(canvas: np.ndarray, regions: Sequence[ObjectRegion], colors: dict[str, Color], style: _Style) -> None:
    """Puts a label at each region's box, inside the canvas and off the other labels where there is room."""
    height, width = canvas.shape[:2]
    taken: list[tuple[int, int, int, int]] = []
    for region in regions:
        score = f" {region.score:.2f}"
        text = _fit(region.prompt, width - 2 * style.pad - _text_width(score, style), style) + score
        tag_width = _text_width(text, style) + 2 * style.pad
        tag_height = _line_height(style)
        if tag_width > width or tag_height > height:
            continue
        x_min, y_min, _, y_max = region.box_px
        left = min(x_min, width - tag_width)
        gap = style.pad
        tops = (y_min - gap - tag_height, y_max + gap, y_min + gap, y_max - gap - tag_height)
        boxes = [(left, top, left + tag_width, top + tag_height) for top in tops if 0 <= top <= height - tag_height]
        free = (box for box in boxes if not any(_overlap(box, other) for other in taken))
        box = next(free, boxes[0] if boxes else (left, 0, left + tag_width, tag_height))
        taken.append(box)
        _draw_tag(canvas, text, box, colors[region.prompt], style)


def _draw_tag(canvas: np.ndarray, text: str, box: tuple[int, int, int, int], color: Color, style: _Style) -> None:
    cv2.rectangle(canvas, box[:2], (box[2] - 1, box[3] - 1), color, cv2.FILLED)
    cv2.rectangle(canvas, box[:2], (box[2] - 1, box[3] - 1), _DARK, 1)
    # Rec. 601 luma: dark letters on light colours.
    is_light = np.dot(color, (0.299, 0.587, 0.114)) > 110
    _write(canvas, text, box[0] + style.pad, box[1], _DARK if is_light else _LIGHT, style)


def _draw_caption(canvas: np.ndarray, caption: str, style: _Style) -> int:
    """Writes a line on a dark bar at the bottom; returns the bar's height, 0 if there is no room for it."""
    height, width = canvas.shape[:2]
    bar_height = _line_height(style) + style.pad
    text = _fit(caption, width - 4 * style.pad, style)
    if bar_height > height or not text:
        return 0
    bar = canvas[height - bar_height :]
    bar[:] = cv2.addWeighted(bar, 1 - _BAR, np.full_like(bar, _DARK), _BAR, 0)
    _write(canvas, text, 2 * style.pad, height - bar_height + style.pad // 2, _LIGHT, style)
    return bar_height


def _fit(text: str, width: int, style: _Style) -> str:
    """Shortens ``text`` with "..." until it is at most ``width`` pixels wide; empty if not even "..." fits."""
    text = " ".join(text.split())
    if _text_width(text, style) <= width:
        return text
    for length in range(len(text) - 1, -1, -1):
        shortened = text[:length].rstrip() + "..."
        if _text_width(shortened, style) <= width:
            return shortened
    return ""


def _text_width(text: str, style: _Style) -> int:
    return cv2.getTextSize(text, _FONT, style.font_scale, 1)[0][0]


def _line_height(style: _Style) -> int:
    (_, ascent), baseline = cv2.getTextSize("Ag", _FONT, style.font_scale, 1)
    return ascent + baseline + style.pad + style.pad // 2


def _write(canvas: np.ndarray, text: str, left: int, top: int, color: Color, style: _Style) -> None:
    """Writes one line whose box of ``_line_height`` begins at ``top``."""
    (_, ascent), _ = cv2.getTextSize("Ag", _FONT, style.font_scale, 1)
    baseline = top + style.pad // 2 + style.pad // 4 + ascent
    cv2.putText(canvas, text, (left, baseline), _FONT, style.font_scale, color, 1, cv2.LINE_AA)


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
