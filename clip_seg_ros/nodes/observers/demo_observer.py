# SPDX-License-Identifier: Apache-2.0
"""The observer of the demo: it publishes commands and compares the results with the simulated camera's ground truth.

It is a process of its own that reads requests from stdin and writes replies to stdout, as lines of JSON.
Request: ``{"command": text, "scene": {"seed", "required", "forbidden"} or null, "overlay": file or null}``.
"""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.time import Time
from sensor_msgs.msg import Image
from std_msgs.msg import String

from clip_seg_ros.commands.parser import parse_command
from clip_seg_ros.msg import CommandStatus, SegmentedObject, SegmentedObjectArray
from clip_seg_ros.nodes.common.qos import RELIABLE
from clip_seg_ros.nodes.common.rclpy_internals import publisher_count
from clip_seg_ros.nodes.observers.observing import observing
from clip_seg_ros.sim.naming import matches, pair_of

KEPT_IMAGES = 32
_IMMEDIATE = (CommandStatus.ACCEPTED, CommandStatus.REJECTED)
_MODEL_ENDS = (CommandStatus.DONE, CommandStatus.FAILED)
_PHRASES_END = (CommandStatus.FOUND, CommandStatus.NOT_FOUND, CommandStatus.FAILED)
_RESULTS = ("mask", "labels", "overlay", "objects", "true_labels", "true_objects")


class DemoObserver(Node):
    """Collects the messages that belong to the same image, and waits for them."""

    def __init__(self) -> None:
        super().__init__("demo_observer", namespace="clip_seg")
        self._changed = threading.Condition()
        # stamp of an image -> its messages by the names in _RESULTS, and mask_ns, the mask's time of arrival
        self._images: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._statuses: list[CommandStatus] = []
        self._command = self.create_publisher(String, "command", RELIABLE)
        self._subscriptions_in = [self.create_subscription(CommandStatus, "status", self._on_status, RELIABLE)]
        truth = "/camera/ground_truth"
        for kind, topic, name in (
            (Image, "mask", "mask"),
            (Image, "labels", "labels"),
            (Image, "overlay", "overlay"),
            (SegmentedObjectArray, "objects", "objects"),
            (Image, f"{truth}/labels", "true_labels"),
            (SegmentedObjectArray, f"{truth}/objects", "true_objects"),
        ):
            self._subscriptions_in.append(self.create_subscription(kind, topic, self._keeper(name), RELIABLE))
        self._camera = self.create_client(SetParametersAtomically, "/sim_camera/set_parameters_atomically")

    def _keeper(self, name: str) -> Callable[[Any], None]:
        def keep(message: Any) -> None:
            stamp_ns = Time.from_msg(message.header.stamp).nanoseconds
            with self._changed:
                image = self._images.setdefault(stamp_ns, {})
                image[name] = message
                if name == "mask":
                    image["mask_ns"] = self.now_ns()
                while len(self._images) > KEPT_IMAGES:
                    self._images.popitem(last=False)
                self._changed.notify_all()

        return keep

    def _on_status(self, status: CommandStatus) -> None:
        with self._changed:
            self._statuses.append(status)
            self._changed.notify_all()

    def now_ns(self) -> int:
        """Returns the time of the clock that stamps images, in nanoseconds."""
        return self.get_clock().now().nanoseconds

    def wait_until_connected(self) -> None:
        """Waits until the camera sends images, and all topics between camera, node and observer are connected."""
        companions = ("/camera/depth/image_raw", "/camera/color/camera_info")
        while not all(self.count_subscribers(topic) for topic in companions):
            time.sleep(0.05)
        with self._changed:
            # A publisher that is known may not be connected yet; after a few images it is.
            self._images.clear()
            while len(self._images) < 3:
                self._changed.wait(0.05)
            while not (
                self._images
                and self._command.get_subscription_count() > 0
                and all(publisher_count(self, subscription) > 0 for subscription in self._subscriptions_in)
            ):
                self._changed.wait(0.05)

    def change_scene(self, scene: dict[str, Any]) -> int:
        """Shows another scene.

        Returns:
            A time in nanoseconds; every image stamped at this time or later shows the new scene.

        Raises:
            ValueError: The camera refuses; the message is its reason.
        """
        done = threading.Event()
        parameters = [
            Parameter(name, value=value or [""] if isinstance(value, list) else value).to_parameter_msg()
            for name, value in scene.items()
        ]
        future = self._camera.call_async(SetParametersAtomically.Request(parameters=parameters))
        future.add_done_callback(lambda _: done.set())
        done.wait()
        if not future.result().result.successful:
            raise ValueError(future.result().result.reason)
        return self.now_ns()

    def ask(self, command: str, since_ns: int) -> tuple[CommandStatus, CommandStatus | None, dict[str, Any] | None]:
        """Gives a command and waits for its outcome on an image stamped at ``since_ns`` or later.

        Returns:
            The first status of the command; the last one, which says what was found or that a model is in service, or
            ``None`` for a command that is done at once; and the messages of the image of that outcome, or ``None`` if
            no phrase was looked for.
        """
        while True:
            first = self._send(command)
            if first.state == CommandStatus.REJECTED:
                return first, None, None
            meaning = parse_command(command)
            ended = None
            if meaning.model is not None:
                ended = self._wait_for_status(first.command_id, _MODEL_ENDS)
            if meaning.verb in ("describe", "recall"):
                ended = self._wait_for_status(first.command_id, _PHRASES_END)
            if meaning.verb == "forget":
                ended = self._wait_for_status(first.command_id, _MODEL_ENDS)
            if not first.prompts or (ended is not None and ended.state == CommandStatus.FAILED):
                return first, ended, None
            outcome = self._wait_for_status(first.command_id, _PHRASES_END)
            if outcome.state == CommandStatus.FAILED:
                return first, outcome, None
            stamp_ns = Time.from_msg(outcome.header.stamp).nanoseconds
            if stamp_ns >= since_ns:
                return first, outcome, self._wait_for(partial(self._complete_image, stamp_ns, first.prompts))
            # The outcome was that of an image of the scene before.

    def _send(self, command: str) -> CommandStatus:
        with self._changed:
            self._statuses.clear()
        self._command.publish(String(data=command))
        return self._wait_for_status(None, _IMMEDIATE)

    def _wait_for_status(self, command_id: int | None, states: Sequence[int]) -> CommandStatus:
        return self._wait_for(lambda: self._status_of(command_id, states))

    def _status_of(self, command_id: int | None, states: Sequence[int]) -> CommandStatus | None:
        for status in self._statuses:
            if status.state in states and command_id in (None, status.command_id):
                return status
        return None

    def _complete_image(self, since_ns: int, prompts: Sequence[str]) -> dict[str, Any] | None:
        for stamp_ns, image in sorted(self._images.items()):
            complete = stamp_ns >= since_ns and all(name in image for name in _RESULTS)
            if complete and list(image["objects"].prompts) == list(prompts):
                return image | {"stamp_ns": stamp_ns}
        return None

    def _wait_for(self, find: Callable[[], Any]) -> Any:
        with self._changed:
            while (found := find()) is None:
                self._changed.wait()
            return found


def answer(observer: DemoObserver, request: dict[str, Any]) -> dict[str, Any]:
    """Carries out one request and measures the result."""
    since_ns = 0
    if request["scene"] is not None:
        since_ns = observer.change_scene(request["scene"])
    status, outcome, image = observer.ask(request["command"], since_ns)
    reply: dict[str, Any] = {
        "accepted": status.state == CommandStatus.ACCEPTED,
        "understood": status.message,
        "prompts": list(status.prompts),
    }
    if outcome is not None:
        reply["message"] = outcome.message
    if image is not None:
        if request["overlay"]:
            overlay = _pixels(image["overlay"]).reshape(image["overlay"].height, -1, 3)
            if not cv2.imwrite(request["overlay"], overlay[:, :, ::-1]):
                raise ValueError(f"cannot write the picture {request['overlay']}")
        reply["latency_ms"] = (image["mask_ns"] - image["stamp_ns"]) * 1e-6
        reply["scene"] = [item.prompt for item in image["true_objects"].objects]
        reply["measured"] = [
            compare(
                prompt,
                image["objects"].objects,
                _pixels(image["labels"]),
                image["true_objects"].objects,
                _pixels(image["true_labels"]),
            )
            for prompt in status.prompts
        ]
    return reply


def compare(
    prompt: str,
    found: Sequence[SegmentedObject],
    labels: np.ndarray,
    true: Sequence[SegmentedObject],
    true_labels: np.ndarray,
) -> dict[str, Any]:
    """Measures the result for one prompt.

    Args:
        prompt: The phrase.
        found: All objects that were found, the one with the best score first.
        labels: The ids of these objects, one for each pixel.
        true: All objects of the scene.
        true_labels: The ids of these objects, one for each pixel, as many pixels as in ``labels``.

    Returns:
        The number of objects that were found, and of those that are present (``None`` if the ground truth cannot tell);
        the IoU of their masks (``None`` unless both exist and no other prompt took pixels of them); and the errors of
        the best object's centroid in pixels and of its position in metres, against the nearest true object.
    """
    pair = pair_of(prompt)
    found = [item for item in found if item.prompt == prompt]
    true = [item for item in true if pair is not None and matches(pair, item.prompt)]
    result: dict[str, Any] = {
        "prompt": prompt,
        "found": len(found),
        "present": None if pair is None else len(true),
        "score": None,
        "iou": None,
        "centroid_px": None,
        "centroid_error_px": None,
        "position_m": None,
        "position_error_m": None,
    }
    if found:
        best = found[0]
        result.update(score=best.score, centroid_px=[best.centroid_x, best.centroid_y], position_m=_position(best))
    if found and true:
        mask = np.isin(labels, [item.id for item in found])
        true_mask = np.isin(true_labels, [item.id for item in true])
        # A pixel of two prompts ("cup, red cup") belongs to only one of them in the label image.
        if mask.sum() == sum(item.area for item in found):
            result["iou"] = float((mask & true_mask).sum() / (mask | true_mask).sum())
        distances = [math.hypot(best.centroid_x - item.centroid_x, best.centroid_y - item.centroid_y) for item in true]
        nearest = true[int(np.argmin(distances))]
        result["centroid_error_px"] = min(distances)
        if best.has_position and nearest.has_position:
            result["position_error_m"] = math.dist(_position(best), _position(nearest))
    return result


def _position(item: SegmentedObject) -> list[float] | None:
    return [item.position.x, item.position.y, item.position.z] if item.has_position else None


def _pixels(message: Image) -> np.ndarray:
    return np.frombuffer(message.data, np.uint8)


def main() -> int:
    """Runs the observer as a process until stdin ends."""
    with observing(DemoObserver) as (observer, reply):
        observer.wait_until_connected()
        reply({"connected": True})
        for line in sys.stdin:
            try:
                answered = answer(observer, json.loads(line))
            except (ValueError, OSError, cv2.error) as error:
                answered = {"error": " ".join(str(error).split())}
            reply(answered)
    return 0


if __name__ == "__main__":
    sys.exit(main())
