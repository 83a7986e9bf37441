# SPDX-License-Identifier: Apache-2.0
"""The task of the ``referring`` node: to look in images for the objects that the last command named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from rclpy.parameter import Parameter

from clip_seg_ros.commands.hints import HELP, QUIT
from clip_seg_ros.commands.parser import Command
from clip_seg_ros.commands.words import OF_MEMORY
from clip_seg_ros.config import ReferringConfig
from clip_seg_ros.nodes.camera.intake import Finish, TakenImage
from clip_seg_ros.nodes.common.core import NodeCore
from clip_seg_ros.nodes.common.refining import Refining
from clip_seg_ros.nodes.life.command_router import example_command
from clip_seg_ros.nodes.life.segmentation_node import SegmentationNode
from clip_seg_ros.nodes.life.task import Task
from clip_seg_ros.nodes.outputs.outcome import Outcome
from clip_seg_ros.nodes.services.describer import Describer
from clip_seg_ros.nodes.services.finder import Finder
from clip_seg_ros.nodes.services.image_prompts import ImagePrompts
from clip_seg_ros.nodes.services.memory_keeper import MemoryKeeper
from clip_seg_ros.nodes.services.recaller import Recaller
from clip_seg_ros.nodes.services.segment_at import SegmentAtService
from clip_seg_ros.nodes.services.segment_service import SegmentService
from clip_seg_ros.nodes.tasks.referring_images import ReferringImages, Request
from clip_seg_ros.pipeline.command_notes import note_on, refusal
from clip_seg_ros.settings import OWN

if TYPE_CHECKING:
    from clip_seg_ros.pipeline.predictor import Predictor


class Referring(Task):
    """Answers commands and offers the services; ``ReferringImages`` answers the images.

    Args:
        node: Node that carries out the task.
    """

    def __init__(self, node: SegmentationNode) -> None:
        self._node, self._models, self._host = node, node.models, node.models.host
        self._core: NodeCore[ReferringConfig] = node.core
        self._was_commanded = False
        self._keeper = MemoryKeeper(self._core, lambda frame_id: self._images.place_of(frame_id))
        self._recaller = Recaller(self._core, self._keeper)
        self.finder = Finder(
            self._core,
            lambda: [camera.name for camera in node.intake.cameras],
            lambda answer: self._models.with_caution(answer, "find_object"),
            self._recaller.goal,
        )
        self._refining = Refining(self._core)
        self._images = ReferringImages(
            self._core,
            node.intake,
            self.finder,
            lambda: self._host.wanted == self._host.name,
            self._refining,
            self._keeper,
        )
        self.image_prompts = ImagePrompts(self._core, self._host, self._images.forget_past_of)
        self._describer = Describer(self._core.status, self._models.with_caution)

    # The lifecycle.

    def open(self) -> None:
        self._images.open()
        self._segment = SegmentService(
            self._core, self._host, self._refining, lambda answer: self._models.with_caution(answer, "segment")
        )
        self._segment_at = SegmentAtService(
            self._core,
            self._host,
            self._node.intake,
            self._images.placed,
            self.image_prompts,
            lambda answer: self._models.with_caution(answer, "segment_at"),
        )
        self.image_prompts.open()
        self._keeper.open()
        self._recaller.open()
        self.finder.open()

    def close(self) -> None:
        self._describer.give_up("the node was cleaned up before an image came")
        self.finder.close()
        self._recaller.close()
        self._keeper.close()
        self.image_prompts.close()
        self._segment_at.close()
        self._segment.close()
        self._images.close()

    def pause(self) -> None:
        self._keeper.save()

    def values(self) -> dict[str, str]:
        return self._keeper.values()

    def warm_up(self, predictor: Predictor) -> None:
        predictor.predict(np.zeros((480, 640, 3), np.uint8), predictor.spec.class_names or ("object",))
        self._refining.now()  # reads what is needed before the first image comes
        self.image_prompts.teach(predictor)

    # Commands.

    def is_mine(self, command: Command | None) -> bool:
        """Returns true for all commands except lists of classes, which an active semantic node answers instead."""
        if command is None or command.verb != "classes":
            return True
        return not self._node.commands.runs_beside("semantic")

    def obey(self, command_id: int, text: str, command: Command) -> None:
        self._was_commanded = True
        self._core.faults.clear("command")
        if fault := self._refusal(text, command):
            self._core.status.reject(command_id, text, fault)
        elif command.verb == "describe":
            self._describer.ask(command_id, text, self._host.predictor.spec, self._core.config.things)
        elif command.verb in OF_MEMORY:
            self._recaller.obey(command_id, text, command)
        elif command.verb == "use":
            self._set_threshold(command)
            self._models.obey(command_id, text, command.model)
        else:
            self._do(command_id, text, command)

    def _refusal(self, text: str, command: Command) -> str:
        """Returns why a command is not for this node or is probably misspelt; empty for all other commands."""
        if command.verb == "classes":
            return "lists of classes are for a semantic node, and none is active: start one, or name what to look for"
        if command.verb == "quit":
            return QUIT
        return refusal(text, command, self._host.predictor.spec, self.image_prompts) if command.prompts else ""

    def _do(self, command_id: int, text: str, command: Command) -> None:
        self._set_threshold(command)
        outcome, names_model = Outcome(command.prompts), command.model is not None
        request = Request(
            command_id, text, command.prompts, command.references, command.negatives, outcome, names_model
        )
        # The command must be in effect for the next image after the answer. The outcome in that image cannot be
        # published before the answer, because that takes the lock, too.
        with self._core.lock:
            if command.prompts and not names_model:
                self._images.ask(request)
            elif command.verb in ("stop", "clear"):
                self._describer.give_up(f'"{command.verb}" came before an image')
                self._images.forget(publish_empty=command.verb == "clear")
            self._core.status.accept(command_id, text, self._note_on(text, command), command.prompts)
        if names_model:
            self._models.use(command_id, text, command.model)
            if command.prompts:
                self._images.ask(request)

    def _set_threshold(self, command: Command) -> None:
        if command.threshold is not None or command.verb == "threshold":
            value = OWN if command.threshold is None else command.threshold
            self._node.set_parameters([Parameter("threshold", value=value)])

    def _note_on(self, text: str, command: Command) -> str:
        spec = self._host.predictor.spec
        if command.prompts:
            asking = self._refining.asking(command.prompts, command.references, command.negatives, spec)
            note = note_on(command, spec, self.image_prompts, text, asking)
            if known := self._recaller.note_on(command):
                note += f"; remembered: {known}"
            # Of the model that a command names, the answer that it serves has the caution.
            return note if command.model is not None else self._models.with_caution(note)
        if command.verb == "threshold":
            if command.threshold is None:
                return f"each model's own threshold is in force, which for {spec.name} is {spec.threshold:g}"
            return f"threshold set to {command.threshold:g}"
        return {"stop": "stopped", "clear": "cleared", "help": HELP}[command.verb]

    # Images.

    def idle_because(self, camera: str) -> str:
        if self.finder.searches(camera) or self._describer.is_asked:
            return ""
        return self._images.idle_because(camera)

    def image_came(self) -> None:
        """Logs once what to type if images arrive and no command has ever been given."""
        is_asked = self._images.request is not None or self.finder.is_looking() or self._describer.is_asked
        if not self._was_commanded and not is_asked:
            topic = self._node.resolve_topic_name(self._core.config.command_topic)
            example = example_command(self._node.get_namespace(), topic)
            note = f"images arrive, but nothing says what to look for. Type: {example}"
            self._core.faults.report("command", "none", note)

    def ask(self, images: Sequence[TakenImage], predictor: Predictor) -> list[Finish | None]:
        for image in images:
            self._describer.look(image.job, image.rgb, predictor, self._core.config)
        return self._images.ask_model(images, predictor)

    def afterwards(self) -> None:
        self._images.remember()

    def depth_tolerance_s(self) -> float:
        return self._core.config.depth_tolerance_s

    def is_rectified(self) -> bool:
        return self._core.config.rectified
