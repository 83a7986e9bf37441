# SPDX-License-Identifier: Apache-2.0
"""Probabilities of classes -> one class for each pixel, the objects of each class, and their colours."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import cv2
import numpy as np

from clip_seg_ros.pipeline.label_objects import label_objects
from clip_seg_ros.pipeline.overlay import PALETTE, draw_corner
from clip_seg_ros.types import ObjectRegion, ProbabilityMaps

UNLABELLED = 255
MAX_CLASSES = 255
_TINT = 0.5
_OTHERS = (0, 0, 0)


@dataclass(frozen=True)
class ClassMap:
    """The class of every pixel of an image; ``Predictor.classify`` makes it."""

    names: tuple[str, ...]
    labels: np.ndarray
    """(H, W) uint8: index into ``names``, or ``UNLABELLED``."""
    best: np.ndarray
    """(h, w) float32 at any resolution, the probability of the best of these classes, for the pixels all around which
    one class is the best: 0..1, or its log odds."""
    log_odds: bool
    """Whether ``best`` holds log(p / (1 - p)). If classes compete, this is nearly linear between a model's places."""
    edges: np.ndarray
    """(N,) int64, all other pixels, as indices into the flat image; some of them repeat."""
    edge_best: np.ndarray
    """(N,) float32, the probability of the best of the classes at those pixels, 0..1."""
    objects: tuple[ObjectRegion, ...] | None = None
    """The objects, the best first, of a model that finds them one by one; ``None``: they follow from the labels."""

    @cached_property
    def confidence(self) -> np.ndarray:
        """(H, W) float32, the probability of the best class at every pixel, 0..1; it is made when it is first read."""
        height, width = self.labels.shape
        values = cv2.resize(self.best, (width, height), interpolation=cv2.INTER_LINEAR)
        if self.log_odds:  # in place, because to write to new memory takes longer than to compute
            np.negative(values, out=values)
            cv2.exp(values, dst=values)
            values += 1.0
            np.reciprocal(values, out=values)
        values.reshape(-1)[self.edges] = self.edge_best
        return values


def require_count(names: Sequence[str]) -> None:
    """Raises ValueError if a label image has no room for so many classes, or if there are none."""
    if not 1 <= len(names) <= MAX_CLASSES:
        raise ValueError(f"a label image tells 1 to {MAX_CLASSES} classes apart, got {len(names)}")


def label_classes(maps: ProbabilityMaps, min_confidence: float, rest_competes: bool = False) -> np.ndarray:
    """Gives every pixel its most probable class.

    Args:
        maps: The probabilities of 1 to ``MAX_CLASSES`` classes.
        min_confidence: A pixel stays unlabelled where no class has at least this probability, 0..1.
        rest_competes: Whether a pixel also stays unlabelled where the model's own background phrases, to which the
            probability that is missing to 1 belongs, have more than the best class.

    Returns:
        (H, W) uint8: index into ``maps.prompts``, or ``UNLABELLED``.

    Raises:
        ValueError: There are too many classes, or none.
    """
    require_count(maps.prompts)
    labels = maps.values.argmax(axis=0).astype(np.uint8)
    best = maps.values.max(axis=0)
    unsure = ~(best >= min_confidence)  # NaN is unsure
    if rest_competes:
        unsure |= 1.0 - maps.values.sum(axis=0) > best
    labels[unsure] = UNLABELLED
    return labels


def classified(maps: ProbabilityMaps, names: Sequence[str], min_confidence: float, rest_competes: bool) -> ClassMap:
    """Gives every pixel its most probable class, of probabilities at the size of the image.

    Args:
        maps: The probabilities of ``names``, and of others that are told apart from them.
        names: Classes; pixels of others are unlabelled.
        min_confidence: As in ``label_classes``.
        rest_competes: As in ``label_classes``.
    """
    place = {name: index for index, name in reversed(list(enumerate(names)))}
    table = np.full(256, UNLABELLED, np.uint8)
    table[: len(maps.prompts)] = [place.get(name, UNLABELLED) for name in maps.prompts]
    labels = table[label_classes(maps, min_confidence, rest_competes)]
    best = maps.values[[maps.prompts.index(name) for name in names]].max(axis=0)
    return ClassMap(tuple(names), labels, best, False, np.zeros(0, np.int64), np.zeros(0, np.float32))


def class_regions(found: ClassMap, min_area_px: int) -> list[ObjectRegion]:
    """Returns the connected objects of every class, as ``postprocess.regions`` does for prompts.

    The objects of a model that finds them one by one are apart also where they touch.

    Args:
        found: The classes; a connected object's score is the mean of their confidence over it.
        min_area_px: Smaller objects are left out.
    """
    if found.objects is not None:
        large = [item for item in found.objects if item.area_px >= min_area_px]
        return [replace(item, id=number) for number, item in enumerate(large, start=1)]
    return label_objects(found.labels, found.confidence, found.names, min_area_px)


@lru_cache(maxsize=16)
def class_colors(count: int) -> np.ndarray:
    """Returns (256, 3) uint8 RGB, read-only: a fixed colour for each of ``count`` ids, and black for all others.

    Up to seven classes have the colours of ``PALETTE``, which colour-blind people can tell apart. Up to 21 classes have
    these colours in three degrees of lightness, which they can tell apart as well.
    """
    colors = np.full((256, 3), _OTHERS, np.uint8)
    darker, lighter = ([_mixed(color, to) for color in PALETTE] for to in ((0, 0, 0), (255, 255, 255)))
    colors[: min(count, 21)] = [*PALETTE, *darker, *lighter][:count]
    for place in range(21, count):
        # Steps of the golden ratio never repeat a hue; three degrees of lightness tell similar hues apart.
        saturation, value = ((0.75, 0.95), (0.55, 0.70), (0.45, 1.0))[place % 3]
        hue = place * 0.618034 % 1.0
        colors[place] = [round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, saturation, value)]
    colors.setflags(write=False)
    return colors


def _mixed(color: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    return tuple(round(0.55 * a + 0.45 * b) for a, b in zip(color, other))


def paint(labels: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Returns (H, W, 3) uint8: every label (H, W) in its colour of ``class_colors``."""
    return colors[labels]


def draw_classes(
    rgb: np.ndarray, labels: np.ndarray, names: Sequence[str], colors: np.ndarray, corner: str = ""
) -> np.ndarray:
    """Tints an image (H, W, 3) with its labels (H, W) and lists the classes that it shows, the largest first.

    ``corner`` is a small line for the lower left corner.
    """
    tinted = cv2.addWeighted(rgb, 1 - _TINT, colors[labels], _TINT, 0)
    canvas = np.where((labels == UNLABELLED)[..., None], rgb, tinted)
    used = draw_corner(canvas, corner)
    scale = min(max(min(rgb.shape[:2]) / 480, 0.6), 4.0)
    counts = np.bincount(labels.ravel(), minlength=256)[: len(names)]
    line, pad = round(20 * scale), round(6 * scale)
    rows = max(0, (rgb.shape[0] - used - pad) // line)
    for row, index in enumerate(np.argsort(-counts, kind="stable")[: min(rows, np.count_nonzero(counts))]):
        bottom = pad + (row + 1) * line
        start = (pad, bottom - round(14 * scale))
        cv2.rectangle(canvas, start, (pad + round(14 * scale), bottom), colors[index].tolist(), cv2.FILLED)
        place = (pad + round(20 * scale), bottom - round(2 * scale))
        for color, thickness in (((20, 20, 24), round(4 * scale)), ((255, 255, 255), max(1, round(scale)))):
            font = (cv2.FONT_HERSHEY_SIMPLEX, 0.5 * scale, color, thickness, cv2.LINE_AA)
            cv2.putText(canvas, names[index], place, *font)
    return canvas
