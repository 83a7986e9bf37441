# SPDX-License-Identifier: Apache-2.0
"""The augmentations of the papers, on samples as the data sets yield them.

DenseCLIP's augmentations are those of its authors' framework; ``semantic_view`` applies all of them in their order.
CRIS trains on images without augmentation, inside a square: ``letterboxed``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from clip_seg_ros.data.samples import IGNORED, ReferringSample, SemanticSample
from clip_seg_ros.models.spec import CLIP_MEAN
from clip_seg_ros.pipeline.letterbox import mask_to_square, to_square

_CROP_TRIES = 10


def semantic_view(
    sample: SemanticSample,
    rng: np.random.Generator,
    crop_px: int = 512,
    fit_px: tuple[int, int] = (2048, 512),
    fill: Sequence[float] = CLIP_MEAN,
) -> SemanticSample:
    """Scales, crops, mirrors and recolours a sample at random, and pads it to a square, as in DenseCLIP's training.

    Args:
        sample: The sample, of any size.
        rng: The source of all random numbers.
        crop_px: The side of the result.
        fit_px: The (long, short) side to which the image is fitted before the random scale.
        fill: The colour of the padding, 0..1; the mean colour is 0 for the model.
    """
    sample = random_scale(sample, rng, fit_px)
    sample = random_crop(sample, rng, crop_px)
    sample = random_flip(sample, rng)
    sample = replace(sample, rgb=photometric_distortion(sample.rgb, rng))
    return fill_up(sample, crop_px, fill)


def random_scale(
    sample: SemanticSample,
    rng: np.random.Generator,
    fit_px: tuple[int, int] = (2048, 512),
    ratios: tuple[float, float] = (0.5, 2.0),
) -> SemanticSample:
    """Resizes the image to fit into ``fit_px`` (long, short side) times a ratio drawn evenly from ``ratios``.

    The aspect ratio stays. Images are resized bilinearly, labels by nearest pixels.
    """
    ratio = rng.uniform(*ratios)
    height, width = sample.labels.shape
    scale = ratio * min(max(fit_px) / max(height, width), min(fit_px) / min(height, width))
    size = (max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5)))
    rgb = cv2.resize(sample.rgb, size, interpolation=cv2.INTER_LINEAR)
    labels = cv2.resize(sample.labels, size, interpolation=cv2.INTER_NEAREST)
    return replace(sample, rgb=rgb, labels=labels)


def random_crop(sample: SemanticSample, rng: np.random.Generator, crop_px: int, most: float = 0.75) -> SemanticSample:
    """Cuts out a square, or less in a smaller image.

    A cut is drawn again, at most ten times, if one class covers at least ``most`` of its labelled pixels, or if it has
    only one class.
    """
    height, width = sample.labels.shape
    for _ in range(_CROP_TRIES + 1):
        top = int(rng.integers(max(height - crop_px, 0) + 1))
        left = int(rng.integers(max(width - crop_px, 0) + 1))
        window = (slice(top, top + crop_px), slice(left, left + crop_px))
        areas = np.bincount(sample.labels[window].ravel(), minlength=256)
        areas[IGNORED] = 0
        if np.count_nonzero(areas) > 1 and areas.max() < most * areas.sum():
            break
    return replace(sample, rgb=sample.rgb[window], labels=sample.labels[window])


def random_flip(sample: SemanticSample, rng: np.random.Generator) -> SemanticSample:
    """Mirrors a sample horizontally with a probability of one half."""
    if rng.random() < 0.5:
        return sample
    return replace(
        sample, rgb=np.ascontiguousarray(sample.rgb[:, ::-1]), labels=np.ascontiguousarray(sample.labels[:, ::-1])
    )


def photometric_distortion(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Changes brightness, contrast, saturation and hue, each with a probability of one half.

    Brightness changes by -32..32 grey levels, contrast and saturation by factors of 0.5 to 1.5, and hue by up to 18 of
    180 steps. Contrast comes second or last, at random.

    Args:
        rgb: (H, W, 3) uint8.
        rng: The source of all random numbers.

    Returns:
        (H, W, 3) uint8.
    """
    if rng.random() < 0.5:
        rgb = _linear(rgb, 1.0, rng.uniform(-32, 32))
    contrast_last = rng.random() < 0.5
    if not contrast_last and rng.random() < 0.5:
        rgb = _linear(rgb, rng.uniform(0.5, 1.5), 0.0)
    if rng.random() < 0.5:
        hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
        hsv[..., 1] = _linear(hsv[..., 1], rng.uniform(0.5, 1.5), 0.0)
        rgb = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if rng.random() < 0.5:
        hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + int(rng.integers(-18, 18))) % 180
        rgb = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if contrast_last and rng.random() < 0.5:
        rgb = _linear(rgb, rng.uniform(0.5, 1.5), 0.0)
    return rgb


def _linear(values: np.ndarray, factor: float, offset: float) -> np.ndarray:
    return np.clip(values.astype(np.float32) * factor + offset, 0, 255).astype(np.uint8)


def fill_up(sample: SemanticSample, size_px: int, fill: Sequence[float] = CLIP_MEAN) -> SemanticSample:
    """Pads a sample at the right and the bottom to a square, with the colour ``fill`` (0..1) and without a class.

    Raises:
        ValueError: The sample is larger than the square.
    """
    height, width = sample.labels.shape
    if max(height, width) > size_px:
        raise ValueError(f"a {width}x{height} sample does not fit a square of {size_px} pixels: crop it first")
    rgb = np.empty((size_px, size_px, 3), np.uint8)
    rgb[:] = np.round(255 * np.array(fill))
    labels = np.full((size_px, size_px), IGNORED, np.uint8)
    rgb[:height, :width], labels[:height, :width] = sample.rgb, sample.labels
    return replace(sample, rgb=rgb, labels=labels)


def letterboxed(
    sample: ReferringSample, size_px: int = 416, fill: Sequence[float] = CLIP_MEAN
) -> tuple[np.ndarray, np.ndarray]:
    """Fits a sample into a square as CRIS does, in training and in use.

    Returns:
        The image (size_px, size_px, 3) uint8, and the mask (size_px, size_px) float32 of 0..1.
    """
    return to_square(sample.rgb, size_px, fill), mask_to_square(sample.mask, size_px)
