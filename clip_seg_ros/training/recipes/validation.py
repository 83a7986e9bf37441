# SPDX-License-Identifier: Apache-2.0
"""Scores a model on other samples while it is trained, so that the best of its weights can be kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from clip_seg_ros.data.samples import InstanceDataset, ReferringDataset, SemanticDataset
from clip_seg_ros.evaluation.answers import LabelAnswers, PhraseAnswers
from clip_seg_ros.evaluation.instances import evaluate_instances
from clip_seg_ros.evaluation.metrics.classes import ConfusionMatrix
from clip_seg_ros.evaluation.metrics.referring import sentence_iou
from clip_seg_ros.evaluation.prefetch import spread
from clip_seg_ros.models.base import PromptableSegmenter
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.training import distributed
from clip_seg_ros.training.recipes.dataset_batches import sentences_of_objects


@dataclass(frozen=True)
class ValidationSettings:
    """The mapping ``validation`` of a recipe file."""

    data: Mapping[str, Any]
    """The data set, as a mapping for ``data.catalog.open_dataset``."""
    every: int
    """The number of steps from one validation to the next; the last step is validated, too."""
    limit: int | None = None
    """The number of samples, evenly spaced over the data set; by default all."""

    def __post_init__(self) -> None:
        if self.every < 1 or (self.limit is not None and self.limit < 1):
            raise ValueError(f"every and limit must be at least 1, got {self.every} and {self.limit}")


def referring_score(
    model: PromptableSegmenter, dataset: ReferringDataset, limit: int | None = None
) -> Callable[[], float]:
    """Returns a function that scores a model by the mean IoU over objects, each asked for with its first sentence.

    This is how CRIS's authors choose their weights: at the model's threshold, at the size of the images. Samples that
    show no object do not count.

    Args:
        model: The model, which is scored as it is at each call.
        dataset: The samples.
        limit: The number of objects, evenly spaced; ``None``: all.
    """
    firsts = [sentences[0] for sentences in sentences_of_objects(dataset)]

    def score() -> float:
        answers = PhraseAnswers(Predictor.from_model(model, str(_device(model))))
        total = np.zeros(2)
        for index in _own_part(firsts, limit):
            sample = dataset[index]
            counted = np.ones_like(sample.mask) if sample.ignored is None else ~sample.ignored
            true = sample.mask[counted]
            if true.any():
                predicted = answers.probabilities(sample)[counted] > model.threshold
                total += (sentence_iou(predicted, true), 1)
        iou, count = _over_processes(total, model)
        return float(iou / count) if count else float("nan")

    return score


def semantic_score(
    model: PromptableSegmenter, dataset: SemanticDataset, limit: int | None = None
) -> Callable[[], float]:
    """Returns a function that scores a model by the mean IoU over the classes of ``dataset``.

    Args:
        model: The model, which is scored as it is at each call.
        dataset: The samples.
        limit: The number of images, evenly spaced; ``None``: all.
    """

    def score() -> float:
        answers = LabelAnswers(Predictor.from_model(model, str(_device(model))), dataset.class_names)
        matrix = ConfusionMatrix(len(dataset.class_names))
        for index in _own_part(range(len(dataset)), limit):
            sample = dataset[index]
            matrix.add(answers.labels(sample.rgb), sample.labels)
        counts = _over_processes(matrix.counts, model)
        return ConfusionMatrix.of(counts).scores().mean_iou

    return score


def instance_score(
    model: PromptableSegmenter, dataset: InstanceDataset, limit: int | None = None
) -> Callable[[], float]:
    """Returns a function that scores a detector by AP50 of masks, or of boxes for a data set without masks.

    Every process measures all images, because precisions of parts cannot be joined.

    Args:
        model: The model, which is scored as it is at each call.
        dataset: The samples.
        limit: The number of images, evenly spaced; ``None``: all.
    """

    def score() -> float:
        predictor = Predictor.from_model(model, str(_device(model)))
        evaluation = evaluate_instances(predictor, dataset, spread(len(dataset), limit))
        values = {figure.name: figure.value for figure in evaluation.figures}
        return values.get("instances.ap50", values["instances.box.ap50"])

    return score


def _own_part(indices: Sequence[int], limit: int | None) -> list[int]:
    """Returns this process's part of the indices that are scored."""
    count = len(indices) if limit is None else min(limit, len(indices))
    chosen = [indices[place * len(indices) // count] for place in range(count)]
    return chosen[distributed.rank() :: distributed.world_size()]


def _over_processes(values: np.ndarray, model: PromptableSegmenter) -> np.ndarray:
    """Returns the sum of ``values`` over all processes."""
    here = torch.from_numpy(values.astype(np.float64)).to(_device(model))
    return distributed.mean(here).cpu().numpy() * distributed.world_size()


def _device(model: PromptableSegmenter) -> torch.device:
    return next(model.parameters()).device
