# SPDX-License-Identifier: Apache-2.0
"""The objects of rendered scenes, one by one, as samples for detectors."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from clip_seg_ros.data.samples import InstanceSample
from clip_seg_ros.data.tabletop import TabletopScenes
from clip_seg_ros.sim.renderer import RenderedView
from clip_seg_ros.sim.scene import KINDS

MIN_SHARE = 0.001
"""Objects of which less than this share of the image is visible are neither learnt nor measured."""


def instance_sample(
    rgb: np.ndarray, labels: np.ndarray, kinds: Sequence[str], name: str, classes: Sequence[str] = KINDS
) -> InstanceSample:
    """Makes a sample of an image with a label for each object.

    Args:
        rgb: (H, W, 3) uint8.
        labels: (H, W) uint8: 0 = no object, otherwise 1 + index in ``kinds``.
        kinds: The kind of each object, of ``classes``.
        name: Name of the sample.
        classes: The kinds in the order of their labels in the sample.

    Returns:
        The visible objects in the order of ``kinds``. Those below ``MIN_SHARE`` count as ``crowd``.
    """
    areas = np.bincount(labels.ravel(), minlength=len(kinds) + 1)[1:]
    seen = np.flatnonzero(areas)
    masks = labels[None] == (seen + 1)[:, None, None]
    return InstanceSample(
        rgb=rgb,
        labels=np.array([classes.index(kinds[index]) for index in seen], np.int64),
        boxes_px=mask_boxes(masks),
        masks=masks,
        areas_px=areas[seen].astype(np.float32),
        crowd=areas[seen] < MIN_SHARE * labels.size,
        name=name,
    )


def mask_boxes(masks: np.ndarray) -> np.ndarray:
    """Returns the boxes (N, 4) float32 around masks (N, H, W) bool; those of empty masks have no area."""
    boxes = [cv2.boundingRect(np.ascontiguousarray(mask).view(np.uint8)) for mask in masks]
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return corners


def view_instances(view: RenderedView, name: str) -> InstanceSample:
    """Returns the objects of a rendered image."""
    return instance_sample(view.rgb, view.labels, [item.kind for item in view.objects], name)


class RenderedInstances:
    """Rendered training scenes as an ``InstanceDataset``."""

    class_names = KINDS

    def __init__(self, scenes: TabletopScenes) -> None:
        self._scenes = scenes

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, index: int) -> InstanceSample:
        kinds = [kind for _, kind in self._scenes.objects[index]]
        return instance_sample(self._scenes.rgb[index], self._scenes.labels[index], kinds, f"scene {index}")
