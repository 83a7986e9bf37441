# SPDX-License-Identifier: Apache-2.0
"""From an encoded image and a question to objects: the same steps for every node, service and action."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from clip_seg_ros.pipeline.cell_maps import CellMaps, objects_above
from clip_seg_ros.pipeline.edges import refined
from clip_seg_ros.pipeline.leaving_out import leave_out
from clip_seg_ros.pipeline.postprocess import MAX_REGIONS
from clip_seg_ros.pipeline.stream.singles import Singles
from clip_seg_ros.pipeline.stream.smoothing import Steadiness, TemporalSmoother
from clip_seg_ros.pipeline.stream.tracking import Tracker
from clip_seg_ros.pipeline.thresholds import Thresholds
from clip_seg_ros.types import CameraFrame, ObjectRegion

if TYPE_CHECKING:  # torch takes seconds to import, and nodes import this before they can end cleanly
    from clip_seg_ros.models.spec import ModelSpec
    from clip_seg_ros.pipeline.predictor import EncodedImage, Predictor
    from clip_seg_ros.pipeline.separation import Separator

_MOST_FORGOTTEN = 256
"""The number of prompts that are forgotten one by one; more may have been named before the next image comes."""


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
    own_thresholds: tuple[tuple[str, float], ...] = ()
    """Phrases with thresholds of their own, 0..1, which count instead of ``threshold``."""

    @property
    def phrases(self) -> tuple[str, ...]:
        """The prompts and then the negatives, each phrase once."""
        return tuple(dict.fromkeys((*self.prompts, *self.negatives)))


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


@dataclass(frozen=True)
class Refinement:
    """What is done with the objects of a model's masks, by means of the image itself."""

    edges: bool = False
    """Whether masks are fitted to the edges of the image (``pipeline.edges``)."""
    separator: Separator | None = None
    """Takes objects that touch apart (``pipeline.separation``); ``None`` leaves them together."""


AS_IT_IS = Refinement()
"""Objects are those that the model finds, or the connected parts of its masks."""


def answer(
    predictor: Predictor,
    encoded: EncodedImage,
    question: Question,
    frame: CameraFrame | None = None,
    refinement: Refinement = AS_IT_IS,
) -> Answer:
    """Answers a question about one image, without regard to other images.

    Args:
        predictor: The model.
        encoded: The image, as ``predictor`` encoded it.
        question: The question.
        frame: The image itself, with depth if there is any, for ``refinement``; without one, nothing is refined.
        refinement: What is done with the objects.

    Raises:
        ValueError: ``Predictor.ask`` refuses the prompts, the threshold is out of range, or ``frame`` is not of the
            size of the image.
    """
    result = answered(question, asked(predictor, encoded, question), predictor.spec)
    return result if frame is None else refined_answer(result, question, predictor.spec, frame, refinement)


def asked(predictor: Predictor, encoded: EncodedImage, question: Question) -> CellMaps:
    """Does the first half of ``answer``, which needs the model; raises what it raises."""
    return _without_nan(predictor.ask_cells(encoded, question.phrases))


def asked_each(
    predictor: Predictor, encoded: EncodedImage, questions: Sequence[Question]
) -> list[CellMaps | ValueError]:
    """Does the first half of ``answer`` for questions about one image that know nothing of each other.

    They are asked in one pass where this makes no difference: where prompts compete, each question is asked alone. So
    it is if the model refuses any of them.

    Returns:
        For each question the probabilities of its phrases, or what ``asked`` raises.
    """
    if predictor.spec.competition == "sigmoid" and len(questions) > 1:
        phrases = tuple(dict.fromkeys(phrase for question in questions for phrase in question.phrases))
        try:
            maps = _without_nan(predictor.ask_cells(encoded, phrases))
        except ValueError:
            pass
        else:
            return [maps.part(question.phrases) for question in questions]
    found: list[CellMaps | ValueError] = []
    for question in questions:
        try:
            found.append(asked(predictor, encoded, question))
        except ValueError as error:
            found.append(error)
    return found


def answered(question: Question, maps: CellMaps, spec: ModelSpec, decided: np.ndarray | None = None) -> Answer:
    """Does the second half of ``answer``: makes objects of masks and leaves out those that a negative names.

    Args:
        question: The question.
        maps: The probabilities of its prompts and negatives, without NaN.
        spec: Specification of the model, with its own threshold and the least score of its objects.
        decided: (P, h, w) float32, what decides instead of the probabilities.

    Raises:
        ValueError: The threshold is out of range.
    """
    prompts, thresholds = tuple(dict.fromkeys(question.prompts)), _thresholds(question, spec.threshold)
    positive = maps.part(prompts)
    least_px = _least_px(question, maps.size)
    inside = None if decided is None or decided is maps.values else decided[: len(prompts)]
    found = _objects(positive, thresholds, least_px, inside)
    kept = [region for region in found if region.score >= spec.calibration.least_score]
    for negative in question.negatives:
        kept = leave_out(kept, maps.part((negative,)).restored().values[0], thresholds.of(negative))
    kept = [region for region in kept if region.area_px >= least_px]
    if len(kept) < len(found):
        kept = [replace(region, id=id) for id, region in enumerate(kept, start=1)]
    return Answer(positive, tuple(kept))


def refined_answer(
    result: Answer, question: Question, spec: ModelSpec, frame: CameraFrame, refinement: Refinement
) -> Answer:
    """Takes objects apart and fits masks to edges, as ``refinement`` says.

    Args:
        result: The answer, whose regions have no positions yet.
        question: What was asked.
        spec: Specification of the model.
        frame: The image.
        refinement: What is done.

    Raises:
        ValueError: ``frame`` is not of the size of the image.
    """
    result = separated(result, question, frame, refinement)
    return with_edges(result, question, spec.threshold, frame.rgb) if refinement.edges else result


def separated(
    result: Answer, question: Question, frame: CameraFrame, refinement: Refinement, singles: Singles | None = None
) -> Answer:
    """Does the first half of ``refined_answer``: takes objects apart, if there is a separator.

    The objects of a model that finds them one by one are apart already. ``singles`` is what is known of the regions
    from the images before.
    """
    if refinement.separator is None or result.maps.objects is not None:
        return result
    least_px = _least_px(question, result.maps.size)
    regions = refinement.separator.separate(result.regions, result.maps, frame, least_px, singles)
    return replace(result, regions=tuple(regions))


def with_edges(result: Answer, question: Question, own_threshold: float, rgb: np.ndarray) -> Answer:
    """Fits the masks of an answer to the edges of its image, as ``edges.refined`` does; all else stays.

    Args:
        result: The answer, whose regions have no positions yet.
        question: What was asked.
        own_threshold: The model's own threshold, 0..1, for a question without one.
        rgb: (H, W, 3) uint8, the image.

    Raises:
        ValueError: ``rgb`` is not of the size of the image, or the threshold is out of range.
    """
    fitted: dict[int, ObjectRegion] = {}
    for threshold, prompts in _thresholds(question, own_threshold).groups(result.maps.prompts):
        # Regions of one prompt share pixels out among each other, those of different prompts do not.
        own = [region for region in result.regions if region.prompt in prompts]
        fitted |= {region.id: region for region in refined(own, result.maps, rgb, threshold)}
    return replace(result, regions=tuple(fitted[region.id] for region in result.regions))


def _without_nan(maps: CellMaps) -> CellMaps:
    # The maximum is NaN if any value is.
    if np.isnan(maps.values.max(initial=0.0)):
        return replace(maps, values=np.nan_to_num(maps.values, nan=0.0))
    return maps


@dataclass(frozen=True)
class Look:
    """An image of a ``Stream`` that is compared with those before it."""

    rgb: np.ndarray
    """(H, W, 3) uint8."""
    stamp_ns: int
    forgotten: frozenset[str] | None
    """The prompts whose past is to be forgotten before the image is answered; ``None`` for all."""
    steadiness: Future[Steadiness]


class Stream:
    """Answers questions about the images of one camera in their order, with steady masks and lasting ids.

    Args:
        smoothing: Strength of the ``TemporalSmoother``; with 0 every image is answered by itself.
        margin: Hysteresis of the ``TemporalSmoother``, as a distance from the threshold.
        track_age_s: How many seconds the ``Tracker`` keeps the id of an object that is out of sight; with 0 there is no
            tracker, and ids count the objects of each image.
        refinement: The first value of the attribute of this name.
    """

    def __init__(self, smoothing: float, margin: float, track_age_s: float, refinement: Refinement = AS_IT_IS) -> None:
        self._smoother = TemporalSmoother(smoothing, margin)
        self.refinement = refinement
        """What is done with the objects of an image. Ids do not depend on whether masks are fitted to edges, because
        objects are recognised by the masks that the model gives."""
        self._singles = Singles()
        self._forgotten: set[str] = set()
        self._all_forgotten = False
        # The image is compared with the earlier ones while the model runs on a GPU or on another core. The thread ends
        # with this object.
        self._beside = ThreadPoolExecutor(1, "smoothing")
        self._tracker = Tracker(track_age_s) if track_age_s > 0 else None
        # A weak reference, because a model that was replaced must not stay in memory until the next image.
        self._asked: weakref.ref[Predictor] | None = None

    def forget(self, prompt: str) -> None:
        """Forgets the past answers and objects of a prompt; it is safe to call from any thread."""
        if len(self._forgotten) < _MOST_FORGOTTEN:
            self._forgotten.add(prompt)
        else:
            self._all_forgotten = True

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
        looking = self.look(rgb, stamp_ns)
        try:
            maps = predictor.ask_cells(encoded, question.phrases)
        except Exception:
            self.give_up(looking)
            raise
        return self.finish(predictor, maps, question, looking)

    def look(self, rgb: np.ndarray, stamp_ns: int) -> Look:
        """Begins to compare the next image with the earlier ones, on a thread.

        Call ``finish`` or ``give_up`` with the result, for all images in the same order. Until then, the next images
        may be begun.

        Args:
            rgb: (H, W, 3) uint8, the image.
            stamp_ns: When the image was taken, in nanoseconds.
        """
        # A prompt that is forgotten later may still have its old meaning in this image, and is forgotten before the
        # next one.
        everything, self._all_forgotten = self._all_forgotten, False
        forgotten = set()
        while self._forgotten:
            forgotten.add(self._forgotten.pop())
        named = None if everything else frozenset(forgotten)
        return Look(rgb, stamp_ns, named, self._beside.submit(self._smoother.look, rgb, stamp_ns))

    def give_up(self, look: Look) -> None:
        """Ends an image that has no answer: the next answer is not averaged with those before."""
        look.steadiness.exception()
        self._smoother.forget_all()
        self._forget(look.forgotten)

    def finish(
        self,
        predictor: Predictor,
        maps: CellMaps,
        question: Question,
        look: Look,
        frame: CameraFrame | None = None,
    ) -> Answer:
        """Answers a question with the probabilities that the model gave for an image.

        Args:
            predictor: The model that was asked.
            maps: What ``Predictor.ask_cells`` returned for the phrases of the question, prompts first.
            question: The question.
            look: What ``look`` returned for the image.
            frame: The image with its depth; without one, objects are taken apart by their colours and shape alone.

        Raises:
            ValueError: ``frame`` is not of the size of the image.
        """
        if self._asked is None or self._asked() is not predictor:
            self._smoother.forget_all()
            self._asked = weakref.ref(predictor)
        self._forget(look.forgotten)
        spec = predictor.spec
        steadiness, decided = look.steadiness.result(), None
        if maps.objects is None:
            maps, decided = self._smoother.smooth(maps, steadiness, _thresholds(question, spec.threshold))
        else:
            maps = _without_nan(maps)  # objects cannot be averaged, and maps must be those of the objects
        refinement, frame = self.refinement, frame or CameraFrame(look.rgb, look.stamp_ns, "")
        result = answered(question, maps, spec, decided)
        result = separated(result, question, frame, refinement, self._singles)
        if self._tracker is not None:
            result = Answer(result.maps, tuple(self._tracker.update(result.regions, look.rgb, look.stamp_ns)))
        return with_edges(result, question, spec.threshold, look.rgb) if refinement.edges else result

    def _forget(self, prompts: Iterable[str] | None) -> None:
        if prompts is None:
            self._smoother.forget_all()
            if self._tracker is not None:
                self._tracker.reset()
            return
        for prompt in prompts:
            self._smoother.forget(prompt)
            if self._tracker is not None:
                self._tracker.forget(prompt)


def _least_px(question: Question, size: tuple[int, int]) -> int:
    """Returns the area of the smallest object in an image of ``size`` (H, W), at least 1."""
    return max(1, round(question.min_area_fraction * size[0] * size[1]))


def _thresholds(question: Question, own: float) -> Thresholds:
    """Returns the thresholds of a question, with the model's own. Raises ValueError if one is out of range."""
    return Thresholds(own if question.threshold is None else question.threshold, question.own_thresholds)


def _objects(maps: CellMaps, thresholds: Thresholds, least_px: int, decided: np.ndarray | None) -> list[ObjectRegion]:
    """Returns the objects of all prompts, the best first, as ``objects_above`` does with one threshold for all."""
    (threshold, _), *others = groups = thresholds.groups(maps.prompts)
    if not others:
        return objects_above(maps, threshold, least_px, decided)
    found: list[ObjectRegion] = []
    for threshold, prompts in groups:
        part = None if decided is None else decided[[maps.prompts.index(prompt) for prompt in prompts]]
        found += objects_above(maps.part(prompts), threshold, least_px, part)
    found.sort(key=lambda region: (-region.score, maps.prompts.index(region.prompt)))
    return [replace(region, id=id) for id, region in enumerate(found[:MAX_REGIONS], start=1)]
