# SPDX-License-Identifier: Apache-2.0
"""The papers' protocols: a model is asked about every sample of a data set, and its answers become figures.

``evaluate_referring``: CRIS's, one sentence one mask, at one threshold.
``evaluate_phrases``: CLIPSeg's, over a sweep of thresholds.
``evaluate_semantic``: DenseCLIP's and MaskCLIP's, one class a pixel.

Everything is measured at the size of the data set's own pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from clip_seg_ros.data.samples import DataError, ReferringDataset, ReferringSample, SemanticDataset, SemanticSample
from clip_seg_ros.evaluation.answers import LabelAnswers, PhraseAnswers
from clip_seg_ros.evaluation.metrics.boundary import boundary_score, class_boundary_f
from clip_seg_ros.evaluation.metrics.classes import ConfusionMatrix, mean_over_classes
from clip_seg_ros.evaluation.metrics.masks import ANSWERED_SHARE, mask_iou
from clip_seg_ros.evaluation.metrics.referring import MASK_THRESHOLD, ReferringIoU
from clip_seg_ros.evaluation.metrics.thresholds import SweepScores, ThresholdSweep
from clip_seg_ros.evaluation.prefetch import read_ahead
from clip_seg_ros.evaluation.suite import Figure

PHRASE_THRESHOLD = 0.3
"""Where CLIPSeg's authors report PhraseCut."""
Progress = Callable[[Iterable], Iterable]
"""Wraps the samples as they are measured, for a progress bar."""


@dataclass(frozen=True)
class PhraseResult:
    """How well one phrase was answered."""

    index: int
    """In the data set."""
    name: str
    phrase: str
    iou: float
    """0..1; NaN where nothing is meant and nothing was answered."""
    boundary_f: float
    """0..1."""
    precision: float
    """Share of the answered pixels that are right, 0..1; NaN where there is none."""
    recall: float
    """Share of the true pixels that were answered, 0..1; NaN where there is none."""
    highest_probability: float
    """Anywhere in the picture, 0..1."""
    true_share: float
    """Share of the picture that is meant, 0..1."""
    answered_share: float
    """Share of the picture that was answered, 0..1."""


@dataclass(frozen=True)
class ImageResult:
    """How well one picture was labelled."""

    index: int
    """In the data set."""
    name: str
    mean_iou: float
    """Over the classes in this picture, true or answered, 0..1; NaN where all pixels are ignored."""
    pixel_accuracy: float
    """0..1; NaN where all pixels are ignored."""
    boundary_f: float
    """Mean over the classes that are there, 0..1; NaN where all pixels are ignored."""


@dataclass(frozen=True)
class PhraseEvaluation:
    """What a data set of phrases gave."""

    figures: tuple[Figure, ...]
    """Named ``protocol.what``; NaN where there was nothing to measure."""
    samples: tuple[PhraseResult, ...]
    """In the order of the data set."""
    threshold: float
    """At which ``samples`` were measured."""
    sweep: SweepScores | None = None
    """Of the phrases protocol."""


@dataclass(frozen=True)
class SemanticEvaluation:
    """What a data set of labels gave."""

    figures: tuple[Figure, ...]
    """Named ``semantic.what``; NaN where there was nothing to measure."""
    samples: tuple[ImageResult, ...]
    """In the order of the data set."""
    class_names: tuple[str, ...]
    class_iou: np.ndarray
    """(C,) float64, 0..1; NaN for a class that is neither labelled nor answered anywhere."""
    class_accuracy: np.ndarray
    """(C,) float64, 0..1; NaN for a class that is not labelled anywhere."""
    confusion: np.ndarray
    """(C, C) int64 pixels: rows are true, columns answered."""


def evaluate_referring(
    answers: PhraseAnswers,
    dataset: ReferringDataset,
    indices: Sequence[int],
    threshold: float = MASK_THRESHOLD,
    progress: Progress = iter,
) -> PhraseEvaluation:
    """CRIS's protocol: mean IoU over sentences, Pr@50 .. Pr@90, and the IoU of summed areas.

    Sentences that mean nothing in their picture, which the paper's data do not have, are reported apart.

    Args:
        answers: The model.
        dataset: Sentences with masks.
        indices: The samples to measure.
        threshold: A pixel belongs to the answer above this probability, 0..1.
        progress: Wraps the samples.

    Raises:
        DataError: A sample cannot be read, or its mask does not fit its picture.
        ValueError: The model cannot be asked this.
    """
    results, total = [], ReferringIoU()
    intersection = union = 0
    for index, sample, probabilities in _phrase_answers(answers, dataset, indices, progress):
        results.append(_phrase_result(index, sample, probabilities, threshold))
        answered, true = _counted(sample, probabilities > threshold), _counted(sample, sample.mask)
        intersection += np.count_nonzero(answered & true)
        union += np.count_nonzero(answered | true)
        if true.any():
            total.add(answered, true)
    figures = [Figure("referring.overall_iou", intersection / union if union else np.nan, "IoU of summed areas")]
    if any(result.true_share for result in results):
        scores = total.scores()
        figures.insert(0, Figure("referring.mean_iou", scores.mean_iou, "IoU"))
        figures += [
            Figure(f"referring.precision_at_{100 * level:.0f}", share, f"share with IoU > {level}")
            for level, share in scores.precision_at.items()
        ]
    return PhraseEvaluation(tuple(figures + _common_figures("referring", results)), tuple(results), threshold)


def evaluate_phrases(
    answers: PhraseAnswers,
    dataset: ReferringDataset,
    indices: Sequence[int],
    threshold: float = PHRASE_THRESHOLD,
    phrases_are_classes: bool = False,
    progress: Progress = iter,
) -> PhraseEvaluation:
    """CLIPSeg's protocol: mIoU, IoU_FG, IoU_BIN and AP over a sweep of thresholds, at ``threshold`` and at the best.

    Args:
        answers: The model.
        dataset: Phrases with masks.
        indices: The samples to measure.
        threshold: A pixel belongs to the answer above this probability, 0..1.
        phrases_are_classes: Whether mIoU is the mean over different phrases, each with its summed areas (PASCAL-5i),
            or over samples (PhraseCut).
        progress: Wraps the samples.

    Raises:
        DataError: A sample cannot be read, or its mask does not fit its picture.
        ValueError: The model cannot be asked this.
    """
    results: list[PhraseResult] = []
    sweep, chosen = ThresholdSweep(), ThresholdSweep((threshold,))
    numbers: dict[str, int] = {}
    for index, sample, probabilities in _phrase_answers(answers, dataset, indices, progress):
        results.append(_phrase_result(index, sample, probabilities, threshold))
        probabilities, true = _counted(sample, probabilities), _counted(sample, sample.mask)
        number = numbers.setdefault(sample.phrase, len(numbers)) if phrases_are_classes else None
        sweep.add(probabilities, true, number)
        chosen.add(probabilities, true, number)
    scores, at = sweep.scores(), chosen.scores()
    figures = [
        Figure("phrases.mean_iou", at.mean_iou[0], f"mIoU at {threshold:g}"),
        Figure("phrases.iou_fg", at.foreground_iou[0], f"IoU_FG at {threshold:g}"),
        Figure("phrases.iou_bin", at.binary_iou[0], f"IoU_BIN at {threshold:g}"),
        Figure("phrases.ap", scores.average_precision, "AP"),
    ]
    for name, curve, unit in (
        ("mean_iou", scores.mean_iou, "mIoU"),
        ("iou_fg", scores.foreground_iou, "IoU_FG"),
        ("iou_bin", scores.binary_iou, "IoU_BIN"),
    ):
        value, where = scores.best(curve)
        figures.append(Figure(f"phrases.best_{name}", value, f"{unit} at {where:g}"))
    return PhraseEvaluation(tuple(figures + _common_figures("phrases", results)), tuple(results), threshold, scores)


def evaluate_semantic(
    answers: LabelAnswers, dataset: SemanticDataset, indices: Sequence[int], progress: Progress = iter
) -> SemanticEvaluation:
    """Semantic segmentation: mIoU, pixel accuracy and the IoU of every class, from summed pixels.

    Args:
        answers: The model, with the data set's classes, at one scale or several.
        dataset: Pictures with labels.
        indices: The pictures to measure.
        progress: Wraps the samples.

    Raises:
        DataError: A picture cannot be read, or its labels do not fit it.
        ValueError: The model cannot be asked this.
    """
    results: list[ImageResult] = []
    total = ConfusionMatrix(len(answers.class_names))
    for index, sample in progress(read_ahead(dataset, indices)):
        _check(sample, sample.labels)
        predicted = answers.labels(sample.rgb)
        total.add(predicted, sample.labels)
        results.append(_image_result(index, sample, predicted, len(answers.class_names)))
    scores = total.scores()
    figures = (
        Figure("semantic.mean_iou", scores.mean_iou, "mIoU"),
        Figure("semantic.pixel_accuracy", scores.pixel_accuracy, "share of pixels"),
        Figure("semantic.mean_accuracy", mean_over_classes(scores.recall), "mean share of a class's pixels"),
        Figure("semantic.boundary_f", _mean([result.boundary_f for result in results]), "boundary F"),
        Figure("semantic.count", len(results), "pictures"),
    )
    return SemanticEvaluation(figures, tuple(results), answers.class_names, scores.iou, scores.recall, total.counts)


def _phrase_answers(
    answers: PhraseAnswers, dataset: ReferringDataset, indices: Sequence[int], progress: Progress
) -> Iterator[tuple[int, ReferringSample, np.ndarray]]:
    """Yields (index, sample, (H, W) probabilities)."""
    for index, sample in progress(read_ahead(dataset, indices)):
        _check(sample, sample.mask)
        if sample.ignored is not None:
            _check(sample, sample.ignored)
            if sample.ignored.all():
                raise DataError(f"{sample.name}: every pixel is ignored, so that there is nothing to measure")
        yield index, sample, answers.probabilities(sample)


def _check(sample: ReferringSample | SemanticSample, truth: np.ndarray) -> None:
    if truth.shape != sample.rgb.shape[:2]:
        raise DataError(f"{sample.name}: the picture is {sample.rgb.shape[:2]} (H, W), but its mask is {truth.shape}")


def _counted(sample: ReferringSample, values: np.ndarray) -> np.ndarray:
    """The pixels of ``values`` (H, W) that count: as they are, or (N,) where the sample ignores some."""
    return values if sample.ignored is None else values[~sample.ignored]


def _phrase_result(index: int, sample: ReferringSample, probabilities: np.ndarray, threshold: float) -> PhraseResult:
    edges = boundary_score(probabilities > threshold, sample.mask, ignored=sample.ignored)
    probabilities, true = _counted(sample, probabilities), _counted(sample, sample.mask)
    answered = probabilities > threshold
    both = np.count_nonzero(answered & true)
    answered_px, true_px = np.count_nonzero(answered), np.count_nonzero(true)
    return PhraseResult(
        index=index,
        name=sample.name,
        phrase=sample.phrase,
        iou=mask_iou(answered, true),
        boundary_f=edges.f,
        precision=both / answered_px if answered_px else float("nan"),
        recall=both / true_px if true_px else float("nan"),
        highest_probability=float(probabilities.max()),
        true_share=true_px / answered.size,
        answered_share=answered_px / answered.size,
    )


def _image_result(index: int, sample: SemanticSample, predicted: np.ndarray, classes: int) -> ImageResult:
    matrix = ConfusionMatrix(classes)
    matrix.add(predicted, sample.labels)
    scores = matrix.scores()
    edges = list(class_boundary_f(predicted, sample.labels).values())
    return ImageResult(index, sample.name, scores.mean_iou, scores.pixel_accuracy, _mean(edges))


def _common_figures(protocol: str, results: Sequence[PhraseResult]) -> list[Figure]:
    """Boundaries and counts; phrases that mean nothing in their picture apart from the others."""
    named = [result for result in results if result.true_share]
    absent = [result for result in results if not result.true_share]
    figures = [
        Figure(f"{protocol}.boundary_f", _mean([result.boundary_f for result in named]), "boundary F"),
        Figure(f"{protocol}.count", len(results), "phrases"),
    ]
    if absent:
        answered = [result.answered_share > ANSWERED_SHARE for result in absent]
        figures.append(Figure(f"{protocol}.absent.answered", _mean(answered), "share answered"))
        figures.append(Figure(f"{protocol}.absent.count", len(absent), "phrases"))
    return figures


def _mean(values: Sequence[float]) -> float:
    return mean_over_classes(np.array(values, np.float64))
