# SPDX-License-Identifier: Apache-2.0
"""The objects that a detector finds, at the size of the camera's image: each with a mask in its own window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from clip_seg_ros.models.detections import Detections, in_window
from clip_seg_ros.pipeline.class_labels import UNLABELLED, ClassMap
from clip_seg_ros.pipeline.postprocess import MAX_REGIONS, shared_px
from clip_seg_ros.pipeline.preprocess import Geometry
from clip_seg_ros.types import ObjectRegion, window_of

MASK_THRESHOLD = 0.5
"""A pixel belongs to an object above this probability."""
SAME_OBJECT = 0.6
"""Two answers whose masks have at least this IoU are one object, whatever their classes are."""


@dataclass(frozen=True)
class Instance:
    """One object that a detector found."""

    name: str
    """Its class."""
    score: float
    """How sure the detector is, 0..1."""
    box: tuple[float, float, float, float]
    """(x_min, y_min, x_max, y_max) of the detector's box; the first pixel reaches from 0 to 1."""
    box_px: tuple[int, int, int, int]
    """(x_min, y_min, x_max, y_max) of the mask; the maxima are exclusive."""
    inside: np.ndarray
    """(h, w) bool, the mask in the window of ``box_px``, with at least one pixel; a model without masks fills it."""
    image_size: tuple[int, int]
    """(H, W) of the image."""

    def region(self, id: int) -> ObjectRegion:
        """Returns the object with an id, 1..255."""
        rows, columns = np.nonzero(self.inside)
        centroid = (float(columns.mean()) + self.box_px[0], float(rows.mean()) + self.box_px[1])
        return ObjectRegion(
            self.name, id, self.score, self.inside, self.box_px, centroid, len(rows), image_size=self.image_size
        )


def instances_of(
    found: Detections, class_names: Sequence[str], geometry: Geometry, least_score: float
) -> list[Instance]:
    """Brings a model's objects to the size of the image.

    Args:
        found: The objects in the model's image.
        class_names: What their labels mean.
        geometry: How the image was resized for the model.
        least_score: Objects with a lower score are left out, 0..1.

    Returns:
        The objects with at least one pixel, the best first.
    """
    (height, width), (model_height, model_width) = geometry.source_size, geometry.model_size
    factors = torch.tensor([width / model_width, height / model_height] * 2)
    boxes, masks = found.boxes.float().cpu() * factors, None if found.masks is None else found.masks.float().cpu()
    objects = []
    for place, (score, label) in enumerate(zip(found.scores.tolist(), found.labels.tolist(), strict=True)):
        if score < least_score:
            continue
        mask = None if masks is None else masks[place]
        if mask is not None and found.of_image:
            window = (slice(0, height), slice(0, width))
            shares = F.interpolate(mask[None, None], size=(height, width), mode="bilinear", align_corners=False)[0, 0]
        else:
            window, shares = in_window(mask, boxes[place], geometry.source_size)
        tight = _tightened(window, shares.numpy() > MASK_THRESHOLD)
        if tight is not None:
            box = tuple(boxes[place].tolist())
            objects.append(Instance(class_names[label], score, box, *tight, geometry.source_size))
    return objects


def _tightened(window: tuple[slice, slice], inside: np.ndarray) -> tuple[tuple[int, int, int, int], np.ndarray] | None:
    """Returns the box around the mask's pixels and the mask in it; ``None`` if it has none."""
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    part = inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    top, left = window[0].start + int(rows[0]), window[1].start + int(columns[0])
    return (left, top, left + part.shape[1], top + part.shape[0]), part.copy()


def distinct(objects: Sequence[Instance], overlap: float = SAME_OBJECT) -> list[Instance]:
    """Leaves out answers that mean the same object as a better one, for example with another class.

    Args:
        objects: The objects, the best first.
        overlap: The least IoU of masks that mean one object, 0..1.
    """
    kept: list[Instance] = []
    areas: list[int] = []
    for item in objects:
        area = int(np.count_nonzero(item.inside))
        if all(_iou(shared_px(item, other), area, size) < overlap for other, size in zip(kept, areas)):
            kept.append(item)
            areas.append(area)
    return kept


def distinct_of_each(objects: Sequence[Instance]) -> tuple[Instance, ...]:
    """Leaves out answers that mean the same object as a better one of the same name.

    No name takes objects from another one, so that it does not matter what else is asked.

    Args:
        objects: The objects, the best first.
    """
    names = dict.fromkeys(item.name for item in objects)
    kept = [item for name in names for item in distinct([each for each in objects if each.name == name])]
    return tuple(sorted(kept, key=lambda item: -item.score))


def _iou(shared: int, one: int, other: int) -> float:
    return shared / (one + other - shared)


def class_map_of(objects: Sequence[Instance], names: Sequence[str], size: tuple[int, int]) -> ClassMap:
    """Gives every pixel the class of the best object that covers it; all other pixels are unlabelled.

    Args:
        objects: Objects of these classes, the best first.
        names: The classes.
        size: (H, W) of the image.
    """
    labels, best = np.full(size, UNLABELLED, np.uint8), np.zeros(size, np.float32)
    for item in reversed(objects):
        window = window_of(item.box_px)
        np.copyto(labels[window], np.uint8(names.index(item.name)), where=item.inside)
        np.copyto(best[window], np.float32(item.score), where=item.inside)
    regions = tuple(item.region(number) for number, item in enumerate(objects[:MAX_REGIONS], start=1))
    return ClassMap(tuple(names), labels, best, False, np.zeros(0, np.int64), np.zeros(0, np.float32), regions)
