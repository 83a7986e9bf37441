# SPDX-License-Identifier: Apache-2.0
"""The ``referring`` node: a command names things, every image is answered with their masks and positions."""

from __future__ import annotations

if __name__ == "__main__":  # before what takes long to import
    from clip_seg_ros.nodes.common import early_signals

    early_signals.end_quietly()

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rclpy.parameter import Parameter

from clip_seg_ros.commands.hints import HELP, QUIT
from clip_seg_ros.commands.parser import Command
from clip_seg_ros.config import OWN, ReferringConfig
from clip_seg_ros.nodes.camera.camera_input import CameraInput, CameraJob
from clip_seg_ros.nodes.camera.target_frame import TargetFrame
from clip_seg_ros.nodes.life.command_notes import note_on, refusal
from clip_seg_ros.nodes.life.command_router import example_command
from clip_seg_ros.nodes.life.process import run_node
from clip_seg_ros.nodes.life.segmentation_node import THREADS, SegmentationNode
from clip_seg_ros.nodes.outputs.outcome import Outcome
from clip_seg_ros.nodes.outputs.results import Result, ResultTopics, publish
from clip_seg_ros.nodes.services.describer import Describer
from clip_seg_ros.nodes.services.finder import MAX_SEARCHES, Finder, Search
from clip_seg_ros.nodes.services.image_prompts import ImagePrompts
from clip_seg_ros.nodes.services.segment_service import SegmentService
from clip_seg_ros.pipeline.answering import Answer, Question, Stream, answer
from clip_seg_ros.pipeline.space.localization import measure
from clip_seg_ros.types import ProbabilityMaps
from clip_seg_ros.zoo.caution import in_corner

if TYPE_CHECKING:
    from clip_seg_ros.pipeline.predictor import EncodedImage, Predictor


@dataclass
class _Request:
    """What images are asked for at the moment."""

    command_id: int
    text: str
    prompts: tuple[str, ...]
    negatives: tuple[str, ...]
    outcome: Outcome
    """What was found so far."""
    names_model: bool = False
    """Whether the command asks another model, which may still be on its way."""
    told: bool = False
    """Whether the outcome was."""


@dataclass
class _View:
    """One camera's outputs, and what is remembered of its images."""

    topics: ResultTopics
    stream: Stream
    settings: tuple[float, float, float]
    """That ``stream`` was made with."""
    last: Result | None = None


class ReferringNode(SegmentationNode):
    """Answers each image with the masks of what the last command named."""

    def __init__(self) -> None:
        super().__init__("referring", ReferringConfig)
        self._request: _Request | None = None
        self._was_commanded = False
        self._views: dict[str, _View] = {}
        self.image_prompts = ImagePrompts(self, self._on_new_meaning)
        self.finder = Finder(self)
        self._describer = Describer(self.status)

    # Outputs.

    def create_outputs(self) -> None:
        config = self.settings.config
        for camera in config.cameras():
            settings = _stream_settings(config)
            self._views[camera.name] = _View(ResultTopics(self, camera.name), Stream(*settings), settings)
        self._target_frame = TargetFrame(self, config.target_frame, self.faults)
        self._segment = SegmentService(self)
        self.image_prompts.open()
        self.finder.open()

    def destroy_outputs(self) -> None:
        self._describer.give_up("the node was cleaned up before an image came")
        self.finder.close()
        self._target_frame.close()
        self.image_prompts.close()
        self._segment.close()
        for view in self._views.values():
            view.topics.close()
        self._views.clear()
        self._request = None

    def warm_up(self, predictor: Predictor) -> None:
        predictor.predict(np.zeros((480, 640, 3), np.uint8), predictor.spec.class_names or ("object",))
        self.image_prompts.teach(predictor)

    def depth_tolerance_s(self) -> float:
        return self.settings.config.depth_tolerance_s

    def is_rectified(self) -> bool:
        return self.settings.config.rectified

    # Commands.

    def is_mine(self, command: Command | None) -> bool:
        """All but lists of classes, where an active semantic node answers those."""
        if command is None or command.verb != "classes":
            return True
        return not self.commands.runs_beside("semantic")

    def obey(self, command_id: int, text: str, command: Command) -> None:
        self._was_commanded = True
        self.faults.clear("command")
        if command.verb == "classes":
            note = "lists of classes are for a semantic node, and none is active: start one, or name what to look for"
            self.status.reject(command_id, text, note)
            return
        if command.verb == "quit":
            self.status.reject(command_id, text, QUIT)
            return
        if command.verb == "describe":
            self._describer.ask(command_id, text, self.host.predictor.spec, self.settings.config.things)
            return
        if command.prompts and (fault := refusal(text, command, self.host.predictor.spec, self.image_prompts)):
            self.status.reject(command_id, text, fault)
            return
        if command.threshold is not None or command.verb == "threshold":
            value = OWN if command.threshold is None else command.threshold
            self.set_parameters([Parameter("threshold", value=value)])
        if command.verb == "use":
            self.models.obey(command_id, text, command.model)
            return
        # The answer goes out before the command takes effect: nothing can be found before it was accepted.
        self.status.accept(command_id, text, self._note_on(text, command), command.prompts)
        if command.model is not None:
            self.models.use(command_id, text, command.model)
        if command.prompts:
            with self.lock:
                outcome = Outcome(command.prompts)
                self._request = _Request(
                    command_id, text, command.prompts, command.negatives, outcome, command.model is not None
                )
        elif command.verb in ("stop", "clear"):
            self._describer.give_up(f'"{command.verb}" came before an image')
            self._forget(publish_empty=command.verb == "clear")

    def _note_on(self, text: str, command: Command) -> str:
        if command.prompts:
            note = note_on(command, self.host.predictor.spec, self.image_prompts, text)
            caution = self.models.caution()
            return f"{note}; {caution}" if caution else note
        if command.verb == "threshold":
            if command.threshold is None:
                spec = self.host.predictor.spec
                return f"each model's own threshold is in force, which for {spec.name} is {spec.threshold:g}"
            return f"threshold set to {command.threshold:g}"
        return {"stop": "stopped", "clear": "cleared", "help": HELP}[command.verb]

    def _forget(self, publish_empty: bool) -> None:
        with self.lock:
            self._request = None
            for view in self._views.values() if publish_empty else ():
                if view.last is not None:
                    rgb = view.last.rgb
                    nothing = ProbabilityMaps((), np.zeros((0, *rgb.shape[:2]), np.float32))
                    corner = view.last.corner
                    publish(view.topics.prepare(Result(view.last.header, rgb, nothing, corner=corner), 1))

    def _on_new_meaning(self, prompt: str) -> None:
        for view in list(self._views.values()):
            view.stream.forget(prompt)

    # Images.

    def idle_because(self, camera: str) -> str:
        request, view = self._request, self._views.get(camera)
        if self.finder.searches(camera) or self._describer.is_asked:
            return ""
        if request is None:
            return "nothing to look for"
        # Until the outcome is told, status is waited for by whoever gave the command.
        return "nobody listens" if request.told and view is not None and not view.topics.is_heard() else ""

    def _on_job(self, job: CameraJob) -> None:
        is_asked = self._request is not None or self.finder.is_looking() or self._describer.is_asked
        if not self._was_commanded and not is_asked:
            topic = self.resolve_topic_name(self.settings.config.command_topic)
            example = example_command(self.get_namespace(), topic)
            note = f"images arrive, but nothing says what to look for. Type: {example}"
            self.faults.report("command", "none", note)
        super()._on_job(job)

    def work(self, job: CameraJob, rgb: np.ndarray, predictor: Predictor) -> bool:
        self._describer.look(job, rgb, predictor, self.settings.config)
        request, camera, searches = self._request, job.camera, self.finder.searches(job.camera.name)
        if request is None and not searches:
            return False
        try:
            encoded = predictor.encode(rgb)
        except ValueError as error:
            self.faults.report(camera.source("image"), "shape", str(error))
            return False
        self.faults.clear(camera.source("image"))
        found = None if request is None else self._answer(request, job, rgb, encoded, predictor)
        looks = self._look_for(searches, encoded, predictor)
        # Only now, since depth often comes a little later than its image.
        frame = camera.frame(job, rgb)
        motion = self._target_frame.of(job.image.header) if frame.depth_m is not None else None
        for search, seen in looks:
            if seen is not None:
                best = measure(seen.regions[0], frame).region if seen.regions else None
                moved = motion.region(best) if motion and best else best
                search.look(job, seen.best_score(), moved, motion.frame_id if motion else job.image.header.frame_id)
        if found is None:
            return bool(looks)
        measured = [measure(region, frame) for region in found.regions]
        result = Result(
            job.image.header, rgb, found.maps, measured, motion, in_corner(predictor.spec), self._threshold(predictor)
        )
        return self._publish(request, camera, result)

    def _answer(
        self, request: _Request, job: CameraJob, rgb: np.ndarray, encoded: EncodedImage, predictor: Predictor
    ) -> Answer | None:
        """Answers the command; ``None`` where the model cannot, which the status then tells."""
        config, view = self.settings.config, self._views[job.camera.name]
        if view.settings != _stream_settings(config):
            view.settings = _stream_settings(config)
            view.stream = Stream(*view.settings)
        question = Question(request.prompts, request.negatives, config.asked_threshold, config.min_area_fraction)
        try:
            found = view.stream.answer(predictor, encoded, question, rgb, job.stamp_ns)
        except ValueError as error:
            with self.lock:
                if self._request is request and not request.told:
                    request.told = True
                    self.status.fail(request.command_id, request.text, str(error))
            # Its status may have been told long ago, when another model served.
            self.faults.report("command", str(error), f"{request.text!r} cannot be answered: {error}")
            return None
        self.faults.clear("command")
        return found

    def _threshold(self, predictor: Predictor) -> float:
        asked = self.settings.config.asked_threshold
        return predictor.spec.threshold if asked is None else asked

    def _look_for(
        self, searches: Sequence[Search], encoded: EncodedImage, predictor: Predictor
    ) -> list[tuple[Search, Answer | None]]:
        """Asks for each goal's phrase by itself, so that no command or other goal has a say in what is found."""
        config, answers = self.settings.config, {}
        for phrase in {search.phrase for search in searches}:
            question = Question((phrase,), (), config.asked_threshold, config.min_area_fraction)
            try:
                answers[phrase] = answer(predictor, encoded, question)
            except ValueError as error:
                answers[phrase] = None
                for search in searches:
                    if search.phrase == phrase:
                        search.fail(str(error))
        return [(search, answers[search.phrase]) for search in searches]

    def _publish(self, request: _Request, camera: CameraInput, result: Result) -> bool:
        view = self._views[camera.name]
        messages = view.topics.prepare(result, self.settings.config.max_points)
        with self.lock:
            if self._request is not request or not self.serves(camera):
                return False  # stopped or asked for something else meanwhile
            publish(messages)
            view.last = result
            self._tell_outcome(request, camera.name, result)
        return True

    def _tell_outcome(self, request: _Request, camera: str, result: Result) -> None:
        """Says once whether there is what a command names: as soon as cameras show it all, or when they do not."""
        if request.told or (request.names_model and self.host.wanted != self.host.name):
            return
        outcome = request.outcome
        outcome.add(camera, result.header, (measurement.region for measurement in result.measured), result.maps)
        if outcome.is_complete(self.cameras):
            request.told = True
            self.status.outcome(
                request.command_id, request.text, outcome.header, outcome.note(), request.prompts, outcome.found
            )


def _stream_settings(config: ReferringConfig) -> tuple[float, float, float]:
    return config.smoothing, config.hysteresis, config.track_age_s


def main() -> int:
    """Runs the node as a process."""
    threads = THREADS + MAX_SEARCHES
    return run_node("referring", lambda: ReferringNode().bring_up(), threads, ReferringNode.finish, __doc__)


if __name__ == "__main__":
    sys.exit(main())
