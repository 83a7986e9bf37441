# SPDX-License-Identifier: Apache-2.0
"""The task of the ``semantic`` node: to assign every pixel of an image one class of a list."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from std_msgs.msg import Header

from clip_seg_ros.commands.parser import Command
from clip_seg_ros.config import SemanticConfig
from clip_seg_ros.models.spec import ModelSpec
from clip_seg_ros.msg import LabelNames
from clip_seg_ros.nodes.camera.intake import Finish, TakenImage
from clip_seg_ros.nodes.common.core import NodeCore
from clip_seg_ros.nodes.common.qos import LATCHED
from clip_seg_ros.nodes.life.segmentation_node import SegmentationNode
from clip_seg_ros.nodes.life.task import Task
from clip_seg_ros.nodes.outputs import detections
from clip_seg_ros.nodes.outputs.camera_topics import publish
from clip_seg_ros.nodes.outputs.class_results import ClassResult, ClassTopics
from clip_seg_ros.nodes.tasks.encoding import encode_each
from clip_seg_ros.pipeline.class_labels import MAX_CLASSES, ClassMap, class_colors
from clip_seg_ros.resources import class_list, class_list_names
from clip_seg_ros.zoo.caution import in_corner

if TYPE_CHECKING:
    from clip_seg_ros.pipeline.predictor import Predictor

_EXAMPLE = '"classes: cup, table, floor"'


class Semantic(Task):
    """Labels images with DenseCLIP, MaskCLIP or a distilled network.

    Args:
        node: Node that carries out the task.
    """

    def __init__(self, node: SegmentationNode) -> None:
        self._node, self._models, self._intake = node, node.models, node.intake
        self._core: NodeCore[SemanticConfig] = node.core
        self._topics: dict[str, ClassTopics] = {}
        self._classes: tuple[str, ...] | None = None
        """The classes in use; ``None`` until the node is configured."""
        self._wished: tuple[str, ...] = ()
        """The classes that a command asked for."""

    # The lifecycle.

    def open(self) -> None:
        node = self._node
        for camera in self._core.config.cameras():
            self._topics[camera.name] = ClassTopics(node, camera.name)
        self._names = node.create_publisher(LabelNames, "semantic/label_names", LATCHED)
        self._info = None
        if detections.AVAILABLE:
            self._info = node.create_publisher(detections.LabelInfo, "semantic/label_info", LATCHED)
        self._choose(self._names_for(self._models.host.predictor.spec))

    def close(self) -> None:
        for topics in self._topics.values():
            topics.close()
        self._topics.clear()
        self._node.destroy_publisher(self._names)
        if self._info is not None:
            self._node.destroy_publisher(self._info)
        self._classes, self._wished = None, ()

    def warm_up(self, predictor: Predictor) -> None:
        spec = predictor.spec
        predictor.classify(predictor.encode(np.zeros((480, 640, 3), np.uint8)), self._names_for(spec))

    # Classes.

    def _names_for(self, spec: ModelSpec) -> tuple[str, ...]:
        """Returns the classes for a model. Raises ValueError if it does not know them, or if none are set."""
        config = self._core.config
        names = self._wished or config.classes or (class_list(config.class_list) if config.class_list else ())
        names = names or spec.class_names or ()
        if not names:
            raise ValueError(f"{spec.name} takes any phrase for a class: set the parameter classes or class_list")
        if len(names) > MAX_CLASSES:
            raise ValueError(f"a label image tells {MAX_CLASSES} classes apart, got {len(names)}")
        unknown = [name for name in names if spec.class_names is not None and name not in spec.class_names]
        if unknown:
            raise ValueError(f"{spec.name} has no class {', '.join(unknown)}; it has {', '.join(spec.class_names)}")
        return names

    def _choose(self, names: tuple[str, ...]) -> None:
        """Uses these classes from now on, and publishes their names, latched."""
        header = Header(stamp=self._node.get_clock().now().to_msg())
        colors = class_colors(len(names))[: len(names)].ravel().tolist()
        self._core.faults.clear("classes")
        with self._core.lock:
            self._classes = names
            self._names.publish(LabelNames(header=header, names=list(names), colors=colors))
            if self._info is not None:
                threshold = self._core.config.min_confidence
                self._info.publish(detections.label_info(header, dict(enumerate(names)), threshold))

    def on_model_ready(self) -> None:
        try:
            self._choose(self._names_for(self._models.host.predictor.spec))
        except ValueError as error:  # a command has asked for other classes while the model was being loaded
            self._core.faults.report("classes", str(error), str(error))

    # Commands. The topic is that of the referring node; while that one is active, this one only answers class lists.

    def is_mine(self, command: Command | None) -> bool:
        if command is not None and command.verb == "classes":
            return True
        return not self._node.commands.runs_beside("referring")

    def obey(self, command_id: int, text: str, command: Command) -> None:
        if command.verb == "use":
            self._models.obey(command_id, text, command.model)
            return
        if command.verb != "classes":
            note = f"this is for a referring node, and none is active: start one, or type {_EXAMPLE}"
            self._core.status.reject(command_id, text, note)
            return
        names = command.classes
        if len(names) == 1 and names[0] in class_list_names():
            names = class_list(names[0])
        spec, before = self._models.host.predictor.spec, self._wished
        self._wished = names
        try:
            if command.model is not None or command.threshold is not None:
                raise ValueError("with a list of classes, set the parameters model and min_confidence instead")
            names = self._names_for(spec)
        except ValueError as error:
            self._wished = before
            self._core.status.reject(command_id, text, str(error))
            return
        unknown = [word for name in names for word in spec.unknown_words(name)]
        words = ", ".join(f"'{word}'" for word in dict.fromkeys(unknown))
        note = f"; the weights of {self._models.host.name} do not know {words}: do not rely on those" if words else ""
        note = self._models.with_caution(f"telling apart {', '.join(names)}{note}")
        self._core.status.accept(command_id, text, note, names)
        self._choose(names)

    # Images.

    def idle_because(self, camera: str) -> str:
        topics = self._topics.get(camera)
        return "" if topics is not None and topics.is_heard() else "nobody listens"

    def ask(self, images: Sequence[TakenImage], predictor: Predictor) -> list[Finish | None]:
        names, known = self._classes, predictor.spec.class_names
        if known is not None and not set(names) <= set(known):
            return [None] * len(images)  # another model has just come into use, and its classes are still to be chosen
        least = self._core.config.min_confidence
        return [
            None
            if encoded is None
            else partial(self._finish, image, names, predictor.classify(encoded, names, least), predictor)
            for image, encoded in zip(images, encode_each(predictor, images, self._core.faults))
        ]

    def _finish(self, image: TakenImage, names: tuple[str, ...], found: ClassMap, predictor: Predictor) -> bool:
        """Publishes the classes of one image; returns whether it did."""
        job, colors = image.job, class_colors(len(names))
        result = ClassResult(job.image.header, image.rgb, found, colors, in_corner(predictor.spec))
        messages = list(self._topics[job.camera.name].prepare(result, self._core.config.min_area_fraction))
        with self._core.lock:
            if not self._intake.serves(job.camera) or self._classes is not names:
                return False
            publish(messages)
        return True
