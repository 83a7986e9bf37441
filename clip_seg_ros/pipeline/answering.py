# SPDX-License-Identifier: Apache-2.0
"""From one image and a question to objects: the steps that every node, service and action takes in the same order."""

from __future__ import annotations

import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from clip_seg_ros.pipeline.leaving_out import leave_out
from clip_seg_ros.pipeline.postprocess import masks, regions
from clip_seg_ros.pipeline.stream.smoothing import TemporalSmoother
from clip_seg_ros.pipeline.stream.tracking import Tracker
from clip_seg_ros.types import MaskSet, ObjectRegion, ProbabilityMaps

if TYPE_CHECKING:  # torch takes seconds to import, and nodes import this before they can end cleanly
    from clip_seg_ros.pipeline.predictor import EncodedImage, Predictor


@dataclass(frozen=True)
class Question:
    """What is asked of an image."""

    prompts: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    """Phrases whose objects are left out."""
    threshold: float | None = None
    """A pixel belongs to a prompt above this probability, 0..1; ``None`` for the threshold of the model that is
    asked."""
    min_area_fraction: float = 0.0
    """Smallest object, as a share of the image's pixels, 0..1."""


@dataclass(frozen=True)
class Answer:
    """What an image holds of what was asked."""

    maps: ProbabilityMaps
    """Of the prompts, each once, without the negatives."""
    regions: tuple[ObjectRegion, ...]
    """The best first."""

    def best_score(self) -> float:
        """The highest probability of any pixel for any prompt, 0..1; 0 where nothing was asked."""
        return float(self.maps.values.max(initial=0.0))


def answer(predictor: Predictor, encoded: EncodedImage, question: Question) -> Answer:
    """Answers a question about one image by itself.

    Raises:
        ValueError: What ``Predictor.ask`` raises.
    """
    threshold = _threshold(question, predictor)
    maps = predictor.ask(encoded, _all_phrases(question))
    return _answered(question, maps, masks(maps, threshold))


class Stream:
    """Answers the images of one camera in their order, with steady masks and ids that stay.

    Args:
        smoothing: Strength of ``TemporalSmoother``; 0 = every image by itself.
        margin: Its hysteresis.
        track_age_s: How long ``Tracker`` keeps the id of what is out of sight; 0 = ids count the objects of each image.
    """

    def __init__(self, smoothing: float, margin: float, track_age_s: float) -> None:
        self._smoother = TemporalSmoother(smoothing, margin)
        self._forgotten: set[str] = set()
        # The image is compared with those before while the model answers, on a GPU or on another core. The thread
        # ends with this object.
        self._beside = ThreadPoolExecutor(1, "smoothing")
        self._tracker = Tracker(track_age_s) if track_age_s > 0 else None
        # Weak, since a model that was replaced must not stay in memory until the next image.
        self._asked: weakref.ref[Predictor] | None = None

    def forget(self, prompt: str) -> None:
        """Lets what was answered to a prompt have no say in what will be; safe to call from any thread."""
        self._forgotten.add(prompt)

    def answer(
        self, predictor: Predictor, encoded: EncodedImage, question: Question, rgb: np.ndarray, stamp_ns: int
    ) -> Answer:
        """Answers a question about the next image.

        Args:
            predictor: The model. The answers of another one are not averaged with its own.
            encoded: The image, as ``predictor`` encoded it.
            question: May differ from image to image; what was asked of the one before goes on.
            rgb: (H, W, 3) uint8, the image.
            stamp_ns: When it was taken, nanoseconds.

        Raises:
            ValueError: What ``Predictor.ask`` raises.
        """
        if self._asked is None or self._asked() is not predictor:
            self._smoother.reset()
            self._asked = weakref.ref(predictor)
        # Before the model is asked: what is forgotten meanwhile may be in this answer, and has to go with the next.
        while self._forgotten:
            prompt = self._forgotten.pop()
            self._smoother.forget(prompt)
            if self._tracker is not None:
                self._tracker.forget(prompt)
        looking = self._beside.submit(self._smoother.look, rgb, stamp_ns)
        try:
            maps = predictor.ask(encoded, _all_phrases(question))
        except Exception:
            # The smoother has seen an image that will have no answer. Only once it is done with it, it can be reset.
            looking.exception()
            self._smoother.reset()
            raise
        maps, mask_set = self._smoother.smooth(maps, looking.result(), _threshold(question, predictor))
        result = _answered(question, maps, mask_set)
        if self._tracker is None:
            return result
        return Answer(result.maps, tuple(self._tracker.update(result.regions, rgb, stamp_ns)))


def _threshold(question: Question, predictor: Predictor) -> float:
    return predictor.spec.threshold if question.threshold is None else question.threshold


def _all_phrases(question: Question) -> tuple[str, ...]:
    """Prompts, then negatives, each phrase once."""
    return tuple(dict.fromkeys((*question.prompts, *question.negatives)))


def _answered(question: Question, maps: ProbabilityMaps, mask_set: MaskSet) -> Answer:
    """Takes the objects of the prompts and leaves out those that a negative names."""
    prompts = tuple(dict.fromkeys(question.prompts))
    positive = ProbabilityMaps(prompts, maps.values[: len(prompts)])
    inside = MaskSet(prompts, mask_set.values[: len(prompts)], mask_set.threshold)
    height, width = maps.values.shape[1:]
    least_px = max(1, round(question.min_area_fraction * height * width))
    found = regions(positive, inside, least_px, tidy=True)
    kept = found
    for negative in question.negatives:
        kept = leave_out(kept, maps.values[maps.prompts.index(negative)], mask_set.threshold)
    kept = [region for region in kept if region.area_px >= least_px]
    if len(kept) < len(found):
        kept = [replace(region, id=id) for id, region in enumerate(kept, start=1)]
    return Answer(positive, tuple(kept))
