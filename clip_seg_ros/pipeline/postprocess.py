# SPDX-License-Identifier: Apache-2.0
"""Probabilities -> masks -> regions -> label image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from clip_seg_ros.pipeline.parts import Parts, drawn, in_small_holes, in_window, parts_of
from clip_seg_ros.pipeline.runs import Runs, runs_of_masks
from clip_seg_ros.types import MaskSet, ObjectRegion, ProbabilityMaps

MAX_REGIONS = 255
"""Ids must fit the label image: 1..255, and 0 for no object."""


SCRAP_SHARE = 0.02
"""A part of a mask that is smaller than this share of the prompt's largest object is a scrap and no object."""
HOLE_SHARE = 0.02
"""A hole that is smaller than this share of the object is filled. The hole of a cup's handle is larger."""


def masks(maps: ProbabilityMaps, threshold: float) -> MaskSet:
    """Makes masks: a pixel is inside where its probability is strictly greater than ``threshold``, 0..1.

    A pixel whose probability is NaN is outside.

    Raises:
        ValueError: The threshold is out of range.
    """
    require_threshold(threshold)
    return MaskSet(maps.prompts, maps.values > threshold, threshold)


def require_threshold(threshold: float) -> None:
    """Raises ValueError if a threshold is no probability."""
    if not 0.0 <= threshold <= 1.0:
        raise ValueError(f"threshold must lie in 0..1, got {threshold}")


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
    return regions_of(runs_of_masks(mask_set.values, maps.values), maps.prompts, min_area_px, tidy)


def regions_of(runs: Runs, prompts: Sequence[str], min_area_px: int = 1, tidy: bool = False) -> list[ObjectRegion]:
    """Splits the runs of each prompt's mask into connected objects, as ``regions`` does with the masks.

    Args:
        runs: The runs of all masks, labelled with the index of the prompt, with the sums of the probabilities.
        prompts: The prompts.
        min_area_px: As in ``regions``.
        tidy: As in ``regions``.
    """
    parts = parts_of(runs)
    if not len(parts):
        return []
    least = np.full(len(prompts), float(min_area_px))
    if tidy:
        largest = np.zeros(len(prompts))
        np.maximum.at(largest, parts.label, parts.area)
        least = np.maximum(least, SCRAP_SHARE * largest)
    found = np.flatnonzero(parts.area >= least[parts.label])
    # Equal scores keep the order of the prompts, and then that of the first pixels.
    found = found[np.argsort(-parts.value[found], kind="stable")][:MAX_REGIONS]
    return objects_of(parts, found, prompts, HOLE_SHARE if tidy else 0.0)


def tidied(maps: ProbabilityMaps, mask_set: MaskSet) -> MaskSet:
    """Returns the masks without scraps and small holes, as ``regions`` makes them with ``tidy``."""
    values = np.zeros_like(mask_set.values)
    for region in regions(maps, mask_set, tidy=True):
        values[mask_set.prompts.index(region.prompt)][region.window] |= region.inside
    return MaskSet(mask_set.prompts, values, mask_set.threshold)


class InWindow(Protocol):
    """Something that has a mask in the window of a box, such as an ``ObjectRegion``."""

    @property
    def inside(self) -> np.ndarray:
        """(h, w) bool."""

    @property
    def box_px(self) -> tuple[int, int, int, int]:
        """(x_min, y_min, x_max, y_max); the maxima are exclusive."""


def shared_px(one: InWindow, other: InWindow, shift: tuple[int, int] = (0, 0)) -> int:
    """Returns how many pixels two masks share after the first is moved by ``shift`` (x, y)."""
    x0, y0, x1, y1 = (edge + shift[axis % 2] for axis, edge in enumerate(one.box_px))
    u0, v0, u1, v1 = other.box_px
    left, top, right, bottom = max(x0, u0), max(y0, v0), min(x1, u1), min(y1, v1)
    if left >= right or top >= bottom:
        return 0
    a = one.inside[top - y0 : bottom - y0, left - x0 : right - x0]
    b = other.inside[top - v0 : bottom - v0, left - u0 : right - u0]
    return int(np.count_nonzero(a & b))


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
        if region.image_size != labels.shape:
            raise ValueError(f"region {region.id} is from an image of {region.image_size}, this one has {labels.shape}")
        np.copyto(labels[region.window], np.uint8(region.id), where=region.inside)
    return labels


def objects_of(parts: Parts, chosen: np.ndarray, names: Sequence[str], hole_share: float = 0.0) -> list[ObjectRegion]:
    """Makes objects of parts.

    Args:
        parts: The parts.
        chosen: (n,) int64, their numbers, best first; n is at most ``MAX_REGIONS``.
        names: What the labels of the parts mean.
        hole_share: Holes of at most this share of an object's area are filled.

    Returns:
        The objects, with ids 1, 2, ... in the order of ``chosen``.
    """
    # As plain numbers at once: an image may have hundreds of objects, and NumPy's take time each by each.
    figures = (parts.label, parts.value, parts.area, parts.boxes, parts.centroids)
    filled = _filled(parts, chosen[parts.holes[chosen] > 0], hole_share) if hole_share else {}
    objects: list[ObjectRegion] = []
    for part, label, score, area, box, centroid in zip(
        chosen.tolist(), *(values[chosen].tolist() for values in figures)
    ):
        if part in filled:
            rows, lefts, rights = filled[part]
            lengths = rights - lefts
            area = int(lengths.sum())
            centroid = float(np.dot(lengths, lefts + rights - 1)) / (2 * area), float(np.dot(lengths, rows)) / area
            spans = in_window(rows, lefts, rights, box)
        else:
            spans = parts.in_window(part)
        objects.append(
            ObjectRegion(
                prompt=names[label],
                id=len(objects) + 1,
                score=score,
                inside=drawn(*spans, box),
                box_px=tuple(box),
                centroid_px=tuple(centroid),
                area_px=area,
                image_size=parts.runs.size,
            )
        )
    return objects


def _filled(parts: Parts, chosen: np.ndarray, hole_share: float) -> dict[int, tuple[np.ndarray, ...]]:
    """Returns the runs of those of the ``chosen`` parts that have small holes, without these holes.

    They are sorted as ``Parts.runs_of`` does, by the number of the part.
    """
    if not len(chosen):
        return {}
    spans = [parts.runs_of(part) for part in chosen.tolist()]
    counts = [len(rows) for rows, _, _ in spans]
    number = np.repeat(np.arange(len(chosen)), counts)
    rows, lefts, rights = (np.concatenate(each) for each in zip(*spans))
    is_small = in_small_holes(number, rows, lefts, rights, parts.runs.size, hole_share * parts.area[chosen])
    inner = (np.flatnonzero(each) for each in np.split(is_small, np.cumsum(counts[:-1])))
    return {part: _with_gaps(parts, part, after) for part, after in zip(chosen.tolist(), inner) if len(after)}


def _with_gaps(parts: Parts, part: int, inner: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the runs of a part and those of the gaps after its runs ``inner``, sorted, as ``Parts.runs_of`` does."""
    runs, chosen = parts.runs, parts.indices_of(part)
    # Other objects of the prompt may lie in a hole: its pixels are between all runs from one to the next.
    between = np.concatenate([np.arange(chosen[k], chosen[k + 1]) for k in inner] or [chosen[:0]])
    gaps = runs.row_in_image[between], runs.right[between], runs.left[between + 1]
    rows, lefts, rights = (np.concatenate(both) for both in zip(parts.runs_of(part), gaps))
    order = np.lexsort((lefts, rows))
    return rows[order], lefts[order], rights[order]
