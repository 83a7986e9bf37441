# SPDX-License-Identifier: Apache-2.0
"""CRIS's metrics for referring expressions (Wang et al., CVPR 2022), as in the authors' code."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clip_seg_ros.evaluation.metrics.masks import require_masks

MASK_THRESHOLD = 0.35
"""The threshold: a pixel belongs to the mask above this probability."""
PRECISION_LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""The values of X in Pr@X, as IoU 0..1."""
_EPSILON = 1e-6
"""Pixels added to the union: two empty masks have IoU 0."""


@dataclass(frozen=True)
class ReferringScores:
    """Scores of a set of sentences."""

    mean_iou: float
    """The mean of the sentences' IoUs, 0..1; not the IoU of summed areas."""
    precision_at: dict[float, float]
    """Pr@X: for each IoU level X the share of sentences whose IoU is strictly higher, 0..1."""


class ReferringIoU:
    """Collects the scores of a data set, one sentence at a time."""

    def __init__(self, levels: tuple[float, ...] = PRECISION_LEVELS) -> None:
        """Starts with no sentence.

        Args:
            levels: The values of X in Pr@X, as IoU 0..1.
        """
        self.levels = levels
        self._count = 0
        self._iou_sum = 0.0
        self._above = np.zeros(len(levels), np.int64)

    def add(self, predicted: np.ndarray, true: np.ndarray) -> float:
        """Counts one sentence.

        Args:
            predicted: (H, W) bool, the pixels above ``MASK_THRESHOLD`` at the image's own size, or (N,) if only some
                pixels count.
            true: The true mask, bool of the same shape.

        Returns:
            The sentence's IoU, as in ``sentence_iou``.

        Raises:
            ValueError: The shapes differ, or a mask is not bool.
        """
        iou = sentence_iou(predicted, true)
        self._count += 1
        self._iou_sum += iou
        self._above += iou > np.array(self.levels)
        return iou

    def scores(self) -> ReferringScores:
        """Returns the scores of all sentences so far.

        Raises:
            ValueError: There was no sentence.
        """
        if not self._count:
            raise ValueError("no sentence was added")
        shares = (self._above / self._count).tolist()
        return ReferringScores(self._iou_sum / self._count, dict(zip(self.levels, shares)))


def sentence_iou(predicted: np.ndarray, true: np.ndarray) -> float:
    """Returns intersection / (union + 1e-6) of two bool masks of any shape, in 0..1; 0 if both are empty.

    Raises:
        ValueError: The shapes differ, or a mask is not bool.
    """
    require_masks(predicted, true)
    return float(np.count_nonzero(predicted & true) / (np.count_nonzero(predicted | true) + _EPSILON))


def training_metric(logits: np.ndarray, targets: np.ndarray, threshold: float = MASK_THRESHOLD) -> ReferringScores:
    """Returns the scores that training reports for one batch at the network's own size (stride 4): mean IoU and Pr@50.

    Unlike the evaluation, a probability equal to the threshold is inside.

    Args:
        logits: (B, 1, h, w) or (B, h, w) float, before the sigmoid.
        targets: The masks in the same shape, bool or soft values 0..1; pixels that are not 0 are inside.
        threshold: The threshold on probabilities, 0..1.

    Raises:
        ValueError: The shapes differ, or the batch is empty.
    """
    if logits.shape != targets.shape:
        raise ValueError(f"logits of {logits.shape} for targets of {targets.shape}")
    total = ReferringIoU(levels=(0.5,))
    for sample, target in zip(logits, targets):
        # tanh does not overflow for any logit.
        probabilities = 0.5 * (1 + np.tanh(0.5 * sample))
        total.add(probabilities >= threshold, target != 0)
    return total.scores()
