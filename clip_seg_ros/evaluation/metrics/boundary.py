# SPDX-License-Identifier: Apache-2.0
"""The boundary measure F of DAVIS (Perazzi et al., CVPR 2016, section 5): the agreement of the outlines of masks.

A pixel is on the boundary where it differs from its neighbour to the right, below, or both. With the tolerance r, which
is 0.008 of the image's diagonal, rounded up to whole pixels:

    precision = share of the predicted boundary that lies within r of the true one
    recall    = share of the true boundary that lies within r of the predicted one
    F         = 2 precision recall / (precision + recall)

F is sensitive to a ragged edge of a large object or a missing handle, which hardly change the IoU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from clip_seg_ros.evaluation.metrics.classes import IGNORE_LABEL
from clip_seg_ros.evaluation.metrics.masks import require_masks

TOLERANCE = 0.008
"""The distance within which boundaries match, as a share of the image's diagonal."""


@dataclass(frozen=True)
class BoundaryScore:
    """The agreement of two boundaries."""

    precision: float
    """The precision, 0..1; 1 if nothing is predicted."""
    recall: float
    """The recall, 0..1; 1 if the true mask has no boundary."""

    @property
    def f(self) -> float:
        """The measure F, 0..1; 0 if precision and recall are both 0."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def boundary_score(
    predicted: np.ndarray, true: np.ndarray, tolerance: float = TOLERANCE, ignored: np.ndarray | None = None
) -> BoundaryScore:
    """Compares the boundaries of two masks.

    Two masks without a boundary agree: both are empty, or both fill the image. If only one has none, F is 0.

    Args:
        predicted: (H, W) bool.
        true: (H, W) bool.
        tolerance: The tolerance, as a share of the diagonal.
        ignored: (H, W) bool, pixels without a label. A predicted boundary there counts only where it matches.

    Raises:
        ValueError: The shapes differ, or a mask is not bool.
    """
    require_masks(predicted, true)
    radius = math.ceil(tolerance * math.hypot(*true.shape))
    predicted_edge, true_edge = boundary(predicted), boundary(true)
    matched = predicted_edge & _within(true_edge, radius)
    found = true_edge & _within(predicted_edge, radius)
    counted = predicted_edge if ignored is None else matched | (predicted_edge & ~ignored)
    precision, recall = _share(matched, counted), _share(found, true_edge)
    # An empty prediction has no false pixel, and an empty truth no missed one.
    return BoundaryScore(1.0 if precision is None else precision, 1.0 if recall is None else recall)


def class_boundary_f(predicted: np.ndarray, labels: np.ndarray, tolerance: float = TOLERANCE) -> dict[int, float]:
    """Returns F of every class in the labels of one image; their mean is the score of the image.

    Args:
        predicted: (H, W) class indices.
        labels: (H, W) class indices; 255 is no class.
        tolerance: The tolerance, as a share of the diagonal.

    Returns:
        Class index -> F, 0..1; empty if all pixels are ignored.

    Raises:
        ValueError: The shapes differ.
    """
    ignored = labels == IGNORE_LABEL
    classes = [int(label) for label in np.unique(labels) if label != IGNORE_LABEL]
    return {label: boundary_score(predicted == label, labels == label, tolerance, ignored).f for label in classes}


def boundary(mask: np.ndarray) -> np.ndarray:
    """Returns (H, W) bool: the pixels that differ from their neighbour to the right, below, or to the lower right."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    right, below, diagonal = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return (mask != right) | (mask != below) | (mask != diagonal)


def _within(edge: np.ndarray, radius: int) -> np.ndarray:
    """Returns (H, W) bool: the pixels at most ``radius`` pixels from ``edge``; none if ``edge`` is empty."""
    if not edge.any():
        return np.zeros_like(edge)
    distance = cv2.distanceTransform((~edge).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Distances are roots of whole numbers: half of the gap to the next one is much wider than their rounding.
    return distance <= radius + 1e-3


def _share(part: np.ndarray, whole: np.ndarray) -> float | None:
    count = np.count_nonzero(whole)
    return np.count_nonzero(part) / count if count else None
