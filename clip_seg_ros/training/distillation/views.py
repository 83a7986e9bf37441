# SPDX-License-Identifier: Apache-2.0
"""The views of images on which a student is trained."""

from __future__ import annotations

import cv2
import numpy as np

from clip_seg_ros.data.samples import IGNORED
from clip_seg_ros.models.student.model import MULTIPLE

SCALES = (0.75, 1.5)
"""The range of the short side in training, relative to the student's own."""
_AIMED_SHARE = 0.75


def crop_side(short_side: int) -> int:
    """Returns the side of the square views for training in pixels: two thirds of the student's short side."""
    return max(MULTIPLE, short_side * 2 // 3 // MULTIPLE * MULTIPLE)


def random_view(
    rgb: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    short_side: int,
    side: int,
    scales: tuple[float, float] = SCALES,
) -> tuple[np.ndarray, np.ndarray]:
    """Crops a square from an image at a random scale and place, and mirrors half of the squares.

    Three squares in four contain a pixel of a class that is drawn uniformly from the classes in the image; otherwise,
    small objects would hardly be seen.

    Args:
        rgb: Image (H, W, 3) uint8.
        labels: Labels (H, W) uint8, ``IGNORED`` for no class.
        rng: Generator of the random numbers.
        short_side: Short side of the student's input in pixels.
        side: Side of the square in pixels. An image that is narrower is made larger.
        scales: The short side of the image becomes ``short_side`` times a number that is drawn from this range.

    Returns:
        The square of the image, (side, side, 3), and that of the labels, (side, side), both uint8.
    """
    height, width = rgb.shape[:2]
    scale = short_side * rng.uniform(*scales) / min(height, width)
    window = min(max(1, round(side / scale)), height, width)
    corner = rng.integers([height - window + 1, width - window + 1])
    if rng.random() < _AIMED_SHARE and (aim := _aim(labels, rng)) is not None:
        corner = np.clip(aim - rng.integers(window, size=2), 0, [height - window, width - window])
    top, left = (int(value) for value in corner)
    flip = 1 - 2 * int(rng.integers(2))
    rgb = rgb[top : top + window, left : left + window]
    shrink = cv2.INTER_AREA if window > side else cv2.INTER_LINEAR
    labels = labels[top : top + window, left : left + window]
    return (
        np.ascontiguousarray(cv2.resize(rgb, (side, side), interpolation=shrink)[:, ::flip]),
        np.ascontiguousarray(cv2.resize(labels, (side, side), interpolation=cv2.INTER_NEAREST)[:, ::flip]),
    )


def _aim(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Draws a class of the labels (H, W), then one of its pixels: (2,) row, column; ``None`` if all are ignored."""
    present = np.flatnonzero(np.bincount(labels.ravel(), minlength=IGNORED + 1)[:IGNORED])
    if not present.size:
        return None
    places = np.flatnonzero(labels.ravel() == rng.choice(present))
    return np.array(divmod(int(rng.choice(places)), labels.shape[1]))
