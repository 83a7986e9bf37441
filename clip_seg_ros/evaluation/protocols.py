# SPDX-License-Identifier: Apache-2.0
"""The papers' protocols: runs a model on every sample of a data set and computes the figures.

``evaluate_referring`` is CRIS's protocol: one mask for each sentence, at one threshold.
``evaluate_phrases`` is CLIPSeg's protocol: a sweep of thresholds.
``evaluate_semantic`` is DenseCLIP's and MaskCLIP's protocol: one class for each pixel.

Everything is measured at the size of the data set's own images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from clip_seg_ros.data.samples import DataError, ReferringDataset, ReferringSample, SemanticDataset, SemanticSample
from clip_seg_ros.evaluation.answers import LabelAnswers, PhraseAnswers
from clip_seg_ros.evaluation.metrics.boundary import boundary_score, class_boundary_f
from clip_seg_ros.evaluation.metrics.classes import ConfusionMatrix, SplitIoU, mean_over_classes
from clip_seg_ros.evaluation.metrics.masks import ANSWERED_SHARE, mask_iou
from clip_seg_ros.evaluation.metrics.referring import MASK_THRESHOLD, ReferringIoU
from clip_seg_ros.evaluation.metrics.thresholds import SweepScores, ThresholdSweep
from clip_seg_ros.evaluation.prefetch import read_ahead
from clip_seg_ros.evaluation.suite import Figure

PHRASE_THRESHOLD = 0.3
"""The threshold at which CLIPSeg's authors report PhraseCut."""
Progress = Callable[[Iterable], Iterable]
"""A function that wraps the samples, for a progress bar."""


@dataclass(frozen=True)
class PhraseResult:
    """The result of one phrase."""

    index: int
    """The index of the sample in the data set."""
    name: str
    phrase: str
    iou: float
    """The IoU, 0..1; NaN if the true and the predicted mask are empty."""
    boundary_f: float
    """The boundary measure F, 0..1."""
    precision: float
    """The share of the predicted pixels that are right, 0..1; NaN if there are none."""
    recall: float
    """The share of the true pixels that were predicted, 0..1; NaN if there are none."""
    highest_probability: float
    """The highest probability in the image, 0..1."""
    true_share: float
    """The share of the image in the true mask, 0..1."""
    answered_share: float
    """The share of the image in the predicted mask, 0..1."""


@dataclass(frozen=True)
class ImageResult:
    """The result of one image of a data set with classes."""

    index: int
    """The index of the sample in the data set."""
    name: str
    mean_iou: float
    """The mean IoU over the true and predicted classes of this image, 0..1; NaN if all pixels are ignored."""
    pixel_accuracy: float
    """The share of right pixels, 0..1; NaN if all pixels are ignored."""
    boundary_f: float
    """The mean of F over the true classes, 0..1; NaN if all pixels are ignored."""


@dataclass(frozen=True)
class PhraseEvaluation:
    """The figures of a data set with phrases."""

    figures: tuple[Figure, ...]
    """The figures, named ``protocol.figure``; NaN if there was nothing to measure."""
    samples: tuple[PhraseResult, ...]
    """The results in the order of the data set."""
    threshold: float
    """The threshold of ``samples``."""
    sweep: SweepScores | None = None
    """The scores over thresholds, for the protocol of phrases."""


@dataclass(frozen=True)
class SemanticEvaluation:
    """The figures of a data set with classes."""

    figures: tuple[Figure, ...]
    """The figures, named ``semantic.figure``; NaN if there was nothing to measure."""
    samples: tuple[ImageResult, ...]
    """The results in the order of the data set."""
    class_names: tuple[str, ...]
    class_iou: np.ndarray
    """(C,) float64, 0..1; NaN for a class that is neither labelled nor predicted anywhere."""
    class_accuracy: np.ndarray
    """(C,) float64, 0..1; NaN for a class that is not labelled anywhere."""
    confusion: np.ndarray
    """(C, C) int64, numbers of pixels: rows are true classes, columns are predicted ones."""


def evaluate_referring(
    answers: PhraseAnswers,
    dataset: ReferringDataset,
    indices: Sequence[int],
    threshold: float = MASK_THRESHOLD,
    progress: Progress = iter,
) -> PhraseEvaluation:
    """CRIS's protocol: mean IoU over sentences, Pr@50 .. Pr@90, and the IoU of summed areas.

    Sentences without an object in their image, which the paper's data do not have, are reported separately.

    Args:
        answers: Runs the model.
        dataset: Sentences with masks.
        indices: The samples to measure.
        threshold: A pixel belongs to the predicted mask above this probability, 0..1.
        progress: Wraps the samples, for a progress bar.

    Raises:
        DataError: A sample cannot be read, or its mask does not fit its image.
        ValueError: The model does not take such prompts.
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
        answers: Runs the model.
        dataset: Phrases with masks.
        indices: The samples to measure.
        threshold: A pixel belongs to the predicted mask above this probability, 0..1.
        phrases_are_classes: Whether mIoU is the mean over different phrases, each with its summed areas (PASCAL-5i),
            or over samples (PhraseCut).
        progress: Wraps the samples, for a progress bar.

    Raises:
        DataError: A sample cannot be read, or its mask does not fit its image.
        ValueError: The model does not take such prompts.
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
    answers: LabelAnswers,
    dataset: SemanticDataset,
    indices: Sequence[int],
    progress: Progress = iter,
    unseen: Sequence[str] = (),
) -> SemanticEvaluation:
    """Semantic segmentation: mIoU, pixel accuracy and the IoU of every class, from summed pixels.

    With unseen classes, also the mIoU of the seen ones, that of the unseen ones, and the harmonic mean of both. A
    background is one of the seen classes.

    Args:
        answers: The model, with the data set's classes, at one scale or several.
        dataset: Pictures with labels.
        indices: The pictures to measure.
        progress: Wraps the samples, for a progress bar.
        unseen: Some of the data set's classes, which are measured apart from the others.

    Raises:
        DataError: A picture cannot be read, or its labels do not fit it.
        ValueError: The model does not take such prompts.
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
        *_split_figures(answers.class_names, scores.iou, unseen),
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
    """Returns the pixels of ``values`` (H, W) that count: all (H, W), or (N,) if the sample ignores some."""
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


def _split_figures(class_names: Sequence[str], iou: np.ndarray, unseen: Sequence[str]) -> list[Figure]:
    """Returns the mIoU of seen and unseen classes, and its harmonic mean; nothing where all classes are seen."""
    if not unseen:
        return []
    hidden = np.isin(class_names, unseen)
    split = SplitIoU.of(iou, hidden)
    return [
        Figure("semantic.seen_iou", split.seen, f"mIoU of {np.count_nonzero(~hidden)} seen classes"),
        Figure("semantic.unseen_iou", split.unseen, f"mIoU of {np.count_nonzero(hidden)} unseen classes"),
        Figure("semantic.harmonic_iou", split.harmonic, "harmonic mean of the two"),
    ]


def _common_figures(protocol: str, results: Sequence[PhraseResult]) -> list[Figure]:
    """Returns figures of boundaries and counts, separately for phrases without an object in their image."""
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
