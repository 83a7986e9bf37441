"""Probabilities -> masks -> regions -> label image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from clip_seg_ros.types import MaskSet, ObjectRegion, ProbabilityMaps

MAX_REGIONS = 255
"""Ids must fit the label image: 1..255, 0 for no object."""


@dataclass(frozen=True)
class _Component:
    """A connected part of one prompt's mask, before it is known whether it is among the best."""

    prompt: str
    score: float
    labels: np.ndarray
    """(h, w) int32, a window of the image that holds it; its pixels have the value ``label``."""
    label: int
    window_px: tuple[int, int]
    """(x, y) of the window's first pixel in the image."""
    stats: np.ndarray
    """(5,) int32: left, top, width, height and area, in pixels of the window."""
    centroid: np.ndarray
    """(2,) float64: x, y in pixels of the window."""


def masks(maps: ProbabilityMaps, threshold: float) -> MaskSet:
    """Decides for every prompt and pixel: inside where the probability is strictly greater than ``threshold``, 0..1.

    NaN is outside.

    Raises:
        ValueError: The threshold is out of range.
    """
    if not 0.0 <= threshold <= 1.0:
        raise ValueError(f"threshold must lie in 0..1, got {threshold}")
    return MaskSet(maps.prompts, maps.values > threshold, threshold)


def regions(maps: ProbabilityMaps, mask_set: MaskSet, min_area_px: int = 1) -> list[ObjectRegion]:
    """Takes each prompt's mask apart into connected objects (8-neighbours: touching at a corner is one object).

    Args:
        maps: Gives the scores: the mean probability over a region's mask.
        mask_set: Made from ``maps``.
        min_area_px: Smaller regions are left out.

    Returns:
        At most 255 regions, the best score first, with ids 1, 2, ... in that order; equal scores keep the order of
        the prompts. Of more than 255, those with the lowest scores are left out. Regions of different prompts may
        share pixels.

    Raises:
        ValueError: ``maps`` and ``mask_set`` do not belong together.
    """
    if maps.prompts != mask_set.prompts or maps.values.shape != mask_set.values.shape:
        raise ValueError(
            f"masks of {mask_set.prompts} {mask_set.values.shape} do not belong to "
            f"probabilities of {maps.prompts} {maps.values.shape}"
        )
    found = [
        component
        for prompt, mask, probabilities in zip(maps.prompts, mask_set.values, maps.values)
        for component in _components(prompt, mask, probabilities, min_area_px)
    ]
    found.sort(key=lambda component: -component.score)  # stable
    shape = maps.values.shape[1:]
    return [_to_region(component, id, shape) for id, component in enumerate(found[:MAX_REGIONS], start=1)]


def label_image(regions: Sequence[ObjectRegion], shape: tuple[int, int]) -> np.ndarray:
    """Paints ids into an image.

    Where regions share a pixel, the one with the higher score owns it; with equal scores, the lower id.

    Args:
        regions: Of one image.
        shape: (H, W) of that image.

    Returns:
        (H, W) uint8, 0 where there is no region.

    Raises:
        ValueError: A region's mask has another shape.
    """
    labels = np.zeros(shape, np.uint8)
    for region in sorted(regions, key=lambda region: (region.score, -region.id)):
        if region.mask.shape != labels.shape:
            raise ValueError(f"region {region.id} has a mask of {region.mask.shape}, the image has {labels.shape}")
        window = window_of(region.box_px)
        labels[window][region.mask[window]] = region.id
    return labels


def window_of(box_px: tuple[int, int, int, int]) -> tuple[slice, slice]:
    """Returns the (rows, columns) that a box (x_min, y_min, x_max, y_max) with exclusive maxima cuts out."""
    x_min, y_min, x_max, y_max = box_px
    return slice(y_min, y_max), slice(x_min, x_max)


def _components(prompt: str, mask: np.ndarray, probabilities: np.ndarray, min_area_px: int) -> list[_Component]:
    """Finds the connected parts of one (H, W) mask; no step looks at the whole image once a component."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    if width == 0:
        return []
    # Objects fill a small part of an image: labelling only their bounding box saves most of the time.
    window = window_of((x, y, x + width, y + height))
    inside = np.ascontiguousarray(mask[window])
    count, labels, stats, centroids = cv2.connectedComponentsWithStats(inside.view(np.uint8), connectivity=8)
    sums = np.bincount(labels[inside], weights=probabilities[window][inside], minlength=count)
    # Label 0 is what lies between the objects; it may hold no pixel at all.
    objects = 1 + np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] >= min_area_px)
    scores = sums[objects] / stats[objects, cv2.CC_STAT_AREA]
    # No prompt can keep more than all together: with a noisy mask this saves making thousands in vain.
    best = np.argsort(-scores, kind="stable")[:MAX_REGIONS]
    return [
        _Component(prompt, float(score), labels, int(label), (x, y), stats[label], centroids[label])
        for score, label in zip(scores[best], objects[best])
    ]


def _to_region(component: _Component, id: int, shape: tuple[int, int]) -> ObjectRegion:
    """Brings a component from its window to an image of ``shape`` (H, W)."""
    left, top, width, height, area = component.stats.tolist()
    x, y = component.window_px
    box = (left + x, top + y, left + x + width, top + y + height)
    mask = np.zeros(shape, np.bool_)
    crop = component.labels[top : top + height, left : left + width]
    mask[window_of(box)] = crop == component.label
    return ObjectRegion(
        prompt=component.prompt,
        id=id,
        score=component.score,
        mask=mask,
        box_px=box,
        centroid_px=(float(component.centroid[0]) + x, float(component.centroid[1]) + y),
        area_px=area,
    )
