# SPDX-License-Identifier: Apache-2.0
"""Describes an image: asks about many names, and keeps the best name where several fit one object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from clip_seg_ros.commands.parser import MAX_CLASSES
from clip_seg_ros.pipeline.cell_maps import objects_above
from clip_seg_ros.pipeline.postprocess import shared_px
from clip_seg_ros.resources import class_list, class_list_names
from clip_seg_ros.types import ObjectRegion

if TYPE_CHECKING:  # torch takes seconds to import, and nodes import this before they can end cleanly
    from clip_seg_ros.models.spec import ModelSpec
    from clip_seg_ros.pipeline.predictor import Predictor

PHRASES_AT_ONCE = 16
"""How many phrases are asked together if phrases do not compete. It bounds the memory, which holds a map for each."""
LONGEST_SIDE_PX = 640
"""Larger images are made smaller, because names need no sharp edges."""
_SAME_SHARE = 0.5
"""Two regions that share more than this part of the smaller one are one object under two names."""


@dataclass(frozen=True)
class Sighting:
    """A name that fits at least one object in an image."""

    phrase: str
    count: int
    """The number of objects that this name fits best."""
    score: float
    """The best score of these objects: the mean probability over its mask, 0..1."""


def names_for(spec: ModelSpec, things: tuple[str, ...], table: Sequence[str]) -> tuple[str, ...]:
    """Returns the names that a model is asked about; empty if it knows any word and the user has chosen none.

    Args:
        spec: The model's spec.
        things: The parameter ``things``: phrases, or the name of one class list.
        table: The things of the simulated table, which are those of the weights that know their own words alone.

    Raises:
        ValueError: There are too many names.
    """
    if len(things) == 1 and things[0] in class_list_names():
        things = class_list(things[0])
    if len(things) > MAX_CLASSES:
        raise ValueError(f"things has {len(things)} names: at most {MAX_CLASSES}")
    if things:
        return things
    if spec.class_names is not None:
        return spec.class_names
    if not spec.known_words:
        return ()
    return tuple(phrase for phrase in table if not spec.unknown_words(phrase))


def no_names(spec: ModelSpec) -> str:
    """Returns what to do where ``names_for`` has none."""
    return (
        f"{spec.name} knows any word and has no list of its own: set the parameter things, for example to "
        "[cup, bottle, chair] or to a class list such as [coco_stuff171]"
    )


def sentence(seen: Sequence[Sighting], asked: int) -> str:
    """Returns what was seen, for people; ``asked`` is the number of names that were asked about."""
    return f"I see {', '.join(map(_named, seen)) or f'nothing of the {asked} things that were asked for'}"


def _named(sighting: Sighting) -> str:
    times = f" ({sighting.count} times)" if sighting.count > 1 else ""
    return f"{sighting.phrase} {sighting.score:.2f}{times}"


def describe(
    predictor: Predictor, rgb: np.ndarray, phrases: Sequence[str], threshold: float | None, min_area_fraction: float
) -> list[Sighting]:
    """Names the objects in an image.

    Args:
        predictor: The model that is asked.
        rgb: (H, W, 3) uint8, the image.
        phrases: The names to choose from, at least one.
        threshold: A pixel belongs to a name above this probability, 0..1; ``None`` for the model's own.
        min_area_fraction: The area of the smallest object, as a share of the image's pixels, 0..1.

    Returns:
        The names that fit, the one with the best score first.

    Raises:
        ValueError: ``Predictor.encode`` refuses the image, or ``Predictor.ask`` the phrases.
    """
    threshold = predictor.spec.threshold if threshold is None else threshold
    encoded = predictor.encode(_shrunk(rgb))
    # Phrases that compete must be asked together.
    step = len(phrases) if predictor.spec.competition == "softmax" else PHRASES_AT_ONCE
    found: list[ObjectRegion] = []
    for first in range(0, len(phrases), step):
        maps = predictor.ask_cells(encoded, tuple(phrases[first : first + step]))
        height, width = maps.size
        least_px = max(1, round(min_area_fraction * height * width))
        regions = objects_above(maps, threshold, least_px)
        found += [region for region in regions if region.score >= predictor.spec.calibration.least_score]
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
    return shared_px(one, other) > _SAME_SHARE * min(one.area_px, other.area_px)
