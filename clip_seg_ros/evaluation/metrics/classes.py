# SPDX-License-Identifier: Apache-2.0
"""Metrics of label maps, as MMSegmentation computes them: the protocol of DenseCLIP and MaskCLIP.

Pixels are summed over the data set, and the ratios are computed at the end. With the intersection I, the predicted area
P and the true area L of one class, in pixels:

    IoU = I / (P + L - I)     Acc = recall = I / L     precision = I / P
    Dice = 2 I / (P + L)      F-score = (1 + beta²) precision recall / (beta² precision + recall)

``aAcc`` is the share of all labelled pixels that are right. A mean over classes leaves out classes without a value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

IGNORE_LABEL = 255
"""The label of pixels that belong to no class."""


@dataclass(frozen=True)
class ClassScores:
    """Scores of C classes: (C,) float64 in 0..1, NaN for a class whose denominator is 0."""

    iou: np.ndarray
    """The IoU; NaN for a class that is neither labelled nor predicted anywhere."""
    dice: np.ndarray
    precision: np.ndarray
    """The precision; NaN for a class that is not predicted anywhere."""
    recall: np.ndarray
    """MMSegmentation's ``Acc``; NaN for a class that is not labelled anywhere."""
    pixel_accuracy: float
    """MMSegmentation's ``aAcc``, 0..1; NaN if nothing is labelled."""

    @property
    def mean_iou(self) -> float:
        """``mIoU``, 0..1, over the classes that have an IoU; NaN if none has one."""
        return mean_over_classes(self.iou)

    def f_score(self, beta: float = 1.0) -> np.ndarray:
        """(C,) float64 in 0..1; NaN where precision or recall is, or both are 0 (the Dice is 0 there).

        Args:
            beta: How many times as much recall weighs as precision.
        """
        return _ratio(
            (1 + beta**2) * self.precision * self.recall,
            beta**2 * self.precision + self.recall,
        )


class ConfusionMatrix:
    """Counts the pixels of a data set, one image at a time."""

    def __init__(self, class_count: int, reduce_zero_label: bool = False) -> None:
        """Starts with no image.

        Args:
            class_count: C; classes are numbered 0..C-1 in predictions.
            reduce_zero_label: Label 0 is no class (ADE20K's "other", or the background) and label k + 1 is class k.
        """
        self.class_count = class_count
        self.reduce_zero_label = reduce_zero_label
        self._counts = np.zeros((class_count, class_count), np.int64)

    @classmethod
    def of(cls, counts: np.ndarray) -> ConfusionMatrix:
        """Makes a matrix of ``counts`` (C, C), such as the sum of several matrices' own."""
        matrix = cls(len(counts))
        matrix._counts += np.rint(counts).astype(np.int64)
        return matrix

    @property
    def counts(self) -> np.ndarray:
        """(C, C) int64: pixels of each true class (rows) that were predicted as each class (columns)."""
        return self._counts.copy()

    def add(self, predicted: np.ndarray, labels: np.ndarray) -> None:
        """Counts one image.

        Pixels whose label is no class are not counted, whatever is predicted there: the usual 255, label 0 where that
        is reduced, and any other number. (MMSegmentation's own code would charge the last kind, which its data sets do
        not have, to the class that is predicted there.)

        Args:
            predicted: (H, W) integers, class indices 0..C-1.
            labels: (H, W) integers as the data set has them, before any reduction of the zero label; 255 is no class
                even where there are more than 255 classes.

        Raises:
            ValueError: The shapes differ, or the predictions hold something that is no class.
        """
        if predicted.shape != labels.shape:
            raise ValueError(f"predictions of {predicted.shape} for labels of {labels.shape}")
        # Signed and wide before the subtraction: labels often come as uint8.
        rows = labels.astype(np.int64) - int(self.reduce_zero_label)
        counted = (rows >= 0) & (rows < self.class_count) & (labels != IGNORE_LABEL)
        columns = predicted[counted].astype(np.int64)
        if columns.size and not 0 <= columns.min() <= columns.max() < self.class_count:
            raise ValueError(f"predictions {columns.min()}..{columns.max()} for classes 0..{self.class_count - 1}")
        flat = np.bincount(rows[counted] * self.class_count + columns, minlength=self._counts.size)
        self._counts += flat.reshape(self._counts.shape)

    def scores(self) -> ClassScores:
        """Returns the scores of all images so far."""
        right = np.diagonal(self._counts)
        predicted_area, true_area = self._counts.sum(axis=0), self._counts.sum(axis=1)
        return ClassScores(
            iou=_ratio(right, predicted_area + true_area - right),
            dice=_ratio(2 * right, predicted_area + true_area),
            precision=_ratio(right, predicted_area),
            recall=_ratio(right, true_area),
            pixel_accuracy=float(_ratio(right.sum(), true_area.sum())),
        )


def mean_over_classes(values: np.ndarray) -> float:
    """Returns the mean of the (C,) values that are not NaN; NaN if all are."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


@dataclass(frozen=True)
class SplitIoU:
    """The mean IoU of seen and of unseen classes, 0..1; NaN where none of them has an IoU."""

    seen: float
    unseen: float

    @classmethod
    def of(cls, iou: np.ndarray, unseen: np.ndarray) -> SplitIoU:
        """Takes the classes' IoU, (C,) float64, and which of them are unseen, (C,) bool."""
        return cls(mean_over_classes(iou[~unseen]), mean_over_classes(iou[unseen]))

    @property
    def harmonic(self) -> float:
        """The harmonic mean of both, by which zero-shot segmentation is compared."""
        both = self.seen + self.unseen
        return 2 * self.seen * self.unseen / both if both else 0.0


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Returns ``numerator / denominator``, with NaN where the denominator is 0."""
    denominator = np.asarray(denominator, np.float64)
    return np.divide(numerator, denominator, out=np.full_like(denominator, np.nan), where=denominator != 0)
