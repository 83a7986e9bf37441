# SPDX-License-Identifier: Apache-2.0
"""CLIPSeg's metrics: binary masks over a sweep of thresholds (Lüddecke and Ecker, CVPR 2022).

As its authors do, counts are summed over the data set, and the ratios are computed at the end, each with 1 added to its
denominator. With true positives tp, false positives fp, false negatives fn and true negatives tn at one
threshold:

    foreground IoU = tp / (1 + tp + fp + fn)
    background IoU = tn / (1 + tn + fp + fn)
    binary IoU     = (foreground IoU + background IoU) / 2
    mean IoU       = mean over classes of the foreground IoU of each class's own counts
    precision      = tp / (1 + tp + fp)
    recall         = tp / (1 + tp + fn)
    AP             = integral of precision over recall, along the thresholds at which any pixel is predicted
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

THRESHOLDS = tuple(step / 50 for step in range(1, 50))
"""The thresholds at which the paper's tables are computed: 0.02, 0.04 .. 0.98."""


@dataclass(frozen=True)
class BinaryCounts:
    """The numbers of pixels at each of T thresholds; every field is (T,) int64. ``+`` adds the counts of samples."""

    tp: np.ndarray
    """Pixels that are predicted and true."""
    fp: np.ndarray
    """Pixels that are predicted, but not true."""
    fn: np.ndarray
    """Pixels that are true, but not predicted."""
    tn: np.ndarray
    """Pixels that are neither predicted nor true."""

    def __add__(self, other: BinaryCounts) -> BinaryCounts:
        return BinaryCounts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    @property
    def foreground_iou(self) -> np.ndarray:
        """The foreground IoU, (T,) float64, 0..1."""
        return self.tp / (1 + self.tp + self.fp + self.fn)

    @property
    def background_iou(self) -> np.ndarray:
        """The background IoU, (T,) float64, 0..1."""
        return self.tn / (1 + self.tn + self.fp + self.fn)

    @property
    def precision(self) -> np.ndarray:
        """The precision, (T,) float64, 0..1."""
        return self.tp / (1 + self.tp + self.fp)

    @property
    def recall(self) -> np.ndarray:
        """The recall, (T,) float64, 0..1."""
        return self.tp / (1 + self.tp + self.fn)


@dataclass(frozen=True)
class SweepScores:
    """The scores of a data set at each of T thresholds; the curves are (T,) float64 in 0..1."""

    thresholds: np.ndarray
    """The thresholds, (T,) float64, rising."""
    counts: BinaryCounts
    """The counts, summed over the data set."""
    foreground_iou: np.ndarray
    binary_iou: np.ndarray
    mean_iou: np.ndarray
    """The mean IoU; NaN if there was no class."""
    average_precision: float
    """The AP, about 0..1, as in ``average_precision``."""

    def at(self, curve: np.ndarray, threshold: float) -> float:
        """Returns the value of one of the curves at a threshold of the sweep.

        Raises:
            ValueError: The threshold is not one of the sweep's.
        """
        nearest = int(np.argmin(np.abs(self.thresholds - threshold)))
        if abs(self.thresholds[nearest] - threshold) > 1e-6:
            raise ValueError(f"{threshold} is none of the thresholds {self.thresholds.tolist()}")
        return float(curve[nearest])

    def best(self, curve: np.ndarray) -> tuple[float, float]:
        """Returns the highest value of a curve and its threshold; if several are equal, the lowest threshold."""
        index = int(np.argmax(curve))
        return float(curve[index]), float(self.thresholds[index])


class ThresholdSweep:
    """Adds up a data set one sample at a time; its memory grows with the number of classes, not of samples."""

    def __init__(self, thresholds: tuple[float, ...] = THRESHOLDS) -> None:
        """Starts without samples.

        Args:
            thresholds: Probabilities 0..1, rising.

        Raises:
            ValueError: There are no thresholds, or they do not rise.
        """
        if not thresholds or any(b <= a for a, b in pairwise(thresholds)):
            raise ValueError(f"thresholds must rise, got {thresholds}")
        self.thresholds = thresholds
        zeros = np.zeros(len(thresholds), np.int64)
        self._total = BinaryCounts(zeros, zeros, zeros, zeros)
        self._of_class: dict[int, BinaryCounts] = {}
        # A sample that is a class of its own has its final IoU at once, so that its counts need not be kept.
        self._own_class_iou = np.zeros(len(thresholds))
        self._own_classes = 0
        self._samples = 0

    def add(self, probabilities: np.ndarray, mask: np.ndarray, class_id: int | None = None) -> None:
        """Counts one sample.

        Args:
            probabilities: Probabilities (H, W) float, 0..1, at the size of the mask (see ``resize_corners_aligned``);
                (N,) if only some pixels count.
            mask: True mask of the object, bool of the same shape.
            class_id: Class of the sample, for the mean IoU; ``None`` makes the sample a class of its own, as in the
                paper for PhraseCut. Such a sample with an empty mask is not a class, because its IoU would always be 0.

        Raises:
            ValueError: The shapes differ, or the mask is not bool.
        """
        counts = count_over_thresholds(probabilities, mask, self.thresholds)
        self._total = self._total + counts
        self._samples += 1
        if class_id is None:
            if mask.any():
                self._own_class_iou = self._own_class_iou + counts.foreground_iou
                self._own_classes += 1
        elif class_id in self._of_class:
            self._of_class[class_id] = self._of_class[class_id] + counts
        else:
            self._of_class[class_id] = counts

    def scores(self) -> SweepScores:
        """Returns the scores of all samples so far.

        Raises:
            ValueError: There was no sample.
        """
        if not self._samples:
            raise ValueError("no sample was added")
        classes = self._own_classes + len(self._of_class)
        total = self._total
        summed_iou = sum((counts.foreground_iou for counts in self._of_class.values()), start=self._own_class_iou)
        return SweepScores(
            thresholds=np.array(self.thresholds),
            counts=total,
            foreground_iou=total.foreground_iou,
            binary_iou=(total.foreground_iou + total.background_iou) / 2,
            mean_iou=summed_iou / classes if classes else np.full(len(self.thresholds), np.nan),
            average_precision=average_precision(total),
        )


def count_over_thresholds(
    probabilities: np.ndarray, mask: np.ndarray, thresholds: tuple[float, ...] = THRESHOLDS
) -> BinaryCounts:
    """Counts one sample at all thresholds in one pass; a pixel is predicted if it is strictly above the threshold.

    Args:
        probabilities: Probabilities of any float type and shape, 0..1; NaN is never predicted. Thresholds are rounded
            to this type.
        mask: True mask, bool of the same shape.
        thresholds: Thresholds 0..1, rising.

    Raises:
        ValueError: The shapes differ, or the mask is not bool.
    """
    if probabilities.shape != mask.shape or mask.dtype != np.bool_:
        raise ValueError(
            f"{probabilities.shape} probabilities need as large a bool mask, got {mask.shape} {mask.dtype}"
        )
    # A pixel that exceeds n thresholds is predicted at exactly the first n.
    values = np.where(np.isnan(probabilities), -np.inf, probabilities).astype(probabilities.dtype, copy=False)
    exceeded = np.searchsorted(np.array(thresholds, values.dtype), values.ravel(), side="left")
    bins = len(thresholds) + 1
    true = np.bincount(exceeded[mask.ravel()], minlength=bins)
    false = np.bincount(exceeded[~mask.ravel()], minlength=bins)
    # The pixels that exceed more than t thresholds are predicted at threshold t.
    fn, tn = np.cumsum(true)[:-1], np.cumsum(false)[:-1]
    return BinaryCounts(tp=true.sum() - fn, fp=false.sum() - tn, fn=fn, tn=tn)


def average_precision(counts: BinaryCounts) -> float:
    """Integrates precision over recall by Simpson's rule, over the distinct points of a sweep, sorted by recall.

    As in the authors' code, thresholds above which no pixel lies do not count: there is no precision without a
    prediction, and the point (0, 0) would add an area under the curve. The curve is not extended to recall 0 or 1.
    Simpson's rule can leave 0..1 slightly if points are unevenly spaced.

    Args:
        counts: The counts of the whole data set at each threshold.

    Returns:
        The AP; 0 if nothing is predicted at any threshold, which the authors' code refuses.
    """
    predicted = counts.tp + counts.fp > 0
    points = np.unique(np.stack([counts.recall, counts.precision], axis=1)[predicted], axis=0)
    return simpson(points[:, 0], points[:, 1])


def simpson(x: np.ndarray, y: np.ndarray) -> float:
    """Integrates by Simpson's rule for unevenly spaced points, as SciPy does since release 1.11.

    With an even number of points, the last interval remains; there, the parabola through the last three points is
    integrated (Cartwright, Journal of Mathematical Sciences and Mathematics Education 12, 2017). Terms whose
    denominator is 0, as with two points at one x, count as 0.

    Args:
        x: Points, (N,), not falling.
        y: Values of the function at x, (N,).

    Returns:
        The integral; 0 for fewer than two points.
    """
    gaps = np.diff(x)
    if len(gaps) < 2:
        return float(np.sum(gaps * (y[1:] + y[:-1]) / 2))
    pairs = len(gaps) // 2
    left, right = gaps[0 : 2 * pairs : 2], gaps[1 : 2 * pairs : 2]
    first, middle, last = y[0 : 2 * pairs : 2], y[1 : 2 * pairs : 2], y[2 : 2 * pairs + 1 : 2]
    width, ratio = left + right, _divide(left, right)
    area = first * (2 - _divide(1, ratio)) + middle * width * _divide(width, left * right) + last * (2 - ratio)
    total = float(np.sum(width / 6 * area))
    if len(gaps) % 2:
        a, b = gaps[-2], gaps[-1]
        total += float(
            y[-1] * _divide(2 * b**2 + 3 * a * b, 6 * (a + b))
            + y[-2] * _divide(b**2 + 3 * a * b, 6 * a)
            - y[-3] * _divide(b**3, 6 * a * (a + b))
        )
    return total


def resize_corners_aligned(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes bilinearly so that the centres of the corner pixels stay at the corners, as for probabilities to a mask.

    Args:
        maps: Maps (..., h, w) float.
        size: (H, W) of the result.

    Returns:
        The resized maps, (..., H, W) of the same type.
    """
    wide = _resize_last_axis(maps, size[1])
    return _resize_last_axis(wide.swapaxes(-1, -2), size[0]).swapaxes(-1, -2)


def _resize_last_axis(values: np.ndarray, length: int) -> np.ndarray:
    """Interpolates linearly along the last axis, from its first entry to its last."""
    # The type is the values' own, as in the authors' code; otherwise, pixels could cross a threshold by rounding.
    step = values.dtype.type((values.shape[-1] - 1) / (length - 1) if length > 1 else 0)
    position = np.arange(length, dtype=values.dtype) * step
    low = np.minimum(position.astype(np.intp), values.shape[-1] - 1)
    high = np.minimum(low + 1, values.shape[-1] - 1)
    share = position - low.astype(values.dtype)
    return values[..., low] * (1 - share) + values[..., high] * share


def _divide(numerator: np.ndarray | float, denominator: np.ndarray | float) -> np.ndarray:
    """Returns ``numerator / denominator``, and 0 where the denominator is 0."""
    denominator = np.asarray(denominator, np.float64)
    return np.divide(numerator, denominator, out=np.zeros_like(denominator), where=denominator != 0)
