# SPDX-License-Identifier: Apache-2.0
"""From an encoded image and a question to objects: the same steps for every node, service and action."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from clip_seg_ros.pipeline.cell_maps import CellMaps, runs_of_cells
from clip_seg_ros.pipeline.leaving_out import leave_out
from clip_seg_ros.pipeline.postprocess import regions_of
from clip_seg_ros.pipeline.stream.smoothing import TemporalSmoother
from clip_seg_ros.pipeline.stream.tracking import Tracker
from clip_seg_ros.types import ObjectRegion

if TYPE_CHECKING:  # torch takes seconds to import, and nodes import this before they can end cleanly
    from clip_seg_ros.pipeline.predictor import EncodedImage, Predictor


@dataclass(frozen=True)
class Question:
    """What to look for in an image."""

    prompts: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    """Phrases whose objects are left out."""
    threshold: float | None = None
    """A pixel belongs to a prompt above this probability, 0..1; ``None`` stands for the model's own threshold."""
    min_area_fraction: float = 0.0
    """The area of the smallest object, as a share of the image's pixels, 0..1."""


@dataclass(frozen=True)
class Answer:
    """What was found in an image for a ``Question``."""

    maps: CellMaps
    """The probabilities of the prompts, each once, without the negatives."""
    regions: tuple[ObjectRegion, ...]
    """The objects, the one with the best score first."""

    def best_score(self) -> float:
        """Returns the highest probability of any place for any prompt, 0..1; 0 if there were no prompts."""
        return self.maps.best_score()


def answer(predictor: Predictor, encoded: EncodedImage, question: Question) -> Answer:
    """Answers a question about one image, without regard to other images.

    Raises:
        ValueError: ``Predictor.ask`` refuses the prompts.
    """
    maps = _asked(predictor, encoded, _all_phrases(question))
    return _answered(question, maps, maps.values, _threshold(question, predictor))


def answer_each(
    predictor: Predictor, encoded: EncodedImage, questions: Sequence[Question]
) -> list[Answer | ValueError]:
    """Answers questions about one image that know nothing of each other, in one pass where this makes no difference.

    Where prompts compete, each question is asked alone. So it is if the model refuses any of them.

    Returns:
        For each question its answer, or what ``answer`` raises.
    """
    if predictor.spec.competition == "sigmoid" and len(questions) > 1:
        asked = tuple(dict.fromkeys(phrase for question in questions for phrase in _all_phrases(question)))
        try:
            maps = _asked(predictor, encoded, asked)
        except ValueError:
            pass
        else:
            return [_part_of(question, maps, _threshold(question, predictor)) for question in questions]
    answers: list[Answer | ValueError] = []
    for question in questions:
        try:
            answers.append(answer(predictor, encoded, question))
        except ValueError as error:
            answers.append(error)
    return answers


def _part_of(question: Question, maps: CellMaps, threshold: float) -> Answer:
    """Answers a question by the maps of its own phrases among others."""
    part = maps.part(_all_phrases(question))
    return _answered(question, part, part.values, threshold)


def _asked(predictor: Predictor, encoded: EncodedImage, phrases: tuple[str, ...]) -> CellMaps:
    """Asks about an image that is answered by itself; NaN becomes 0."""
    maps = predictor.ask_cells(encoded, phrases)
    # The maximum is NaN if any value is.
    if np.isnan(maps.values.max(initial=0.0)):
        return replace(maps, values=np.nan_to_num(maps.values, nan=0.0))
    return maps


class Stream:
    """Answers questions about the images of one camera in their order, with steady masks and lasting ids.

    Args:
        smoothing: Strength of the ``TemporalSmoother``; with 0 every image is answered by itself.
        margin: Hysteresis of the ``TemporalSmoother``, as a distance from the threshold.
        track_age_s: How many seconds the ``Tracker`` keeps the id of an object that is out of sight; with 0 there is no
            tracker, and ids count the objects of each image.
    """

    def __init__(self, smoothing: float, margin: float, track_age_s: float) -> None:
        self._smoother = TemporalSmoother(smoothing, margin)
        self._forgotten: set[str] = set()
        # The image is compared with the earlier ones while the model runs on a GPU or on another core. The thread ends
        # with this object.
        self._beside = ThreadPoolExecutor(1, "smoothing")
        self._tracker = Tracker(track_age_s) if track_age_s > 0 else None
        # A weak reference, because a model that was replaced must not stay in memory until the next image.
        self._asked: weakref.ref[Predictor] | None = None

    def forget(self, prompt: str) -> None:
        """Forgets the past answers and objects of a prompt; it is safe to call from any thread."""
        self._forgotten.add(prompt)

    def answer(
        self, predictor: Predictor, encoded: EncodedImage, question: Question, rgb: np.ndarray, stamp_ns: int
    ) -> Answer:
        """Answers a question about the next image.

        Args:
            predictor: The model. Its answers are not averaged with those of another model.
            encoded: The image, as ``predictor`` encoded it.
            question: The question. It may differ from image to image; prompts that stay keep their past.
            rgb: (H, W, 3) uint8, the image.
            stamp_ns: When the image was taken, in nanoseconds.

        Raises:
            ValueError: ``Predictor.ask`` refuses the prompts.
        """
        if self._asked is None or self._asked() is not predictor:
            self._smoother.reset()
            self._asked = weakref.ref(predictor)
        # This comes before the model is asked: a prompt that is forgotten meanwhile may still be in this answer, and
        # has to be forgotten again before the next one.
        while self._forgotten:
            prompt = self._forgotten.pop()
            self._smoother.forget(prompt)
            if self._tracker is not None:
                self._tracker.forget(prompt)
        looking = self._beside.submit(self._smoother.look, rgb, stamp_ns)
        try:
            maps = predictor.ask_cells(encoded, _all_phrases(question))
        except Exception:
            # The smoother has seen an image that will have no answer. It can be reset once it is done with that image.
            looking.exception()
            self._smoother.reset()
            raise
        threshold = _threshold(question, predictor)
        maps, decided = self._smoother.smooth(maps, looking.result(), threshold)
        result = _answered(question, maps, decided, threshold)
        if self._tracker is None:
            return result
        return Answer(result.maps, tuple(self._tracker.update(result.regions, rgb, stamp_ns)))


def _threshold(question: Question, predictor: Predictor) -> float:
    return predictor.spec.threshold if question.threshold is None else question.threshold


def _all_phrases(question: Question) -> tuple[str, ...]:
    """Returns the prompts and then the negatives, each phrase once."""
    return tuple(dict.fromkeys((*question.prompts, *question.negatives)))


def _answered(question: Question, maps: CellMaps, decided: np.ndarray, threshold: float) -> Answer:
    """Makes objects of the prompts' masks and leaves out those that a negative names."""
    prompts = tuple(dict.fromkeys(question.prompts))
    positive = maps.part(prompts)
    height, width = maps.size
    least_px = max(1, round(question.min_area_fraction * height * width))
    inside = positive.values if decided is maps.values else decided[: len(prompts)]
    runs = runs_of_cells(positive, inside, threshold)
    found = regions_of(runs, prompts, least_px, tidy=True)
    kept = found
    for negative in question.negatives:
        kept = leave_out(kept, maps.part((negative,)).restored().values[0], threshold)
    kept = [region for region in kept if region.area_px >= least_px]
    if len(kept) < len(found):
        kept = [replace(region, id=id) for id, region in enumerate(kept, start=1)]
    return Answer(positive, tuple(kept))
