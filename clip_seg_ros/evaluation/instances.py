# SPDX-License-Identifier: Apache-2.0
"""COCO's protocol for detectors: the average precision of boxes and masks over a data set of objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clip_seg_ros.data.samples import DataError, InstanceDataset, InstanceSample
from clip_seg_ros.evaluation.answers import require_classes
from clip_seg_ros.evaluation.metrics.average_precision import AveragePrecision, PlacedObject, PrecisionScores
from clip_seg_ros.evaluation.metrics.touching import found_objects, touching_objects
from clip_seg_ros.evaluation.prefetch import read_ahead
from clip_seg_ros.evaluation.protocols import Progress
from clip_seg_ros.evaluation.suite import Figure
from clip_seg_ros.pipeline.instances import Instance
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.types import window_of

_SIZES = ("small", "medium", "large")


@dataclass(frozen=True)
class ObjectsResult:
    """The result of one image."""

    index: int
    """The index of the sample in the data set."""
    name: str
    objects: int
    """The number of true objects."""
    answers: int
    """The number of objects that the model is sure of at its threshold."""
    found: int
    """The number of true objects with such an answer of their class at an IoU above 0.5."""


@dataclass(frozen=True)
class InstanceEvaluation:
    """The figures of a data set with objects."""

    figures: tuple[Figure, ...]
    """The figures, named ``instances.figure``; NaN if there was nothing to measure."""
    samples: tuple[ObjectsResult, ...]
    """The results in the order of the data set; empty for data sets of boxes alone."""
    class_names: tuple[str, ...]
    class_ap50: np.ndarray
    """(C,) float64, 0..1, of masks or, in a data set of boxes, of boxes; NaN for a class without objects."""


class InstanceScores:
    """Collects the answers to images with objects.

    Args:
        class_names: The classes of the images.
        masks: Whether masks are compared, too.
        threshold: The score above which an answer counts as found.
    """

    def __init__(self, class_names: Sequence[str], masks: bool, threshold: float) -> None:
        self._class_names, self._threshold = tuple(class_names), threshold
        kinds = ("mask", "box") if masks else ("box",)
        self._counted = {kind: AveragePrecision(len(class_names), kind) for kind in kinds}
        self._touching: list[bool] = []

    def add(self, sample: InstanceSample, answers: Sequence[Instance]) -> tuple[int, int]:
        """Adds one image.

        Args:
            sample: The true objects.
            answers: All objects that the model returns, whatever their scores.

        Returns:
            How many answers have a score above the threshold, and how many true objects they find, (0, 0) for boxes.
        """
        size = sample.rgb.shape[:2]
        labels = [self._class_names.index(item.name) for item in answers]
        for kind, counted in self._counted.items():
            true = [_true_object(sample, index, kind) for index in range(len(sample.labels))]
            counted.add(size, true, [_answer(item, label, kind) for item, label in zip(answers, labels, strict=True)])
        if sample.masks is None:
            return 0, 0
        sure = [index for index, item in enumerate(answers) if item.score >= self._threshold]
        found = found_objects(sample, [labels[index] for index in sure], [answers[index] for index in sure])
        self._touching += found[touching_objects(sample)].tolist()
        return len(sure), int(found[~sample.crowd].sum())

    def precisions(self) -> dict[str, PrecisionScores]:
        """Returns the average precisions by kind, "mask" and "box" or only "box"."""
        return {kind: counted.scores() for kind, counted in self._counted.items()}

    def touching(self) -> tuple[float, int]:
        """Returns the share of the objects that touch another of their class and are found, NaN without any, and how
        many such objects there are."""
        share = float(np.mean(self._touching)) if self._touching else float("nan")
        return share, len(self._touching)


def evaluate_instances(
    predictor: Predictor, dataset: InstanceDataset, indices: Sequence[int], progress: Progress = iter
) -> InstanceEvaluation:
    """Finds the objects of every image and computes average precisions.

    Args:
        predictor: A model whose spec has ``finds_objects``.
        dataset: Images with objects.
        indices: The images to measure.
        progress: Wraps the samples, for a progress bar.

    Raises:
        DataError: A sample cannot be read, or a mask does not fit its image.
        ValueError: The model finds no objects, does not know all classes, or pycocotools is not installed.
    """
    if not predictor.spec.finds_objects:
        raise ValueError(f"{predictor.spec.name} does not find objects one by one: use a detector")
    require_classes(predictor.spec, dataset.class_names)
    results: list[ObjectsResult] = []
    scores: InstanceScores | None = None
    for index, sample in progress(read_ahead(dataset, indices)):
        _check(sample)
        if scores is None:
            scores = InstanceScores(dataset.class_names, sample.masks is not None, predictor.spec.threshold)
        answers = predictor.instances(predictor.encode(sample.rgb), dataset.class_names, 0.0, keep_same=True)
        answered, found = scores.add(sample, answers)
        if sample.masks is not None:
            results.append(ObjectsResult(index, sample.name, int((~sample.crowd).sum()), answered, found))
    precisions = scores.precisions()
    figures = [figure for kind, each in precisions.items() for figure in precision_figures("instances", kind, each)]
    if "mask" in precisions:
        share, count = scores.touching()
        figures.append(Figure("instances.touching.found", share, "share with IoU > 0.5"))
        figures.append(Figure("instances.touching.count", count, "objects"))
    figures.append(Figure("instances.count", len(indices), "pictures"))
    main = precisions.get("mask", precisions["box"])
    return InstanceEvaluation(tuple(figures), tuple(results), tuple(dataset.class_names), main.class_ap50)


def precision_figures(name: str, kind: str, scores: PrecisionScores) -> list[Figure]:
    """Returns COCO's figures; those of boxes have "box" in their names if masks are the main answer."""
    start = f"{name}.box" if kind == "box" else name
    figures = [
        Figure(f"{start}.ap", scores.ap, f"AP of {'boxes' if kind == 'box' else 'masks'}"),
        Figure(f"{start}.ap50", scores.ap50, "AP at IoU 0.5"),
        Figure(f"{start}.ap75", scores.ap75, "AP at IoU 0.75"),
    ]
    by_size = (scores.ap_small, scores.ap_medium, scores.ap_large)
    return figures + [
        Figure(f"{start}.ap_{size}", value, f"AP of {size} objects") for size, value in zip(_SIZES, by_size)
    ]


def _check(sample: InstanceSample) -> None:
    if sample.masks is not None and sample.masks.shape[1:] != sample.rgb.shape[:2]:
        raise DataError(
            f"{sample.name}: the picture is {sample.rgb.shape[:2]} (H, W), but its masks are {sample.masks.shape[1:]}"
        )


def _true_object(sample: InstanceSample, index: int, kind: str) -> PlacedObject:
    return PlacedObject(
        int(sample.labels[index]),
        tuple(sample.boxes_px[index].tolist()),
        sample.masks[index] if kind == "mask" else None,
        area_px=float(sample.areas_px[index]),
        crowd=bool(sample.crowd[index]),
    )


def _answer(item: Instance, label: int, kind: str) -> PlacedObject:
    mask = None
    if kind == "mask":
        mask = np.zeros(item.image_size, bool)
        mask[window_of(item.box_px)] = item.inside
    return PlacedObject(label, item.box, mask, item.score)
