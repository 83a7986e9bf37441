# SPDX-License-Identifier: Apache-2.0
"""Answers each image with masks and positions of the objects that the current command and the active goals name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from std_msgs.msg import Header

from clip_seg_ros.commands.references import Reference
from clip_seg_ros.config import ReferringConfig
from clip_seg_ros.nodes.camera.camera_input import CameraInput, CameraJob
from clip_seg_ros.nodes.camera.intake import Finish, Intake, TakenImage
from clip_seg_ros.nodes.camera.speaker_frame import SpeakerFrame
from clip_seg_ros.nodes.camera.target_frame import Motion, TargetFrame
from clip_seg_ros.nodes.common.core import NodeCore
from clip_seg_ros.nodes.common.refining import Refining
from clip_seg_ros.nodes.outputs.camera_topics import publish
from clip_seg_ros.nodes.outputs.outcome import Outcome
from clip_seg_ros.nodes.outputs.results import Result, ResultTopics
from clip_seg_ros.nodes.services.finder import Finder, Search
from clip_seg_ros.nodes.services.memory_keeper import MemoryKeeper, Sight
from clip_seg_ros.nodes.tasks.encoding import encode_each
from clip_seg_ros.nodes.tasks.seen import Seen, sight_of
from clip_seg_ros.pipeline.answering import Answer, Question, Stream, answered, asked_each, refined_answer
from clip_seg_ros.pipeline.cell_maps import CellMaps
from clip_seg_ros.pipeline.space.localization import measure
from clip_seg_ros.pipeline.space.understanding import Asking
from clip_seg_ros.types import CameraFrame, ObjectRegion
from clip_seg_ros.zoo.caution import in_corner

if TYPE_CHECKING:
    from clip_seg_ros.pipeline.predictor import EncodedImage, Predictor


@dataclass
class Request:
    """The request of a command, with which every image is answered until another one replaces it."""

    command_id: int
    text: str
    prompts: tuple[str, ...]
    references: tuple[Reference, ...]
    """What each of ``prompts`` refers to."""
    negatives: tuple[str, ...]
    outcome: Outcome
    """The result so far, over all cameras."""
    names_model: bool = False
    """Whether the command asks for another model, which may still be loading."""
    told: bool = False
    """Whether the outcome was published."""


@dataclass(frozen=True)
class _Look:
    """What the model said of the phrase of a goal in one image."""

    search: Search
    asking: Asking
    question: Question
    maps: CellMaps


@dataclass
class _View:
    """The outputs of one camera, and the state that is kept from its images."""

    topics: ResultTopics
    stream: Stream
    settings: tuple[float, float, float]
    """The settings with which ``stream`` was made."""
    last: Result | None = None


class ReferringImages:
    """Answers images and publishes the results.

    Args:
        core: State that the parts of the node share.
        intake: Source of the images.
        finder: Goals that search images independently of the command.
        is_there: Returns whether the model that was asked for last is in use already.
        refining: What is done with the objects of an image.
        keeper: Remembers what was found.
    """

    def __init__(
        self,
        core: NodeCore[ReferringConfig],
        intake: Intake,
        finder: Finder,
        is_there: Callable[[], bool],
        refining: Refining,
        keeper: MemoryKeeper,
    ) -> None:
        self._core, self._intake, self._finder, self._is_there = core, intake, finder, is_there
        self._refining, self._keeper = refining, keeper
        self._sights: list[Sight] = []
        """What is still to be remembered."""
        self._views: dict[str, _View] = {}
        self.request: Request | None = None
        """The current request; ``None`` if there is nothing to look for."""

    def open(self) -> None:
        """Creates the outputs of every camera."""
        node, config = self._core.node, self._core.config
        for camera in config.cameras():
            settings = _stream_settings(config)
            self._views[camera.name] = _View(ResultTopics(node, camera.name), Stream(*settings), settings)
        self._target_frame = TargetFrame(node, config.target_frame, self._core.faults)
        self._speaker_frame = SpeakerFrame(node, config.speaker_frame, self._core.faults)

    def close(self) -> None:
        """Destroys the outputs and drops the request."""
        self._target_frame.close()
        self._speaker_frame.close()
        for view in self._views.values():
            view.topics.close()
        self._views.clear()
        self.request = None

    def ask(self, request: Request) -> None:
        """Replaces the request."""
        with self._core.lock:
            self.request = request

    def forget(self, publish_empty: bool) -> None:
        """Drops the request; with ``publish_empty``, every camera's outputs publish an empty result once."""
        with self._core.lock:
            self.request = None
            for view in self._views.values() if publish_empty else ():
                if view.last is not None:
                    rgb = view.last.rgb
                    nothing, corner = view.last.maps.part(()), view.last.corner
                    publish(view.topics.prepare(Result(view.last.header, rgb, nothing, corner=corner), 1))

    def forget_past_of(self, prompt: str) -> None:
        """Drops the smoothing and the tracks of a phrase, because its meaning has changed."""
        for view in list(self._views.values()):
            view.stream.forget(prompt)

    def idle_because(self, camera: str) -> str:
        """Returns why the request needs no image of a camera; empty if it needs one."""
        request, view = self.request, self._views.get(camera)
        if request is None:
            return "nothing to look for"
        # Until the outcome is published, whoever gave the command waits for it.
        is_heard = view is None or view.topics.is_heard() or self._keeper.is_heard()
        return "nobody listens" if request.told and not is_heard else ""

    def ask_model(self, images: Sequence[TakenImage], predictor: Predictor) -> list[Finish | None]:
        """Asks the model about images for the request and the goals; returns the rest of the work on each image."""
        request = self.request
        wanted = [image for image in images if request is not None or self._finder.searches(image.job.camera.name)]
        rest: dict[str, Finish] = {}
        for image, encoded in zip(wanted, encode_each(predictor, wanted, self._core.faults)):
            if encoded is not None:
                rest[image.job.camera.name] = self._ask(request, image, encoded, predictor)
        return [rest.get(image.job.camera.name) for image in images]

    def _ask(self, request: Request | None, image: TakenImage, encoded: EncodedImage, predictor: Predictor) -> Finish:
        """Asks the model about one image; returns the rest of the work."""
        found = None if request is None else self._ask_request(request, image, encoded, predictor)
        looks = self._look_for(self._finder.searches(image.job.camera.name), encoded, predictor)
        return lambda: self._finish(request, image, predictor, found, looks)

    def _finish(
        self,
        request: Request | None,
        image: TakenImage,
        predictor: Predictor,
        found: Callable[[CameraFrame, Motion | None], Seen] | None,
        looks: Sequence[_Look],
    ) -> bool:
        """Measures and publishes what was found in an image; returns whether anything was published."""
        job, rgb = image.job, image.rgb
        # The frame is made only now because depth often arrives a little later than its image.
        frame = job.camera.frame(job, rgb)
        motion = self._target_frame.of(job.image.header) if frame.depth_m is not None else None
        to_fixed = self._to_fixed(frame, motion)
        seen = [self._look_at(look, predictor, frame, motion, job, to_fixed is not None) for look in looks]
        is_answered = bool(looks) and self._intake.serves(job.camera)
        if request is not None and found is not None:
            asked = found(frame, motion)
            result = Result(
                job.image.header,
                rgb,
                asked.understood.maps,
                asked.understood.measured,
                motion,
                in_corner(predictor.spec),
                self._threshold(request, predictor),
                asked.understood.ties,
            )
            if self._publish(request, job.camera, result, asked.understood.sentences):
                is_answered = True
                seen.insert(0, asked)
        if is_answered and to_fixed is not None:
            least = self._core.config.asked_threshold
            least = predictor.spec.threshold if least is None else least
            self._sights.append(sight_of(seen, frame, job.camera.name, to_fixed, least))
        return is_answered

    def remember(self) -> None:
        """Remembers what was found in the images whose results were just published."""
        sights, self._sights = self._sights, []
        for sight in sights:
            self._keeper.see(sight)

    def place_of(self, frame_id: str) -> tuple[float, float, float] | None:
        """Returns where a frame is in the target frame at present, metres; ``None`` if it is not known."""
        return self._target_frame.place_of(frame_id)

    def _to_fixed(self, frame: CameraFrame, motion: Motion | None) -> np.ndarray | None:
        """Returns the transform (4, 4) from an image's frame to that of the memory; ``None`` if it is no use to it."""
        target = self._core.config.target_frame
        if self._keeper.refusal or frame.depth_m is None or frame.intrinsics is None:
            return None
        if motion is None and frame.frame_id == target:
            motion = Motion.none(target)
        return motion.matrix() if motion else None

    def _look_at(
        self,
        look: _Look,
        predictor: Predictor,
        frame: CameraFrame,
        motion: Motion | None,
        job: CameraJob,
        measures_all: bool,
    ) -> Seen:
        """Tells a goal what was found for it, and returns it."""
        found = answered(look.question, look.maps, predictor.spec)
        found = refined_answer(found, look.question, predictor.spec, frame, self._refining.now())
        if look.asking.is_plain and not measures_all:  # the others need not be measured
            found = replace(found, regions=found.regions[:1])
        seen = self._seen(look.asking, found, frame, motion, job.image.header)
        meant = seen.understood
        best = meant.measured[0].region if meant.measured else None
        moved = motion.region(best) if motion and best else best
        frame_id = motion.frame_id if motion else job.image.header.frame_id
        look.search.look(job, seen.maps.best_score(), moved, frame_id, meant.sentences.get(look.search.phrase, ""))
        return seen

    def placed(self, job: CameraJob, rgb: np.ndarray, region: ObjectRegion) -> tuple[ObjectRegion, str]:
        """Returns a region of an image with its position, if there is depth, and the frame of the position."""
        frame = job.camera.frame(job, rgb)
        motion = self._target_frame.of(job.image.header) if frame.depth_m is not None else None
        seen = measure(region, frame).region
        return (motion.region(seen), motion.frame_id) if motion else (seen, job.image.header.frame_id)

    def _ask_request(
        self, request: Request, image: TakenImage, encoded: EncodedImage, predictor: Predictor
    ) -> Callable[[CameraFrame, Motion | None], Seen] | None:
        """Asks about the request; returns how it is answered, or ``None`` if the model refuses, which is reported."""
        core, config, view = self._core, self._core.config, self._views[image.job.camera.name]
        if view.settings != _stream_settings(config):
            view.settings = _stream_settings(config)
            view.stream = Stream(*view.settings)
        asking = self._asking(request, predictor)
        threshold = self._threshold(request, predictor)
        question = Question(asking.names, asking.negatives, threshold, config.min_area_fraction)
        stream = view.stream
        stream.refinement = self._refining.now()
        look = stream.look(image.rgb, image.job.stamp_ns)
        try:
            maps = predictor.ask_cells(encoded, question.phrases)
        except ValueError as error:
            refused = error
        except Exception:
            stream.give_up(look)
            raise
        else:
            core.faults.clear("command")
            header = image.job.image.header
            return lambda frame, motion: self._seen(
                asking, stream.finish(predictor, maps, question, look, frame), frame, motion, header
            )
        stream.give_up(look)
        with core.lock:
            if self.request is request and not request.told:
                request.told = True
                core.status.fail(request.command_id, request.text, str(refused))
        # The outcome may have been published long ago, when another model was in use.
        core.faults.report("command", str(refused), f"{request.text!r} cannot be answered: {refused}")
        return None

    def _seen(self, asking: Asking, found: Answer, frame: CameraFrame, motion: Motion | None, header: Header) -> Seen:
        speaker = self._speaker_frame.of(header) if asking.needs_speaker else "camera"
        return Seen.of(asking, found, frame, motion.up if motion else None, speaker)

    def _asking(self, request: Request, predictor: Predictor) -> Asking:
        return self._refining.asking(request.prompts, request.references, request.negatives, predictor.spec)

    def _threshold(self, request: Request, predictor: Predictor) -> float:
        own = predictor.spec.threshold
        asked = self._asking(request, predictor).threshold(self._core.config.asked_threshold, own)
        return own if asked is None else asked

    def _look_for(self, searches: Sequence[Search], encoded: EncodedImage, predictor: Predictor) -> list[_Look]:
        """Asks about each goal's phrase alone, so that neither the command nor other goals affect its result."""
        config = self._core.config
        askings = {
            search.phrase: self._refining.asking((search.phrase,), (search.reference,), (), predictor.spec)
            for search in searches
        }
        asked, own = config.asked_threshold, predictor.spec.threshold
        questions = [
            Question(asking.names, (), asking.threshold(asked, own), config.min_area_fraction)
            for asking in askings.values()
        ]
        looks = []
        found = asked_each(predictor, encoded, questions)
        for (phrase, asking), question, maps in zip(askings.items(), questions, found, strict=True):
            for search in searches:
                if search.phrase != phrase:
                    continue
                if isinstance(maps, ValueError):
                    search.fail(str(maps))
                else:
                    looks.append(_Look(search, asking, question, maps))
        return looks

    def _publish(self, request: Request, camera: CameraInput, result: Result, sentences: Mapping[str, str]) -> bool:
        view = self._views[camera.name]
        messages = view.topics.prepare(result, self._core.config.max_points)
        with self._core.lock:
            if self.request is not request or not self._intake.serves(camera):
                return False  # stopped or asked for something else meanwhile
            publish(messages)
            view.last = result
            self._tell_outcome(request, camera.name, result, sentences)
        return True

    def _tell_outcome(self, request: Request, camera: str, result: Result, sentences: Mapping[str, str]) -> None:
        """Publishes once whether a command's objects were found: once all are, or when no camera shows the others."""
        if request.told or (request.names_model and not self._is_there()):
            return
        outcome = request.outcome
        regions = (measurement.region for measurement in result.measured)
        outcome.add(camera, result.header, regions, result.maps, sentences)
        if outcome.is_complete(self._intake.cameras):
            request.told = True
            self._core.status.outcome(
                request.command_id, request.text, outcome.header, outcome.note(), request.prompts, outcome.found
            )


def _stream_settings(config: ReferringConfig) -> tuple[float, float, float]:
    return config.smoothing, config.hysteresis, config.track_age_s
