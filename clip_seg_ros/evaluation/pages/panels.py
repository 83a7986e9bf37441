# SPDX-License-Identifier: Apache-2.0
"""The small pictures of a report: what was there, what the model answered, and where the two differ."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from clip_seg_ros.data.samples import IGNORED
from clip_seg_ros.evaluation.answers import BACKGROUND
from clip_seg_ros.pipeline import class_labels, overlay, postprocess
from clip_seg_ros.types import MaskSet, ProbabilityMaps

Color = tuple[int, int, int]
HIT: Color = (0, 158, 115)
MISSED: Color = (86, 180, 233)
FALSE: Color = (213, 94, 0)
"""Right, true but not answered, answered but not true: RGB colours that colour-blind people tell apart."""
_SIDE_PX = 400
_MAX_REGIONS = 6  # more labels than this hide the picture
_TRUTH: Color = (255, 255, 255)
_DARK: Color = (20, 20, 24)
_BACKGROUND_COLOR: Color = (70, 70, 76)
_IGNORED_COLOR: Color = (0, 0, 0)
_TRACE = 0.3  # brightness of the picture behind the probabilities
_WASH = 0.62  # share of the colour where it says right or wrong


def phrase_panels(
    rgb: np.ndarray,
    true: np.ndarray,
    probabilities: np.ndarray,
    phrase: str,
    threshold: float,
    ignored: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Draws one phrase.

    Args:
        rgb: (H, W, 3) uint8.
        true: (H, W) bool.
        probabilities: (H, W) float32, 0..1.
        phrase: What was asked.
        threshold: A pixel belongs to the answer above it, 0..1.
        ignored: (H, W) bool, pixels that do not count; ``None`` where all do.

    Returns:
        ``truth``: the picture with the true outline in white; ``answer``: the answer's regions with their scores;
        ``errors``: right, missed and false pixels in colours, ignored ones black; ``probability``: dark 0 to yellow 1,
        the true outline in white. Each (h, w, 3) uint8 RGB with its long side at 400 pixels.
    """
    rgb, size = _shrunk(rgb)
    small_true = _nearest(true, size)
    answered = _nearest(probabilities > threshold, size)
    probabilities = cv2.resize(probabilities, size, interpolation=cv2.INTER_AREA)
    maps = ProbabilityMaps((phrase,), probabilities[None])
    regions = postprocess.regions(maps, MaskSet((phrase,), answered[None], threshold))
    largest = sorted(regions, key=lambda region: -region.area_px)[:_MAX_REGIONS]
    errors = _grey(rgb)
    marks = ((answered & small_true, HIT), (small_true & ~answered, MISSED), (answered & ~small_true, FALSE))
    for mask, color in marks:
        errors[mask] = ((1 - _WASH) * errors[mask] + _WASH * np.array(color)).astype(np.uint8)
    if ignored is not None:
        errors[_nearest(ignored, size)] = _IGNORED_COLOR
    levels = (255 * np.nan_to_num(probabilities).clip(0, 1)).astype(np.uint8)
    heat = np.ascontiguousarray(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1])
    # A trace of the picture in the dark says where one is.
    heat = np.maximum(heat, (_TRACE * _grey(rgb)).astype(np.uint8))
    return {
        "truth": _outlined(rgb, small_true),
        "answer": overlay.draw(rgb, largest, [phrase], None if largest else f"{phrase}: not found"),
        "errors": errors,
        "probability": _outlined(heat, small_true),
    }


def label_panels(rgb: np.ndarray, true: np.ndarray, predicted: np.ndarray, colors: np.ndarray) -> dict[str, np.ndarray]:
    """Draws one labelled picture.

    Args:
        rgb: (H, W, 3) uint8.
        true: (H, W) uint8 classes; ``IGNORED`` is black.
        predicted: (H, W) uint8 classes.
        colors: (256, 3) uint8 from ``class_colors``.

    Returns:
        ``picture``, ``truth`` and ``answer`` in the classes' colours, and ``errors``, where wrong pixels are coloured
        and ignored ones black. Each (h, w, 3) uint8 RGB with its long side at 400 pixels.
    """
    rgb, size = _shrunk(rgb)
    true, predicted = _nearest(true, size), _nearest(predicted, size)
    errors = _grey(rgb)
    wrong = (true != predicted) & (true != IGNORED)
    errors[wrong] = ((1 - _WASH) * errors[wrong] + _WASH * np.array(FALSE)).astype(np.uint8)
    errors[true == IGNORED] = _IGNORED_COLOR
    return {"picture": rgb, "truth": colors[true], "answer": colors[predicted], "errors": errors}


def class_colors(class_names: Sequence[str]) -> np.ndarray:
    """(256, 3) uint8 RGB: a colour for every class, a quiet one for the background; the rest black."""
    things = [index for index, name in enumerate(class_names) if name != BACKGROUND]
    colors = np.zeros((256, 3), np.uint8)
    colors[things] = class_labels.class_colors(len(things))[: len(things)]
    if BACKGROUND in class_names:
        colors[list(class_names).index(BACKGROUND)] = _BACKGROUND_COLOR
    return colors


def _shrunk(rgb: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """The picture at the size of a panel, and that size as cv2 has it: (width, height)."""
    height, width = rgb.shape[:2]
    scale = _SIDE_PX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR), size


def _nearest(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    resized = cv2.resize(labels.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return resized.astype(labels.dtype)


def _grey(rgb: np.ndarray) -> np.ndarray:
    """The picture without its colours, paler, so that others stand out."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return cv2.cvtColor((0.7 * grey + 50).astype(np.uint8), cv2.COLOR_GRAY2RGB)


def _outlined(rgb: np.ndarray, mask: np.ndarray) -> np.ndarray:
    canvas = rgb.copy()
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, _DARK, 4, cv2.LINE_AA)
    cv2.drawContours(canvas, contours, -1, _TRUTH, 2, cv2.LINE_AA)
    return canvas
