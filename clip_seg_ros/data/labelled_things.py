# SPDX-License-Identifier: Apache-2.0
"""The regions of label images as objects, for detectors where nobody told objects of one class apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from clip_seg_ros.data.rendered_instances import mask_boxes
from clip_seg_ros.data.samples import DataError, InstanceSample, SemanticDataset

SMALLEST_PX = 40
"""Regions of fewer pixels are neither learnt nor measured: most are remains of what stands behind something else."""


class LabelledThings:
    """An ``InstanceDataset``: every connected region of a countable class is an object.

    Objects of one class that touch are one object to it, and the parts of one that something hides are several.
    """

    def __init__(self, pictures: SemanticDataset, things: Sequence[str]) -> None:
        """Chooses the classes.

        Args:
            pictures: Images with a class for every pixel.
            things: The classes whose regions are objects, in their order.

        Raises:
            DataError: A class does not exist or is named twice, or there is none.
        """
        lacking = [name for name in things if name not in pictures.class_names]
        if not things or lacking:
            which = f"has no class {lacking[0]}" if lacking else "needs at least one class of things"
            raise DataError(f"the data set {which}; its classes are {', '.join(pictures.class_names)}")
        if len(set(things)) < len(things):
            raise DataError(f"things names a class twice: {', '.join(things)}")
        self.class_names = tuple(things)
        self._pictures = pictures
        self._numbers = [pictures.class_names.index(name) for name in things]

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> InstanceSample:
        """Reads an image and its objects, those below ``SMALLEST_PX`` as ``crowd``; raises what the data set raises."""
        sample = self._pictures[index]
        found = [
            (label, mask) for label, number in enumerate(self._numbers) for mask in _regions(sample.labels, number)
        ]
        masks = np.array([mask for _, mask in found], bool).reshape(-1, *sample.labels.shape)
        areas = masks.sum((1, 2), dtype=np.float32)
        return InstanceSample(
            rgb=sample.rgb,
            labels=np.array([label for label, _ in found], np.int64),
            boxes_px=mask_boxes(masks),
            masks=masks,
            areas_px=areas,
            crowd=areas < SMALLEST_PX,
            name=sample.name,
        )


def _regions(labels: np.ndarray, number: int) -> Iterator[np.ndarray]:
    """Yields the mask of each region, whose pixels touch at a side or a corner."""
    count, regions = cv2.connectedComponents((labels == number).astype(np.uint8), connectivity=8)
    return (regions == region for region in range(1, count))
