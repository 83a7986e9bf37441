# SPDX-License-Identifier: Apache-2.0
"""Changes images together with their objects, for training detectors."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from clip_seg_ros.data.rendered_instances import mask_boxes
from clip_seg_ros.data.samples import InstanceSample
from clip_seg_ros.models.spec import InputSpec
from clip_seg_ros.training.augment import photometric_distortion


@dataclass(frozen=True)
class InstanceViews:
    """What is done to each sample, at random. The defaults are those of DenseCLIP's authors for COCO."""

    size_px: int | None = None
    """The short side to which an image is resized, unless its long side would be too long; by default the model's."""
    long_side_px: int | None = None
    """The largest long side; by default the model's."""
    scales: tuple[float, float] = (1.0, 1.0)
    """The least and the largest factor on this size; one is drawn for each sample."""
    crop_px: int | None = None
    """The side of the square that is cut out of larger images; ``None``: the image is not cut."""
    mirrored: float = 0.5
    """The share of samples that are mirrored, 0..1."""
    recolored: bool = False
    """Whether brightness, contrast, saturation and hue change, as in ``augment.photometric_distortion``."""

    def __post_init__(self) -> None:
        size, limit = self.size_px or 1, self.long_side_px or math.inf
        if not 0 < size <= limit:
            raise ValueError(f"size_px must lie in 1..{limit}, the largest long side, got {size}")
        if not 0 < self.scales[0] <= self.scales[1]:
            raise ValueError(f"scales must be two factors above 0, the smaller one first, got {self.scales}")
        if not 0.0 <= self.mirrored <= 1.0:
            raise ValueError(f"mirrored must lie in 0..1, got {self.mirrored}")
        if self.crop_px is not None and self.crop_px < 1:
            raise ValueError(f"crop_px must be at least 1, got {self.crop_px}")

    def for_model(self, spec: InputSpec) -> InstanceViews:
        """Returns the same with the model's sizes where there are none."""
        return replace(
            self, size_px=self.size_px or spec.size, long_side_px=self.long_side_px or spec.long_side_limit or None
        )

    def of(self, sample: InstanceSample, rng: np.random.Generator) -> InstanceSample:
        """Returns a view of a sample; objects that it does not show are left out. Without a size, it keeps its own."""
        sides = sample.rgb.shape[:2]
        scale = 1.0 if self.size_px is None else self.size_px / min(sides)
        if self.long_side_px is not None:
            scale = min(scale, self.long_side_px / max(sides))
        sample = resized(sample, scale * rng.uniform(*self.scales))
        if self.crop_px is not None:
            sample = cut(sample, rng, self.crop_px)
        if rng.random() < self.mirrored:
            sample = mirrored(sample)
        if self.recolored:
            sample = replace(sample, rgb=photometric_distortion(sample.rgb, rng))
        return sample


def resized(sample: InstanceSample, scale: float) -> InstanceSample:
    """Resizes images bilinearly and masks by nearest pixels; sides are rounded, and at least 1 pixel long."""
    height, width = sample.rgb.shape[:2]
    size = (max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5)))
    factors = np.array([size[0] / width, size[1] / height] * 2, np.float32)
    masks = sample.masks
    if masks is not None:
        parts = [cv2.resize(mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST) for mask in masks]
        masks = np.array(parts, np.uint8).reshape(-1, size[1], size[0]).view(bool)
    return replace(
        sample,
        rgb=cv2.resize(sample.rgb, size, interpolation=cv2.INTER_LINEAR),
        boxes_px=sample.boxes_px * factors,
        masks=masks,
        areas_px=sample.areas_px * factors[0] * factors[1],
    )


def cut(sample: InstanceSample, rng: np.random.Generator, side_px: int) -> InstanceSample:
    """Cuts out a square at random, or less of a smaller image."""
    height, width = sample.rgb.shape[:2]
    top = int(rng.integers(max(height - side_px, 0) + 1))
    left = int(rng.integers(max(width - side_px, 0) + 1))
    return windowed(sample, (slice(top, min(top + side_px, height)), slice(left, min(left + side_px, width))))


def windowed(sample: InstanceSample, window: tuple[slice, slice]) -> InstanceSample:
    """Cuts the window (rows, columns) out of a sample.

    What remains of an object has the box around the rest of its mask or, without masks, the rest of its box.
    """
    rows, columns = window
    height, width = rows.stop - rows.start, columns.stop - columns.start
    offset = np.array([columns.start, rows.start] * 2, np.float32)
    boxes = np.clip(sample.boxes_px - offset, 0, np.array([width, height] * 2, np.float32))
    before = (sample.boxes_px[:, 2:] - sample.boxes_px[:, :2]).prod(axis=1)
    areas = sample.areas_px * (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) / np.maximum(before, 1e-6)
    masks = sample.masks
    if masks is not None:
        masks = masks[:, rows, columns]
        areas = masks.sum(axis=(1, 2)).astype(np.float32)
        boxes = mask_boxes(masks)
    left = areas > 0
    return InstanceSample(
        rgb=sample.rgb[rows, columns],
        labels=sample.labels[left],
        boxes_px=boxes[left],
        masks=None if masks is None else masks[left],
        areas_px=areas[left],
        crowd=sample.crowd[left],
        name=sample.name,
    )


def mirrored(sample: InstanceSample) -> InstanceSample:
    """Exchanges left and right."""
    width = sample.rgb.shape[1]
    boxes = sample.boxes_px.copy()
    boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    masks = None if sample.masks is None else np.ascontiguousarray(sample.masks[:, :, ::-1])
    return replace(sample, rgb=np.ascontiguousarray(sample.rgb[:, ::-1]), boxes_px=boxes, masks=masks)
