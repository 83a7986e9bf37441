# SPDX-License-Identifier: Apache-2.0
"""What is there? Asks one image about many names and keeps, of several that fit one thing, the one that fits best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from clip_seg_ros.pipeline.postprocess import masks, regions, window_of
from clip_seg_ros.types import ObjectRegion

if TYPE_CHECKING:  # torch takes seconds to import, and nodes import this before they can end cleanly
    from clip_seg_ros.pipeline.predictor import Predictor

PHRASES_AT_ONCE = 16
"""Phrases that are asked together, where they do not compete: their maps and no more are in memory."""
LONGEST_SIDE_PX = 640
"""Larger images are made smaller, for names need no sharp edges."""
_SAME_SHARE = 0.5
"""Of the smaller of two regions: where they share more of it, they are one thing under two names."""


@dataclass(frozen=True)
class Sighting:
    """A name that fits something in an image."""

    phrase: str
    count: int
    """How many things it fits best."""
    score: float
    """The mean probability over the surest of them, 0..1."""


def describe(
    predictor: Predictor, rgb: np.ndarray, phrases: Sequence[str], threshold: float | None, min_area_fraction: float
) -> list[Sighting]:
    """Names the things in an image.

    Args:
        predictor: The model that is asked.
        rgb: (H, W, 3) uint8, the image.
        phrases: The names to choose from, at least one.
        threshold: A pixel belongs to a name above this probability, 0..1; ``None`` for the model's own.
        min_area_fraction: Smallest thing, as a share of the image's pixels, 0..1.

    Returns:
        The names that fit, the surest first.

    Raises:
        ValueError: What ``Predictor.encode`` and ``Predictor.ask`` raise.
    """
    threshold = predictor.spec.threshold if threshold is None else threshold
    encoded = predictor.encode(_shrunk(rgb))
    # Names that compete must be asked together.
    step = len(phrases) if predictor.spec.competition == "softmax" else PHRASES_AT_ONCE
    found: list[ObjectRegion] = []
    for first in range(0, len(phrases), step):
        maps = predictor.ask(encoded, tuple(phrases[first : first + step]))
        height, width = maps.values.shape[1:]
        least_px = max(1, round(min_area_fraction * height * width))
        found += regions(maps, masks(maps, threshold), least_px, tidy=True)
    kept: list[ObjectRegion] = []
    for region in sorted(found, key=lambda each: -each.score):
        if not any(_is_same(region, other) for other in kept):
            kept.append(region)
    scores: dict[str, list[float]] = {}
    for region in kept:
        scores.setdefault(region.prompt, []).append(region.score)
    return [Sighting(phrase, len(values), max(values)) for phrase, values in scores.items()]


def _shrunk(rgb: np.ndarray) -> np.ndarray:
    scale = LONGEST_SIDE_PX / max(rgb.shape[:2])
    if scale >= 1.0:
        return rgb
    size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)


def _is_same(one: ObjectRegion, other: ObjectRegion) -> bool:
    window = window_of(one.box_px)
    shared = np.count_nonzero(one.mask[window] & other.mask[window])
    return shared > _SAME_SHARE * min(one.area_px, other.area_px)
