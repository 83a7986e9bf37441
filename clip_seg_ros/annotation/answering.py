# SPDX-License-Identifier: Apache-2.0
"""Answers the images of a shard: what a job asks, and the objects in each image as they are kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clip_seg_ros.annotation.answers import FrameAnswers
from clip_seg_ros.annotation.job import Job, Source
from clip_seg_ros.annotation.results import AnnotatedObject
from clip_seg_ros.annotation.serving import model_of, second_model_of
from clip_seg_ros.config import ReferringConfig
from clip_seg_ros.pipeline.naming import reference_of
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.pipeline.prompts import checked_prompts
from clip_seg_ros.pipeline.space.understanding import Asking
from clip_seg_ros.pipeline.thresholds import Thresholds
from clip_seg_ros.sources.frame import Frame
from clip_seg_ros.types import ObjectRegion


class Answering:
    """Answers images one after the other.

    Args:
        job: A job whose models are known (``serving.resolved``).
        source: The source of the job that has the images.
        is_still: Whether the images have nothing to do with each other.

    Raises:
        ValueError: A phrase is not understood, or a model refuses it.
        WeightsError: The weights of a model are missing or damaged.
    """

    def __init__(self, job: Job, source: Source, is_still: bool) -> None:
        self._job, self._is_still = job, is_still
        self._models = checked_models(job)
        config = config_of(job, source)
        own = tuple((each.text, each.threshold) for each in job.phrases if each.threshold is not None)
        # The second model answers like the first, with masks and ids of its own.
        self._answers = [FrameAnswers(lambda: config, is_still, own) for _ in self._models]
        pairs = zip(self._answers, self._models, strict=True)
        self._askings = [_asking(job, answers, model) for answers, model in pairs]
        asked = self._askings[0].threshold(config.asked_threshold, threshold_of(self._models[0]))
        self._thresholds = Thresholds(threshold_of(self._models[0]) if asked is None else asked, own)

    @property
    def faults(self) -> list[str]:
        """What does not work as it should, for people."""
        return [each.fault for each in self._answers if each.fault]

    def answer(self, frame: Frame) -> tuple[tuple[AnnotatedObject, ...], float | None]:
        """Returns the objects of the next image, and how well the second model agrees, 0..1.

        Raises:
            ValueError: A model refuses the image or the phrases.
        """
        found = [self._regions(index, frame) for index in range(len(self._models))]
        objects = tuple(self._annotated(region) for region in found[0])
        if len(found) == 1:
            return objects, None
        prompts = [each.text for each in self._job.phrases]
        return objects, round(agreement(found[0], found[1], prompts, frame.rgb.shape[:2]), 4)

    def _regions(self, index: int, frame: Frame) -> list[ObjectRegion]:
        understood = self._answers[index].answer(self._models[index], frame, self._askings[index])
        return [each.region for each in understood.measured]

    def _annotated(self, region: ObjectRegion) -> AnnotatedObject:
        track = 0 if self._is_still else region.id
        return AnnotatedObject.of(region, track, self._threshold(region.prompt), self._job.sure_from)

    def _threshold(self, prompt: str) -> float:
        # A phrase that places decide is asked for as its name.
        asking = self._askings[0]
        at = asking.prompts.index(prompt)
        return self._thresholds.of(asking.references[at].name if asking.in_space[at] else prompt)


def checked_models(job: Job) -> list[Predictor]:
    """Returns the models of a resolved job, which are loaded then, and know all of its phrases.

    Raises:
        ValueError: A phrase is not understood, or a model refuses it; the message names the classes that it has.
        WeightsError: The weights of a model are missing or damaged.
    """
    models, config = [model_of(job)], config_of(job, job.sources[0])
    if (second := second_model_of(job)) is not None:
        models.append(second)
    for model in models:
        asking = _asking(job, FrameAnswers(lambda: config, is_still=True), model)
        checked_prompts([*asking.names, *asking.negatives], model.spec)
    return models


def _asking(job: Job, answers: FrameAnswers, model: Predictor) -> Asking:
    prompts = [each.text for each in job.phrases]
    return answers.asking(prompts, [reference_of(prompt) for prompt in prompts], job.negatives, model.spec)


def threshold_of(model: Predictor) -> float:
    """Returns the threshold that a model brings, 0..1."""
    return float(model.spec.threshold)


def config_of(job: Job, source: Source) -> ReferringConfig:
    """Returns what a job asks for of one of its sources as the parameters of a node."""
    return ReferringConfig.from_mapping(
        {
            "min_area_fraction": job.min_area_fraction,
            "smoothing": job.smoothing,
            "track_age_s": job.track_age_of(source),
            "refine_edges": job.refine_edges,
            "separate_touching": job.separate_touching,
        }
    )


def agreement(
    one: Sequence[ObjectRegion], other: Sequence[ObjectRegion], prompts: Sequence[str], size: tuple[int, int]
) -> float:
    """Returns the mean over prompts of the IoU of two answers' masks, 0..1; it is 1 where neither has any.

    Args:
        one: The objects of one answer.
        other: Those of the other.
        prompts: The prompts, at least one.
        size: (H, W) of the image.
    """
    return float(np.mean([_iou(_union(one, prompt, size), _union(other, prompt, size)) for prompt in prompts]))


def _union(regions: Sequence[ObjectRegion], prompt: str, size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size, np.bool_)
    for region in regions:
        if region.prompt == prompt:
            mask[region.window] |= region.inside
    return mask


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 1.0
