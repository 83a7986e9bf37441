# SPDX-License-Identifier: Apache-2.0
"""Finds temperature, thresholds and least score with which a model's phrases are answered best, on samples with masks.

Of each sample only two histograms are kept: how many pixels inside the mask, and how many outside, have which logit.
They tell the IoU at any threshold and the likelihood at any temperature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from clip_seg_ros.data.samples import DataError, ReferringDataset
from clip_seg_ros.evaluation.answers import PhraseAnswers
from clip_seg_ros.evaluation.metrics.masks import ANSWERED_SHARE
from clip_seg_ros.evaluation.prefetch import read_ahead
from clip_seg_ros.models.calibration import Calibration, phrase_key

LOGITS = np.linspace(-10.0, 10.0, 401)
"""The borders of the bins; logits beyond them belong to the first and to the last bin."""
_MIDDLES = np.concatenate([LOGITS[:1], (LOGITS[:-1] + LOGITS[1:]) / 2, LOGITS[-1:]])
_LEAST_SAMPLES = 8
"""A phrase with fewer samples gets no threshold of its own."""
_PRIOR_SAMPLES = 8
"""A phrase's own samples count as much as this number of samples of all phrases together."""
_LEAST_SCORES = np.linspace(0.0, 0.95, 39)
"""The least scores that are tried; 0 lets every answer count."""
_TEMPERATURES = np.exp(np.linspace(np.log(0.1), np.log(10.0), 461))


@dataclass(frozen=True)
class Asked:
    """The answer to one phrase about one image."""

    phrase: str
    inside: np.ndarray
    """(402,) how many pixels of the mask have a logit in each bin of ``LOGITS``, with one bin below and one above."""
    outside: np.ndarray
    """(402,) the same for the other pixels that count."""

    @property
    def is_absent(self) -> bool:
        """Whether the phrase names nothing in the image."""
        return not self.inside.any()

    def scores(self) -> np.ndarray:
        """Returns how well the phrase is answered with each of ``LOGITS`` as the threshold, (401,), 0..1.

        This is the IoU; for a phrase that names nothing, it is 1 if no more than ``ANSWERED_SHARE`` of the image is
        answered, else 0 (the gIoU of Liu et al., CVPR 2023, section 3.3, averages these).
        """
        hits, false = _above(self.inside), _above(self.outside)
        if self.is_absent:
            return (false <= ANSWERED_SHARE * self.outside.sum()).astype(np.float64)
        return hits / (self.inside.sum() + false)

    def certainty(self, temperature: float) -> np.ndarray:
        """Returns the mean calibrated probability of what is answered at each of ``LOGITS``, (401,); 0 for nothing."""
        pixels = self.inside + self.outside
        total = _above(pixels * _sigmoid(_MIDDLES / temperature))
        return total / np.maximum(_above(pixels), 1)

    def judged(self, temperature: float, least_score: float) -> np.ndarray:
        """Returns ``scores`` where answers whose mean probability is below ``least_score`` do not count."""
        return np.where(self.certainty(temperature) >= least_score, self.scores(), float(self.is_absent))


@dataclass(frozen=True)
class Figures:
    """How well phrases are answered."""

    named_iou: float
    """The mean IoU of phrases that name something; NaN if there are none."""
    absent_answered: float
    """The share of phrases that name nothing and are answered all the same; NaN if there are none."""
    error: float
    """The mean difference between a pixel's probability and the share of such pixels that are right (expected
    calibration error, Guo et al., equation 3)."""


def collect(
    answers: PhraseAnswers,
    dataset: ReferringDataset,
    indices: Sequence[int],
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[Asked]:
    """Asks a model, whose probabilities are sigmoids of logits, about samples of a data set.

    Raises:
        DataError: A sample cannot be read, or all of its pixels are ignored.
    """
    found = []
    for _, sample in progress(read_ahead(dataset, indices)):
        probabilities = answers.probabilities(sample).astype(np.float64)
        counted = np.ones(sample.mask.shape, bool) if sample.ignored is None else ~sample.ignored
        if sample.mask.shape != probabilities.shape or not counted.any():
            raise DataError(f"{sample.name}: its mask has another size than its picture, or every pixel is ignored")
        bins = _bins(probabilities)
        histograms = [
            np.bincount(bins[counted & part], minlength=len(LOGITS) + 1) for part in (sample.mask, ~sample.mask)
        ]
        found.append(Asked(phrase_key(sample.phrase), *histograms))
    return found


def fit(
    asked: Sequence[Asked], per_phrase: bool = False, most_answered: float | None = None
) -> tuple[Calibration, float]:
    """Finds a calibration and the threshold that goes with it.

    The temperature is that of the largest likelihood, in which all samples weigh the same. The threshold and the least
    score of an object are those with the largest mean score of all samples.

    Args:
        asked: At least one answer.
        per_phrase: Whether phrases with enough samples get thresholds of their own.
        most_answered: The largest share, 0..1, of the phrases that name nothing that may be answered. Threshold and
            least score are then those of the largest mean IoU of the others that keep to it, and no phrase has a lower
            threshold. ``None``: any share.
    """
    temperature = _temperature(asked)
    absent = np.array([each.is_absent for each in asked])
    found: list[tuple[float, int, float]] = []
    for least_score in _LEAST_SCORES:
        judged = np.stack([each.judged(temperature, least_score) for each in asked])
        value = judged.mean(axis=0)
        if most_answered is not None and absent.any() and not absent.all():
            # Phrases in the image matter alone, once few of the others are answered.
            few = 1 - judged[absent].mean(axis=0) <= most_answered + 1e-9
            value = np.where(few, judged[~absent].mean(axis=0), -1.0)
        place = _best(value)
        found.append((float(value[place]), place, float(least_score)))
    best = max(found, key=lambda each: each[0])
    _, place, least_score = best
    scores = np.stack([each.judged(temperature, least_score) for each in asked])
    mean = scores.mean(axis=0)
    thresholds = {}
    if per_phrase:
        phrases = np.array([each.phrase for each in asked])
        for phrase in sorted(set(phrases)):
            own = scores[phrases == phrase]
            if len(own) >= _LEAST_SAMPLES:
                # Shrunk towards the common one, which a few samples cannot move far.
                weighted = own.sum(axis=0) + _PRIOR_SAMPLES * mean
                near = _near(weighted, place)
                near = near if most_answered is None else max(near, place)
                thresholds[phrase] = _probability(LOGITS[near], temperature)
    return Calibration(temperature, thresholds, least_score), _probability(LOGITS[place], temperature)


def measure(asked: Sequence[Asked], calibration: Calibration, threshold: float) -> Figures:
    """Measures answers with a calibration.

    Args:
        asked: At least one answer, of the model without calibration.
        calibration: The calibration.
        threshold: The threshold on calibrated probabilities, 0..1.
    """
    named: list[float] = []
    absent: list[float] = []
    for each in asked:
        own = calibration.thresholds.get(each.phrase, threshold)
        logit = calibration.temperature * np.log(own / (1 - own))
        judged = each.judged(calibration.temperature, calibration.least_score)
        score = judged[int(np.argmin(np.abs(LOGITS - logit)))]
        (absent if each.is_absent else named).append(score)
    means = [float(np.mean(values)) if values else float("nan") for values in (named, absent)]
    predicted, right, share = reliability(asked, calibration.temperature)
    error = float(np.nansum(share * np.abs(predicted - right)))
    return Figures(means[0], 1 - means[1], error)


def reliability(
    asked: Sequence[Asked], temperature: float, bins: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns what a reliability diagram shows, (bins,) each, for equal parts of 0..1.

    These are the mean probability of the pixels in each part, the share of them that are in the mask, both NaN where
    there are none, and their share of all pixels. All samples weigh the same.
    """
    inside, outside = _pooled(asked)
    probability = _sigmoid(_MIDDLES / temperature)
    part = np.minimum((probability * bins).astype(int), bins - 1)
    weights = np.bincount(part, inside + outside, bins)
    with np.errstate(invalid="ignore"):
        predicted = np.bincount(part, (inside + outside) * probability, bins) / weights
        right = np.bincount(part, inside, bins) / weights
    return predicted, right, weights / weights.sum()


def _bins(probabilities: np.ndarray) -> np.ndarray:
    """Returns the bin of each probability's logit: 0 below ``LOGITS``, 401 above."""
    clipped = np.clip(probabilities, 1e-9, 1 - 1e-9)
    step = LOGITS[1] - LOGITS[0]
    place = (np.log(clipped / (1 - clipped)) - LOGITS[0]) / step + 1
    return np.clip(place, 0, len(LOGITS)).astype(np.int64)


def _temperature(asked: Sequence[Asked]) -> float:
    inside, outside = _pooled(asked)
    scaled = _MIDDLES[None] / _TEMPERATURES[:, None]
    loss = np.logaddexp(0, -scaled) @ inside + np.logaddexp(0, scaled) @ outside
    return float(_TEMPERATURES[int(loss.argmin())])


def _pooled(asked: Sequence[Asked]) -> tuple[np.ndarray, np.ndarray]:
    """Returns both histograms of all samples together, in which each sample weighs the same."""
    sizes = [each.inside.sum() + each.outside.sum() for each in asked]
    inside = sum(each.inside / size for each, size in zip(asked, sizes, strict=True))
    outside = sum(each.outside / size for each, size in zip(asked, sizes, strict=True))
    return np.asarray(inside), np.asarray(outside)


def _above(histogram: np.ndarray) -> np.ndarray:
    """Returns how many pixels lie above each of ``LOGITS``, (401,)."""
    return histogram[::-1].cumsum()[::-1][1:]


def _best(scores: np.ndarray) -> int:
    """Returns the middle of the places with the largest score."""
    return int(np.flatnonzero(scores >= scores.max() - 1e-12).mean())


def _near(scores: np.ndarray, place: int) -> int:
    """Returns that of the places with the largest score that is nearest to ``place``."""
    best = np.flatnonzero(scores >= scores.max() - 1e-12)
    return int(best[np.abs(best - place).argmin()])


def _probability(logit: float, temperature: float) -> float:
    return float(_sigmoid(np.asarray(logit / temperature)))


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))
