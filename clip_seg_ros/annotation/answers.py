# SPDX-License-Identifier: Apache-2.0
"""From the images of a source to the objects in them, by the functions that the nodes use, too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from clip_seg_ros.commands.references import Reference
from clip_seg_ros.config import ReferringConfig
from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.spec import ModelSpec
from clip_seg_ros.pipeline.answering import Answer, Question, Refinement, Stream
from clip_seg_ros.pipeline.predictor import EncodedImage, Predictor
from clip_seg_ros.pipeline.separation import Separator
from clip_seg_ros.pipeline.space.localization import measure
from clip_seg_ros.pipeline.space.understanding import Asking, Understood, understand
from clip_seg_ros.sources.frame import Frame
from clip_seg_ros.types import CameraFrame

FRAME = "camera"
"""The frame of positions: x right, y down, z forward."""


class FrameAnswers:
    """Answers the images of one source, one after the other, on one thread.

    Args:
        config: Returns the present parameters.
        is_still: Whether the images have nothing to do with each other. Otherwise masks are steady and ids last.
        own_thresholds: Phrases with thresholds of their own, 0..1.
    """

    def __init__(
        self,
        config: Callable[[], ReferringConfig],
        is_still: bool,
        own_thresholds: tuple[tuple[str, float], ...] = (),
    ) -> None:
        self._own_thresholds = own_thresholds
        self._config, self._is_still = config, is_still
        self._settings = (0.0, 0.0, 0.0)
        self._stream = Stream(*self._settings)
        self._encoded: tuple[Frame, Predictor, EncodedImage] | None = None
        self.fault = ""
        """What does not work as it should, for people."""

    def forget(self, prompt: str) -> None:
        """Drops the past of a phrase, because its meaning has changed; it may be called from any thread."""
        self._stream.forget(prompt)

    def asking(
        self, prompts: Sequence[str], references: Sequence[Reference], negatives: Sequence[str], spec: ModelSpec
    ) -> Asking:
        """Returns what a model is asked for, so that the phrases of a command can be understood.

        Args:
            prompts: The phrases as they were typed.
            references: What each of them refers to.
            negatives: The phrases to leave out.
            spec: Specification of the model.
        """
        way, understands = self._config().relations, spec.understands_relations
        by_model, by_both = understands and way == "model", understands and way == "both"
        return Asking.of(prompts, references, negatives, by_model, by_both)

    def answer(
        self,
        predictor: Predictor,
        frame: Frame,
        asking: Asking,
        is_first: bool = False,
        up: tuple[float, float, float] | None = None,
    ) -> Understood:
        """Answers one image.

        Args:
            predictor: The model.
            frame: The image.
            asking: What is asked.
            is_first: Whether the source begins with it, or begins anew.
            up: The direction against gravity, a unit vector of ``FRAME``; ``None`` if only the depth tells it.

        Raises:
            ValueError: The model refuses the image or the phrases.
        """
        config, spec, camera = self._config(), predictor.spec, camera_frame(frame)
        threshold = asking.threshold(config.asked_threshold, spec.threshold)
        own = self._own_thresholds
        question = Question(asking.names, asking.negatives, threshold, config.min_area_fraction, own)
        found = self._answered(predictor, frame, camera, question, is_first)
        measured = tuple(measure(region, camera) for region in found.regions)
        return understand(asking, measured, found.maps, camera, up)

    def encoded(self, predictor: Predictor, frame: Frame) -> EncodedImage:
        """Encodes an image, once if it is asked for again. Raises ValueError if the model refuses it."""
        kept = self._encoded
        if kept is not None and kept[0] is frame and kept[1] is predictor:
            return kept[2]
        encoded = predictor.encode(frame.rgb)
        self._encoded = (frame, predictor, encoded)
        return encoded

    def _answered(
        self, predictor: Predictor, frame: Frame, camera: CameraFrame, question: Question, is_first: bool
    ) -> Answer:
        config = self._config()
        settings = (config.smoothing, config.hysteresis, config.track_age_s)
        if not self._is_still and (settings != self._settings or is_first):
            self._settings, self._stream = settings, Stream(*settings)
        stream = self._stream
        stream.refinement = Refinement(config.refine_edges, self._separator if config.separate_touching else None)
        encoded = self.encoded(predictor, frame)
        look = stream.look(camera.rgb, camera.stamp_ns)
        try:
            maps = predictor.ask_cells(encoded, question.phrases)
        except Exception:
            stream.give_up(look)
            raise
        return stream.finish(predictor, maps, question, look, camera)

    @cached_property
    def _separator(self) -> Separator | None:
        try:
            return Separator.load()
        except (WeightsError, FileNotFoundError) as error:
            self.fault = f"objects that touch stay together: {error}"
            return None


def camera_frame(frame: Frame) -> CameraFrame:
    """Returns an image as the pipeline takes it."""
    return CameraFrame(frame.rgb, frame.stamp_ns, FRAME, frame.depth_m, frame.intrinsics)
