# SPDX-License-Identifier: Apache-2.0
"""Draws regions over a camera's image, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

from clip_seg_ros.pipeline.lettering import (
    DARK,
    LIGHT,
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
from clip_seg_ros.pipeline.tie_drawing import draw_ties, write_ties
from clip_seg_ros.pipeline.ties import NO_TIES, Ties
from clip_seg_ros.types import ObjectRegion

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
_STROKE = 0.6  # opacity of the pattern's strokes; between them an object keeps its own colour


def prompt_colors(prompts: Sequence[str]) -> dict[str, Color]:
    """Gives each prompt an RGB colour by its place in ``prompts``; after the end of ``PALETTE`` colours repeat."""
    return {prompt: PALETTE[i % len(PALETTE)] for i, prompt in enumerate(dict.fromkeys(prompts))}


def draw(
    rgb: np.ndarray,
    regions: Sequence[ObjectRegion],
    prompts: Sequence[str] = (),
    caption: str | None = None,
    corner: str = "",
    ties: Ties = NO_TIES,
    numbers: bool = False,
) -> np.ndarray:
    """Draws contours, a light pattern in the masks, centroids and labels such as "red cup 0.93" on a copy of an image.

    Args:
        rgb: (H, W, 3) uint8 of any size; it is not changed.
        regions: The regions of that image; the first ones lie on top.
        prompts: All prompts that were asked, found or not. Their order fixes the colours, so that a prompt keeps its
            colour from image to image. Without them, the order of the regions fixes the colours.
        caption: A line for the bottom of the image, for example "red cup: not found".
        corner: A small line for the lower left corner, above the caption.
        ties: What the regions relate to, which is drawn thin and grey, with lines to it.
        numbers: Whether labels have the ids, too, as in "red cup #2 0.93".

    Returns:
        (H, W, 3) uint8 RGB.
    """
    style = Style.of(rgb.shape)
    colors = prompt_colors([*prompts, *(region.prompt for region in regions)])
    canvas = rgb.copy()
    for region in reversed(regions):
        _hatch(canvas, region, colors[region.prompt], style)
    draw_ties(canvas, ties, colors, style)
    for region in reversed(regions):
        _outline(canvas, region, colors[region.prompt], style)
    free_height = canvas.shape[0]
    if caption:
        free_height -= _draw_caption(canvas, caption, style)
    free_height -= draw_corner(canvas[:free_height], corner)
    taken = _draw_tags(canvas[:free_height], regions, colors, style, numbers)
    write_ties(canvas[:free_height], ties, taken, regions, style)
    return canvas


def draw_corner(canvas: np.ndarray, text: str) -> int:
    """Writes a small line on a dark strip in the lower left corner of ``canvas`` (H, W, 3) itself.

    Returns:
        The height of the strip in pixels; 0 where there is no text, or no room for it.
    """
    style = Style.of(canvas.shape).small
    height = line_height(style)
    text = fit(text, canvas.shape[1] - 2 * style.pad, style)
    if not text or height > canvas.shape[0]:
        return 0
    strip = canvas[-height:, : text_width(text, style) + 2 * style.pad]
    darken(strip)
    write(canvas, text, style.pad, canvas.shape[0] - height, LIGHT, style)
    return height


def _hatch(canvas: np.ndarray, region: ObjectRegion, color: Color, style: Style) -> None:
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


def _outline(canvas: np.ndarray, region: ObjectRegion, color: Color, style: Style) -> None:
    """Draws contour and centroid in the region's colour over a wider dark line, to stand out on any background."""
    crop = region.inside.view(np.uint8)
    contours, _ = cv2.findContours(crop, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=region.box_px[:2])
    center = (round(region.centroid_px[0]), round(region.centroid_px[1]))
    cv2.drawContours(canvas, contours, -1, DARK, style.thick, cv2.LINE_AA)
    cv2.drawContours(canvas, contours, -1, color, style.thin, cv2.LINE_AA)
    cv2.circle(canvas, center, style.thick + 1, DARK, cv2.FILLED, cv2.LINE_AA)
    cv2.circle(canvas, center, style.thick - 1, LIGHT, cv2.FILLED, cv2.LINE_AA)


def _draw_tags(
    canvas: np.ndarray, regions: Sequence[ObjectRegion], colors: dict[str, Color], style: Style, numbers: bool
) -> list[Box]:
    """Puts a label at each region's box, inside the canvas and off the other labels where there is room.

    Returns:
        The boxes of the labels.
    """
    height, width = canvas.shape[:2]
    taken: list[Box] = []
    for region in regions:
        score = f" #{region.id} {region.score:.2f}" if numbers else f" {region.score:.2f}"
        text = fit(region.prompt, width - 2 * style.pad - text_width(score, style), style) + score
        tag_width = text_width(text, style) + 2 * style.pad
        tag_height = line_height(style)
        if tag_width > width or tag_height > height:
            continue
        x_min, y_min, _, y_max = region.box_px
        left = min(x_min, width - tag_width)
        gap = style.pad
        tops = (y_min - gap - tag_height, y_max + gap, y_min + gap, y_max - gap - tag_height)
        boxes = [(left, top, left + tag_width, top + tag_height) for top in tops if 0 <= top <= height - tag_height]
        free = (box for box in boxes if not any(overlap(box, other) for other in taken))
        box = next(free, boxes[0] if boxes else (left, 0, left + tag_width, tag_height))
        taken.append(box)
        _draw_tag(canvas, text, box, colors[region.prompt], style)
    return taken


def _draw_tag(canvas: np.ndarray, text: str, box: Box, color: Color, style: Style) -> None:
    cv2.rectangle(canvas, box[:2], (box[2] - 1, box[3] - 1), color, cv2.FILLED)
    cv2.rectangle(canvas, box[:2], (box[2] - 1, box[3] - 1), DARK, 1)
    # Rec. 601 luma: dark letters on light colours.
    is_light = np.dot(color, (0.299, 0.587, 0.114)) > 110
    write(canvas, text, box[0] + style.pad, box[1], DARK if is_light else LIGHT, style)


def _draw_caption(canvas: np.ndarray, caption: str, style: Style) -> int:
    """Writes a line on a dark bar at the bottom; returns the bar's height, 0 if there is no room for it."""
    height, width = canvas.shape[:2]
    bar_height = line_height(style) + style.pad
    text = fit(caption, width - 4 * style.pad, style)
    if bar_height > height or not text:
        return 0
    darken(canvas[height - bar_height :])
    write(canvas, text, 2 * style.pad, height - bar_height + style.pad // 2, LIGHT, style)
    return bar_height
