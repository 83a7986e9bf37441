# SPDX-License-Identifier: Apache-2.0
"""Draws the panels of a report: the ground truth, the model's answer, and their differences."""

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
"""The RGB colours of true positives, false negatives and false positives, which colour-blind people can tell apart."""
_SIDE_PX = 400
_MAX_REGIONS = 6  # more labels would hide the image
_TRUTH: Color = (255, 255, 255)
_DARK: Color = (20, 20, 24)
_BACKGROUND_COLOR: Color = (70, 70, 76)
_IGNORED_COLOR: Color = (0, 0, 0)
_TRACE = 0.3  # brightness of the image behind the probabilities
_WASH = 0.62  # share of the colour at right and wrong pixels


def phrase_panels(
    rgb: np.ndarray,
    true: np.ndarray,
    probabilities: np.ndarray,
    phrase: str,
    threshold: float,
    ignored: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Draws the answer to one phrase.

    Args:
        rgb: Image (H, W, 3) uint8.
        true: True mask (H, W) bool.
        probabilities: Probabilities (H, W) float32, 0..1.
        phrase: Phrase that was asked.
        threshold: Probability above which a pixel belongs to the answer, 0..1.
        ignored: Mask (H, W) bool of pixels that do not count; ``None`` if all count.

    Returns:
        Panels by name. ``truth`` is the image with the true outline in white, ``answer`` has the answer's regions with
        their scores, ``errors`` has right, missed and false pixels in colours and ignored ones in black, and
        ``probability`` goes from dark at 0 to yellow at 1, with the true outline in white. Each is (h, w, 3) uint8 RGB
        with a long side of 400 pixels.
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
    # A trace of the image in dark regions helps with orientation.
    heat = np.maximum(heat, (_TRACE * _grey(rgb)).astype(np.uint8))
    return {
        "truth": _outlined(rgb, small_true),
        "answer": overlay.draw(rgb, largest, [phrase], None if largest else f"{phrase}: not found"),
        "errors": errors,
        "probability": _outlined(heat, small_true),
    }


def label_panels(rgb: np.ndarray, true: np.ndarray, predicted: np.ndarray, colors: np.ndarray) -> dict[str, np.ndarray]:
    """Draws one labelled image.

    Args:
        rgb: Image (H, W, 3) uint8.
        true: True classes (H, W) uint8; ``IGNORED`` becomes black.
        predicted: Predicted classes (H, W) uint8.
        colors: Colours (256, 3) uint8 from ``class_colors``.

    Returns:
        Panels by name: ``picture``, ``truth`` and ``answer`` in the classes' colours, and ``errors``, in which wrong
        pixels are coloured and ignored ones black. Each is (h, w, 3) uint8 RGB with a long side of 400 pixels.
    """
    rgb, size = _shrunk(rgb)
    true, predicted = _nearest(true, size), _nearest(predicted, size)
    errors = _grey(rgb)
    wrong = (true != predicted) & (true != IGNORED)
    errors[wrong] = ((1 - _WASH) * errors[wrong] + _WASH * np.array(FALSE)).astype(np.uint8)
    errors[true == IGNORED] = _IGNORED_COLOR
    return {"picture": rgb, "truth": colors[true], "answer": colors[predicted], "errors": errors}


def class_colors(class_names: Sequence[str]) -> np.ndarray:
    """Returns the colours of the classes, grey for the background, and black for all other values, (256, 3) uint8."""
    things = [index for index, name in enumerate(class_names) if name != BACKGROUND]
    colors = np.zeros((256, 3), np.uint8)
    colors[things] = class_labels.class_colors(len(things))[: len(things)]
    if BACKGROUND in class_names:
        colors[list(class_names).index(BACKGROUND)] = _BACKGROUND_COLOR
    return colors


def _shrunk(rgb: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """Returns the image at the size of a panel, and that size as in cv2: (width, height)."""
    height, width = rgb.shape[:2]
    scale = _SIDE_PX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR), size


def _nearest(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    resized = cv2.resize(labels.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return resized.astype(labels.dtype)


def _grey(rgb: np.ndarray) -> np.ndarray:
    """Returns the image in pale grey, so that colours on it stand out."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return cv2.cvtColor((0.7 * grey + 50).astype(np.uint8), cv2.COLOR_GRAY2RGB)


def _outlined(rgb: np.ndarray, mask: np.ndarray) -> np.ndarray:
    canvas = rgb.copy()
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, _DARK, 4, cv2.LINE_AA)
    cv2.drawContours(canvas, contours, -1, _TRUTH, 2, cv2.LINE_AA)
    return canvas
