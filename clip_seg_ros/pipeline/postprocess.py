# SPDX-License-Identifier: Apache-2.0
"""Probabilities -> masks -> regions -> label image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from clip_seg_ros.pipeline.parts import parts_of
from clip_seg_ros.types import MaskSet, ObjectRegion, ProbabilityMaps

MAX_REGIONS = 255
"""Ids must fit the label image: 1..255, and 0 for no object."""


SCRAP_SHARE = 0.02
"""A part of a mask that is smaller than this share of the prompt's largest object is a scrap and no object."""
HOLE_SHARE = 0.02
"""A hole that is smaller than this share of the object is filled. The hole of a cup's handle is larger."""


@dataclass(frozen=True)
class _Component:
    """A connected part of one prompt's mask, before it is known whether it is among the best."""

    prompt: str
    score: float
    inside: np.ndarray
    """(H, W) bool, the mask of the prompt."""
    numbers: np.ndarray
    """(rows, W) uint8, some rows of the image; the part's pixels have the value ``number``."""
    number: int
    first_row: int
    """The first of these rows."""
    box_px: tuple[int, int, int, int]
    """In the image."""
    centroid_px: np.ndarray
    """(2,) float64: x, y in the image."""
    area_px: int


def masks(maps: ProbabilityMaps, threshold: float) -> MaskSet:
    """Makes masks: a pixel is inside where its probability is strictly greater than ``threshold``, 0..1.

    A pixel whose probability is NaN is outside.

    Raises:
        ValueError: The threshold is out of range.
    """
    if not 0.0 <= threshold <= 1.0:
        raise ValueError(f"threshold must lie in 0..1, got {threshold}")
    return MaskSet(maps.prompts, maps.values > threshold, threshold)


def regions(maps: ProbabilityMaps, mask_set: MaskSet, min_area_px: int = 1, tidy: bool = False) -> list[ObjectRegion]:
    """Splits each prompt's mask into connected objects; parts that touch at a corner are one object.

    Args:
        maps: The probabilities. A region's score is their mean over its mask.
        mask_set: The masks that were made from ``maps``.
        min_area_px: Smaller regions are left out.
        tidy: Whether to leave out the scraps of a prompt's mask (``SCRAP_SHARE``) and to fill the small holes of its
            objects (``HOLE_SHARE``). Filled pixels do not change the scores.

    Returns:
        At most 255 regions, the one with the best score first, with ids 1, 2, ... in that order; equal scores keep the
        order of the prompts. Of more than 255, those with the lowest scores are left out. Regions of different prompts
        may share pixels.

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
        for component in _components(prompt, mask, probabilities, min_area_px, SCRAP_SHARE if tidy else 0.0)
    ]
    found.sort(key=lambda component: -component.score)  # stable
    shape = maps.values.shape[1:]
    hole_share = HOLE_SHARE if tidy else 0.0
    return [_to_region(component, id, shape, hole_share) for id, component in enumerate(found[:MAX_REGIONS], start=1)]


def tidied(maps: ProbabilityMaps, mask_set: MaskSet) -> MaskSet:
    """Returns the masks without scraps and small holes, as ``regions`` makes them with ``tidy``."""
    values = np.zeros_like(mask_set.values)
    for region in regions(maps, mask_set, tidy=True):
        window = window_of(region.box_px)
        values[mask_set.prompts.index(region.prompt)][window] |= region.mask[window]
    return MaskSet(mask_set.prompts, values, mask_set.threshold)


def label_image(regions: Sequence[ObjectRegion], shape: tuple[int, int]) -> np.ndarray:
    """Draws the ids of regions into a label image.

    A pixel that several regions share gets the id with the highest score; with equal scores, the lowest id.

    Args:
        regions: The regions of one image.
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
    """Returns the (rows, columns) of a box (x_min, y_min, x_max, y_max) whose maxima are exclusive."""
    x_min, y_min, x_max, y_max = box_px
    return slice(y_min, y_max), slice(x_min, x_max)


def _components(
    prompt: str, mask: np.ndarray, probabilities: np.ndarray, min_area_px: int, scrap_share: float
) -> list[_Component]:
    """Finds the connected parts of one (H, W) mask, without a pass over the whole image for each of them."""
    _, first_row, width, height = cv2.boundingRect(mask.view(np.uint8))
    if width == 0:
        return []
    rows = slice(first_row, first_row + height)
    parts = parts_of(mask[rows].view(np.uint8), probabilities[rows])
    objects = np.flatnonzero(parts.label)
    areas = parts.area[objects]
    objects = objects[areas >= max(min_area_px, scrap_share * areas.max())]
    # No prompt keeps more than all together may: with a noisy mask this saves thousands of useless components.
    objects = objects[np.argsort(-parts.value[objects], kind="stable")][:MAX_REGIONS]
    number_of = np.zeros(len(parts.area), np.uint8)
    number_of[objects] = np.arange(1, len(objects) + 1)
    numbers = parts.numbered(number_of)
    boxes, centroids = parts.boxes(objects), parts.centroids(objects)
    boxes[:, 1::2] += first_row
    centroids[:, 1] += first_row
    return [
        _Component(prompt, float(value), mask, numbers, number, first_row, tuple(box.tolist()), centroid, int(area))
        for number, (value, area, box, centroid) in enumerate(
            zip(parts.value[objects], parts.area[objects], boxes, centroids), start=1
        )
    ]


def _to_region(component: _Component, id: int, shape: tuple[int, int], hole_share: float) -> ObjectRegion:
    """Brings a component to an image of ``shape`` (H, W), with its smaller holes filled."""
    left, top, right, bottom = box = component.box_px
    window, area, centroid = window_of(box), component.area_px, component.centroid_px
    mask = np.zeros(shape, np.bool_)
    inside = mask[window]
    numbers = component.numbers[top - component.first_row : bottom - component.first_row, left:right]
    np.equal(numbers, component.number, out=inside)
    if hole_share and (holes := _small_holes(inside, hole_share * area)) is not None:
        # Other objects of the prompt may lie in a hole.
        holes &= ~component.inside[window]
        rows, columns = np.nonzero(holes)
        inside |= holes
        total = np.array([columns.sum() + left * len(rows), rows.sum() + top * len(rows)])
        centroid = (centroid * area + total) / (area + len(rows))
        area += len(rows)
    return ObjectRegion(
        prompt=component.prompt,
        id=id,
        score=component.score,
        mask=mask,
        box_px=box,
        centroid_px=(float(centroid[0]), float(centroid[1])),
        area_px=area,
    )


def _small_holes(inside: np.ndarray, limit_px: float) -> np.ndarray | None:
    """Returns (h, w) bool, the holes of at most ``limit_px`` pixels in one object; ``None`` where there are none."""
    contours, hierarchy = cv2.findContours(
        np.ascontiguousarray(inside).view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    # The fourth of a contour's links is its parent, and only contours of holes have one. They run through the object's
    # pixels, so that they enclose a little more than the hole.
    holes = [contour for contour, links in zip(contours, hierarchy[0]) if links[3] >= 0]
    filled = np.zeros(inside.shape, np.uint8)
    for contour in holes:
        left, top, width, height = cv2.boundingRect(contour)
        window = window_of((left, top, left + width, top + height))
        if (width - 2) * (height - 2) > 4 * limit_px:
            continue
        one = np.zeros((height, width), np.uint8)
        cv2.drawContours(one, [contour], -1, 1, cv2.FILLED, offset=(-left, -top))
        one &= ~inside[window].view(np.uint8) & 1
        if np.count_nonzero(one) <= limit_px:
            filled[window] |= one
    return filled.view(np.bool_) if filled.any() else None
