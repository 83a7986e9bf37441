"""The ``referring`` node: a command names things, every image is answered with their masks and positions."""

from __future__ import annotations

import sys
import threading
import traceback
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header, String

from clip_seg_ros.commands import Command, CommandError, parse_command
from clip_seg_ros.config import ReferringConfig
from clip_seg_ros.msg import CommandStatus
from clip_seg_ros.nodes.companions import StampedBuffer, is_near
from clip_seg_ros.nodes.conversions import (
    ConversionError,
    camera_info_to_intrinsics,
    depth_to_metres,
    image_to_rgb,
)
from clip_seg_ros.nodes.faults import FaultLog
from clip_seg_ros.nodes.parameters import ConfigParameters
from clip_seg_ros.nodes.process import run_node
from clip_seg_ros.nodes.qos import COMPANION_INPUT, IMAGE_INPUT, RELIABLE
from clip_seg_ros.nodes.results import ResultTopics, publish
from clip_seg_ros.pipeline.latest_worker import LatestWorker
from clip_seg_ros.pipeline.localization import with_position
from clip_seg_ros.pipeline.postprocess import masks, regions
from clip_seg_ros.types import CameraFrame, CameraIntrinsics, ObjectRegion, ProbabilityMaps

if TYPE_CHECKING:
    from clip_seg_ros.pipeline.predictor import Predictor

MAX_ECHO = 200
"""Characters of a command that its status repeats."""
SILENCE_S = 5.0
"""A camera that sends nothing for so long, while there is something to look for, is worth a warning."""


@dataclass
class _Job:
    """One colour image, and its depth image once both are there."""

    image: Image
    depth: Image | None = None


@dataclass(frozen=True)
class _Request:
    """What images are asked for at the moment."""

    command_id: int
    text: str
    prompts: tuple[str, ...]


class ReferringNode(Node):
    """Answers each image with the masks of what the last command named.

    Callbacks only keep messages and answer commands; the model runs in a worker's thread on the newest image.
    """

    def __init__(self) -> None:
        super().__init__("referring", namespace="clip_seg")
        self._settings = ConfigParameters(self, ReferringConfig)
        config = self._settings.config
        self._predictor = _load_predictor(config)
        self._faults = FaultLog(self.get_logger().warning)
        self._command_count = 0
        self._commanded = False
        self._last_arrival_ns = 0
        self._depth_images: StampedBuffer[Image] = StampedBuffer()
        # Images whose depth may come later; the one being worked on is among them for as long as that can take.
        self._jobs: deque[_Job] = deque(maxlen=8)
        self._camera_info: CameraInfo | None = None
        # Guards the three fields below, and lets "forget it" and "publish it" exclude each other.
        self._lock = threading.Lock()
        self._request: _Request | None = None
        self._answered_id = 0
        self._last_image: tuple[Header, np.ndarray] | None = None
        self._status = self.create_publisher(CommandStatus, "status", RELIABLE)
        self._results = ResultTopics(self)
        self._worker = LatestWorker(self._work, self._on_work_error)
        self._subscribe(config)
        self.create_timer(1.0, self._watch_camera)
        self.get_logger().info(
            f"{config.model} on {self._predictor.device}; commands: {self._commands.topic_name}, "
            f"images: {self._images.topic_name}"
        )
        if config.initial_command:
            self._obey(config.initial_command)

    def _subscribe(self, config: ReferringConfig) -> None:
        self._commands = self.create_subscription(
            String, config.command_topic, lambda message: self._obey(message.data), RELIABLE
        )
        self._images = self.create_subscription(Image, config.image_topic, self._on_image, IMAGE_INPUT)
        self._depth = None
        if config.depth_topic and config.camera_info_topic:
            self._depth = self.create_subscription(Image, config.depth_topic, self._on_depth, COMPANION_INPUT)
            self.create_subscription(CameraInfo, config.camera_info_topic, self._on_camera_info, COMPANION_INPUT)

    def destroy_node(self) -> None:
        self._worker.close()
        super().destroy_node()

    # Commands, on the executor's thread.

    def _obey(self, text: str) -> None:
        """Takes one command and answers it at once."""
        self._command_count += 1
        try:
            command = parse_command(text)
        except CommandError as error:
            self._answer(text, CommandStatus.REJECTED, str(error))
            return
        self._commanded = True
        self._faults.clear("command")
        if command.threshold is not None:
            self.set_parameters([Parameter("threshold", value=command.threshold)])
        # The answer goes out before the command takes effect: nothing can be found before it was accepted.
        self._answer(text, CommandStatus.ACCEPTED, self._note_on(command), command.prompts)
        if command.prompts:
            self._last_arrival_ns = self._now_ns()
            with self._lock:
                self._request = _Request(self._command_count, text, command.prompts)
        elif command.verb in ("stop", "clear"):
            self._forget(publish_empty=command.verb == "clear")

    def _note_on(self, command: Command) -> str:
        if command.verb == "threshold":
            return f"threshold set to {command.threshold:g}"
        if not command.prompts:
            return "stopped" if command.verb == "stop" else "cleared"
        note = f"looking for {' and '.join(command.prompts)}"
        unknown = [word for prompt in command.prompts for word in self._predictor.model.unknown_words(prompt)]
        if unknown:
            words = ", ".join(f"'{word}'" for word in dict.fromkeys(unknown))
            note += f"; the weights of {self._settings.config.model} do not know {words}: do not rely on the answer"
        return note

    def _forget(self, publish_empty: bool) -> None:
        with self._lock:
            self._request = None
            if publish_empty and self._last_image is not None:
                header, rgb = self._last_image
                nothing = ProbabilityMaps((), np.zeros((0, *rgb.shape[:2]), np.float32))
                publish(self._results.prepare(header, rgb, nothing, []))

    def _answer(self, text: str, state: int, note: str, prompts: Sequence[str] = ()) -> None:
        self._status.publish(
            CommandStatus(
                header=Header(stamp=self.get_clock().now().to_msg()),
                command_id=self._command_count,
                command=text[:MAX_ECHO],
                state=state,
                message=note,
                prompts=list(prompts),
            )
        )
        self.get_logger().info(f"command {self._command_count} {text[:MAX_ECHO]!r}: {note}")

    # Sensors, on the executor's thread.

    def _on_image(self, message: Image) -> None:
        self._last_arrival_ns = self._now_ns()
        self._faults.clear("camera")
        if not self._commanded:
            self._faults.report(
                "command",
                "none",
                f"images arrive, but nothing says what to look for. Type: ros2 topic pub --once "
                f"{self._commands.topic_name} std_msgs/msg/String \"{{data: 'segment the red cup'}}\"",
            )
        elif self._request is not None:
            # Matched as they come and not after the inference, which can outlast any buffer.
            tolerance_s = self._settings.config.depth_tolerance_s
            job = _Job(message, self._depth_images.peek(_stamp_ns(message.header), tolerance_s))
            self._jobs.append(job)
            self._worker.put(job)

    def _on_depth(self, message: Image) -> None:
        stamp_ns = _stamp_ns(message.header)
        self._depth_images.add(stamp_ns, message)
        for job in self._jobs:
            wanted_ns = _stamp_ns(job.image.header)
            if not is_near(wanted_ns, stamp_ns, self._settings.config.depth_tolerance_s):
                continue
            # A fast camera's neighbouring image may be within the tolerance too: the nearest one wins.
            if job.depth is None or abs(stamp_ns - wanted_ns) < abs(_stamp_ns(job.depth.header) - wanted_ns):
                job.depth = message

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._camera_info = message

    def _watch_camera(self) -> None:
        silence_s = (self._now_ns() - self._last_arrival_ns) * 1e-9
        if self._request is not None and silence_s > SILENCE_S:
            topic = self._images.topic_name
            self._faults.report(
                "camera",
                "silent",
                f"no image on {topic} for {SILENCE_S:g} s; it has {self.count_publishers(topic)} publishers",
            )

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    # One image, on the worker's thread.

    def _work(self, job: _Job) -> None:
        request, message = self._request, job.image
        if request is None:
            return
        try:
            rgb = image_to_rgb(message)
        except ConversionError as error:
            self._faults.report("image", error.fault, str(error))
            return
        config = self._settings.config
        try:
            encoded = self._predictor.encode(rgb)
        except ValueError as error:
            self._faults.report("image", "shape", str(error))
            return
        self._faults.clear("image")
        maps = self._predictor.ask(encoded, request.prompts)
        min_area_px = max(1, round(config.min_area_fraction * rgb.shape[0] * rgb.shape[1]))
        found = regions(maps, masks(maps, config.threshold), min_area_px)
        frame = CameraFrame(
            rgb, _stamp_ns(message.header), message.header.frame_id,
            depth_m=self._depth_of(job), intrinsics=self._intrinsics_of(message),
        )  # fmt: skip
        found = [with_position(region, frame) for region in found]
        messages = self._results.prepare(message.header, rgb, maps, found)
        with self._lock:
            if self._request is not request:
                return  # stopped or asked for something else meanwhile
            publish(messages)
            self._last_image = (message.header, rgb)
            if self._answered_id != request.command_id:
                self._answered_id = request.command_id
                outcome = _outcome(request, message.header, found)
                self._status.publish(outcome)
                self.get_logger().info(f"command {request.command_id}: {outcome.message}")
        self._faults.clear("inference")

    def _depth_of(self, job: _Job) -> np.ndarray | None:
        """(H, W) float32 metres that belong to the colour image, or ``None``."""
        if self._depth is None:
            return None
        message = job.image
        tolerance_s = self._settings.config.depth_tolerance_s
        expected = self.count_publishers(self._depth.topic_name) > 0
        match = job.depth or self._depth_images.nearest(_stamp_ns(message.header), tolerance_s, expected)
        if match is None:
            if expected:
                self._faults.report(
                    "depth", "unmatched", f"no depth image within {tolerance_s:g} s of the colour image: no positions"
                )
            return None
        if (match.height, match.width) != (message.height, message.width):
            self._faults.report("depth", "size", _size_fault("the depth image", match, message))
            return None
        try:
            depth_m = depth_to_metres(match)
        except ConversionError as error:
            self._faults.report("depth", error.fault, f"{error}: no positions")
            return None
        self._faults.clear("depth")
        return depth_m

    def _intrinsics_of(self, message: Image) -> CameraIntrinsics | None:
        info = self._camera_info
        if info is None:
            if self._depth is not None and self.count_publishers(self._depth.topic_name) > 0:
                self._faults.report("camera_info", "none", "there is a depth camera, but no camera_info: no positions")
            return None
        try:
            intrinsics = camera_info_to_intrinsics(info)
        except ConversionError as error:
            self._faults.report("camera_info", error.fault, f"{error}: no positions")
            return None
        if (info.height, info.width) != (message.height, message.width):
            self._faults.report("camera_info", "size", _size_fault("camera_info", info, message))
            return None
        self._faults.clear("camera_info")
        return intrinsics

    def _on_work_error(self, error: Exception) -> None:
        # While the process ends, publishing fails, and rightly so.
        if rclpy.ok():
            self._faults.report("inference", repr(error), f"failed: {type(error).__name__}: {error}")
            self.get_logger().debug("".join(traceback.format_exception(error)))


def _load_predictor(config: ReferringConfig) -> Predictor:
    # Here and not above: torch takes seconds to import, and by now a signal ends the process cleanly.
    from clip_seg_ros.models.checkpoints import WeightsError
    from clip_seg_ros.pipeline.predictor import Predictor

    weights_dir = Path(config.weights_dir).expanduser() if config.weights_dir else None
    try:
        predictor = Predictor.from_name(config.model, config.device, weights_dir)
    except WeightsError as error:
        raise RuntimeError(str(error)) from error
    # The first pass of a process is slow; no image should wait for that.
    predictor.predict(np.zeros((480, 640, 3), np.uint8), predictor.model.class_names or ("object",))
    return predictor


def _outcome(request: _Request, header: Header, found: Sequence[ObjectRegion]) -> CommandStatus:
    """The status that says what the first image held."""
    prompts = [prompt for prompt in request.prompts if any(region.prompt == prompt for region in found)]
    parts = []
    for prompt in request.prompts:
        scores = [region.score for region in found if region.prompt == prompt]
        what = f"{len(scores)} found, best score {max(scores):.2f}" if scores else "not found"
        parts.append(f"{prompt}: {what}")
    return CommandStatus(
        header=header,
        command_id=request.command_id,
        command=request.text[:MAX_ECHO],
        state=CommandStatus.FOUND if prompts else CommandStatus.NOT_FOUND,
        message="; ".join(parts),
        prompts=list(request.prompts),
        found=prompts,
    )


def _size_fault(what: str, other: Image | CameraInfo, image: Image) -> str:
    return (
        f"{what} is {other.width}x{other.height}, the colour image {image.width}x{image.height}; "
        "they must be aligned: no positions"
    )


def _stamp_ns(header: Header) -> int:
    return Time.from_msg(header.stamp).nanoseconds


def main() -> int:
    """Runs the node as a process."""
    return run_node("referring", ReferringNode)


if __name__ == "__main__":
    sys.exit(main())
