# SPDX-License-Identifier: Apache-2.0
"""The ``semantic`` node: every pixel of every image gets a class out of a list."""

from __future__ import annotations

if __name__ == "__main__":  # before what takes long to import
    from clip_seg_ros.nodes.common import early_signals

    early_signals.end_quietly()

import sys
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from clip_seg_ros.commands.parser import Command
from clip_seg_ros.config import SemanticConfig
from clip_seg_ros.models.spec import ModelSpec
from clip_seg_ros.msg import LabelNames, SegmentedObjectArray
from clip_seg_ros.nodes.camera.camera_input import CameraJob
from clip_seg_ros.nodes.camera.conversions import fill_compressed, fill_image
from clip_seg_ros.nodes.common.qos import LATCHED, RELIABLE
from clip_seg_ros.nodes.common.rclpy_internals import is_heard
from clip_seg_ros.nodes.life.process import run_node
from clip_seg_ros.nodes.life.segmentation_node import THREADS, SegmentationNode
from clip_seg_ros.nodes.outputs import detections
from clip_seg_ros.nodes.outputs.topics import objects_message
from clip_seg_ros.pipeline.class_labels import (
    MAX_CLASSES,
    UNLABELLED,
    class_colors,
    class_regions,
    draw_classes,
    label_classes,
    paint,
)
from clip_seg_ros.resources import class_list, class_list_names
from clip_seg_ros.types import ProbabilityMaps
from clip_seg_ros.zoo.caution import in_corner

if TYPE_CHECKING:
    from clip_seg_ros.pipeline.predictor import Predictor


_EXAMPLE = '"classes: cup, table, floor"'


@dataclass(frozen=True)
class _Classes:
    """What pixels are told apart by at the moment."""

    names: tuple[str, ...]
    colors: np.ndarray
    """(256, 3) uint8."""

    @classmethod
    def of(cls, names: tuple[str, ...]) -> _Classes:
        return cls(names, class_colors(len(names)))


class _Topics:
    """The outputs of one camera."""

    def __init__(self, node: Node, camera: str) -> None:
        def publisher(kind: type, topic: str) -> Publisher:
            return node.create_publisher(kind, f"{camera}/semantic/{topic}".lstrip("/"), RELIABLE)

        self._node, self.camera = node, camera
        self.labels = publisher(Image, "labels")
        self.color = publisher(Image, "color")
        self.overlay = publisher(Image, "overlay")
        self.overlay_jpeg = publisher(CompressedImage, "overlay/compressed")
        self.confidence = publisher(Image, "confidence")
        self.objects = publisher(SegmentedObjectArray, "objects")
        self._all = (self.labels, self.color, self.overlay, self.overlay_jpeg, self.confidence, self.objects)

    def is_heard(self) -> bool:
        """Whether anybody listens to any of them."""
        return is_heard(self._all)

    def close(self) -> None:
        for each in self._all:
            self._node.destroy_publisher(each)


class SemanticNode(SegmentationNode):
    """Labels images with DenseCLIP, MaskCLIP or a distilled network."""

    def __init__(self) -> None:
        super().__init__("semantic", SemanticConfig)
        self._topics: dict[str, _Topics] = {}
        self._classes: _Classes | None = None
        self._wished: tuple[str, ...] = ()
        """Classes that a command asked for."""

    # Outputs.

    def create_outputs(self) -> None:
        for camera in self.settings.config.cameras():
            self._topics[camera.name] = _Topics(self, camera.name)
        self._names = self.create_publisher(LabelNames, "semantic/label_names", LATCHED)
        self._info = None
        if detections.AVAILABLE:
            self._info = self.create_publisher(detections.LabelInfo, "semantic/label_info", LATCHED)
        self._choose(self._names_for(self.host.predictor.spec))

    def destroy_outputs(self) -> None:
        for topics in self._topics.values():
            topics.close()
        self._topics.clear()
        self.destroy_publisher(self._names)
        if self._info is not None:
            self.destroy_publisher(self._info)
        self._classes, self._wished = None, ()

    def warm_up(self, predictor: Predictor) -> None:
        spec = predictor.spec
        predictor.predict(np.zeros((480, 640, 3), np.uint8), self._asked(spec, self._names_for(spec)))

    # Classes.

    def _names_for(self, spec: ModelSpec) -> tuple[str, ...]:
        """The classes that a model is to tell apart. Raises ValueError where it cannot, or nobody says which."""
        config: SemanticConfig = self.settings.config
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

    @staticmethod
    def _asked(spec: ModelSpec, names: tuple[str, ...]) -> tuple[str, ...]:
        """What the model is asked for: all its own classes, or some would be given to pixels of the others."""
        return spec.class_names or names

    def _choose(self, names: tuple[str, ...]) -> None:
        """Tells classes apart from now on, and says their names to whoever listens or will."""
        classes = _Classes.of(names)
        header = Header(stamp=self.get_clock().now().to_msg())
        colors = classes.colors[: len(names)].ravel().tolist()
        self.faults.clear("classes")
        with self.lock:
            self._classes = classes
            self._names.publish(LabelNames(header=header, names=list(names), colors=colors))
            if self._info is not None:
                threshold = self.settings.config.min_confidence
                self._info.publish(detections.label_info(header, dict(enumerate(names)), threshold))

    def on_model_ready(self) -> None:
        try:
            self._choose(self._names_for(self.host.predictor.spec))
        except ValueError as error:  # a command has asked for other classes while the model was being loaded
            self.faults.report("classes", str(error), str(error))

    # Commands: the same topic as the referring node's; beside that one, only lists of classes are for this node.

    def is_mine(self, command: Command | None) -> bool:
        if command is not None and command.verb == "classes":
            return True
        return not self.commands.runs_beside("referring")

    def obey(self, command_id: int, text: str, command: Command) -> None:
        if command.verb == "use":
            self.models.obey(command_id, text, command.model)
            return
        if command.verb != "classes":
            note = f"this is for a referring node, and none is active: start one, or type {_EXAMPLE}"
            self.status.reject(command_id, text, note)
            return
        names = command.classes
        if len(names) == 1 and names[0] in class_list_names():
            names = class_list(names[0])
        spec, before = self.host.predictor.spec, self._wished
        self._wished = names
        try:
            if command.model is not None or command.threshold is not None:
                raise ValueError("with a list of classes, set the parameters model and min_confidence instead")
            names = self._names_for(spec)
        except ValueError as error:
            self._wished = before
            self.status.reject(command_id, text, str(error))
            return
        unknown = [word for name in names for word in spec.unknown_words(name)]
        words = ", ".join(f"'{word}'" for word in dict.fromkeys(unknown))
        note = f"; the weights of {self.host.name} do not know {words}: do not rely on those" if words else ""
        if caution := self.models.caution():
            note += f"; {caution}"
        self.status.accept(command_id, text, f"telling apart {', '.join(names)}{note}", names)
        self._choose(names)

    # Images.

    def idle_because(self, camera: str) -> str:
        topics = self._topics.get(camera)
        return "" if topics is not None and topics.is_heard() else "nobody listens"

    def work(self, job: CameraJob, rgb: np.ndarray, predictor: Predictor) -> bool:
        classes, config = self._classes, self.settings.config
        asked = self._asked(predictor.spec, classes.names)
        if not set(classes.names) <= set(asked):
            return False  # another model has just begun to serve, and its classes are still to be chosen
        try:
            encoded = predictor.encode(rgb)
        except ValueError as error:
            self.faults.report(job.camera.source("image"), "shape", str(error))
            return False
        self.faults.clear(job.camera.source("image"))
        maps = predictor.ask(encoded, asked)
        rest_competes = bool(predictor.spec.background_prompts) and predictor.spec.class_names is None
        labels = label_classes(maps, config.min_confidence, rest_competes)
        if asked != classes.names:
            place = {name: index for index, name in enumerate(classes.names)}
            table = np.full(256, UNLABELLED, np.uint8)
            table[: len(asked)] = [place.get(name, UNLABELLED) for name in asked]
            labels = table[labels]
            maps = ProbabilityMaps(classes.names, maps.values[[asked.index(name) for name in classes.names]])
        corner, topics = in_corner(predictor.spec), self._topics[job.camera.name]
        messages = self._messages(topics, job.image.header, rgb, maps, labels, classes, corner)
        with self.lock:
            if not self.serves(job.camera) or self._classes is not classes:
                return False
            for topic, message in messages:
                topic.publish(message)
        return True

    def _messages(
        self,
        topics: _Topics,
        header: Header,
        rgb: np.ndarray,
        maps: ProbabilityMaps,
        labels: np.ndarray,
        classes: _Classes,
        corner: str,
    ) -> list[tuple[Publisher, object]]:
        """What is published of one image; what nobody listens to and costs time is left out."""

        def objects() -> SegmentedObjectArray:
            min_area_px = max(1, round(self.settings.config.min_area_fraction * labels.size))
            found = class_regions(maps, labels, min_area_px)
            return objects_message(header, classes.names, found, topics.camera)

        def image(pixels: np.ndarray, encoding: str) -> Image:
            return fill_image(Image(header=header), pixels, encoding)

        overlay = cache(lambda: draw_classes(rgb, labels, classes.names, classes.colors, corner))
        makers = {
            topics.color: lambda: image(paint(labels, classes.colors), "rgb8"),
            topics.overlay: lambda: image(overlay(), "rgb8"),
            topics.overlay_jpeg: lambda: fill_compressed(CompressedImage(header=header), overlay(), "rgb8"),
            topics.confidence: lambda: image(maps.values.max(axis=0), "32FC1"),
            topics.objects: objects,
        }
        messages: list[tuple[Publisher, object]] = [(topics.labels, image(labels, "8UC1"))]
        return messages + [(topic, make()) for topic, make in makers.items() if topic.get_subscription_count() > 0]


def main() -> int:
    """Runs the node as a process."""
    return run_node("semantic", lambda: SemanticNode().bring_up(), THREADS, SemanticNode.finish, __doc__)


if __name__ == "__main__":
    sys.exit(main())
