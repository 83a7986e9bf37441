# SPDX-License-Identifier: Apache-2.0
"""Listens to what nodes publish of images while somebody wants it, because a node works only for subscribers."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage, Image

from clip_seg_ros.msg import SegmentedObjectArray
from clip_seg_ros.nodes.camera.conversions import compressed_to_rgb, fill_compressed, image_to_rgb
from clip_seg_ros.nodes.common.qos import RELIABLE
from clip_seg_ros.nodes.common.rclpy_internals import publisher_count

_KEPT = 16
"""The number of messages of a topic that are kept; what belongs to one image arrives within a few images."""
_UNUSED_S = 10.0
"""The time in seconds after which a subscription that nobody wanted is given up."""
MAX_SIDE_PX = 1024
"""The longest side of a picture that is handed on, in pixels: a larger one is made smaller."""


@dataclass
class _Heard:
    """A subscription and its newest messages, by their stamps in nanoseconds."""

    subscription: Subscription | None = None
    messages: deque[tuple[int, Any]] = field(default_factory=lambda: deque(maxlen=_KEPT))
    count: int = 0
    users: int = 0
    left_s: float = 0.0


class Listening:
    """Subscriptions that are made when they are needed, and given up when they were not needed for a while.

    ``open`` must be called on the thread that spins the node, where unused subscriptions are given up, too.

    Args:
        node: Node of the subscriptions.
        changed: Notified of every message; held while the messages change.
    """

    def __init__(self, node: Node, changed: threading.Condition) -> None:
        self._node, self._changed = node, changed
        self._topics: dict[str, _Heard] = {}
        self._timer = node.create_timer(1.0, self._close_unused)

    def cameras(self) -> dict[str, str]:
        """Returns the topic of objects of each camera of the nodes ``referring`` in the namespace, by its name."""
        below = f"{self._node.get_namespace().rstrip('/')}/"
        names = [
            name
            for name, kinds in self._node.get_topic_names_and_types()
            if name.startswith(below) and name.endswith("/objects") and "clip_seg_ros/msg/SegmentedObjectArray" in kinds
        ]
        found = {name[len(below) - 1 : -len("/objects")].strip("/"): name for name in sorted(names)}
        return {camera: name for camera, name in found.items() if camera.rpartition("/")[2] != "semantic"}

    def open(self, topic: str, kind: type, qos: QoSProfile = RELIABLE) -> bool:
        """Subscribes to a topic on behalf of one more user; returns whether there was a connected subscription."""
        with self._changed:
            heard = self._topics.setdefault(topic, _Heard())
            heard.users += 1
            if heard.subscription is not None:
                return publisher_count(self._node, heard.subscription) > 0
            heard.messages.clear()
            heard.subscription = self._node.create_subscription(kind, topic, self._keeper(heard), qos)
            return False

    def leave(self, topics: Sequence[str]) -> None:
        """Says that one user of each of these topics needs it no more; it may be called on any thread."""
        with self._changed:
            for heard in map(self._topics.__getitem__, topics):
                heard.users, heard.left_s = heard.users - 1, time.monotonic()

    def _keeper(self, heard: _Heard) -> Callable[[Any], None]:
        def keep(message: Any) -> None:
            with self._changed:
                heard.messages.append((Time.from_msg(message.header.stamp).nanoseconds, message))
                heard.count += 1
                self._changed.notify_all()

        return keep

    def _close_unused(self) -> None:
        with self._changed:
            for heard in self._topics.values():
                is_unused = not heard.users and time.monotonic() - heard.left_s > _UNUSED_S
                if is_unused and heard.subscription is not None:
                    self._node.destroy_subscription(heard.subscription)
                    heard.subscription = None

    def is_connected(self, topics: Sequence[str]) -> bool:
        """Returns whether every one of these topics has a publisher; they must have been opened."""
        return all(publisher_count(self._node, self._topics[topic].subscription) > 0 for topic in topics)

    def count(self, topic: str) -> int:
        """Returns the number of messages of a topic so far."""
        return self._topics[topic].count

    def messages(self, topic: str) -> list[tuple[int, Any]]:
        """Returns the newest messages of a topic and their stamps in nanoseconds, the oldest first."""
        return list(self._topics[topic].messages)


def overlay_topic(objects_topic: str) -> str:
    """Returns the topic of the overlays that belong to a topic of objects."""
    return objects_topic.removesuffix("objects") + "overlay/compressed"


def objects_of_prompts(
    messages: Sequence[tuple[int, SegmentedObjectArray]], prompts: Sequence[str], since_ns: int
) -> list[tuple[int, SegmentedObjectArray]]:
    """Returns those objects that answer these prompts in images with this stamp or a later one."""
    return [(stamp, each) for stamp, each in messages if stamp >= since_ns and list(each.prompts) == list(prompts)]


def as_jpeg(message: Image | CompressedImage) -> tuple[bytes, int, int]:
    """Returns a picture as a JPEG of at most ``MAX_SIDE_PX`` a side, its width and its height in pixels.

    Raises:
        ConversionError: The picture cannot be read.
    """
    rgb = compressed_to_rgb(message) if isinstance(message, CompressedImage) else image_to_rgb(message)
    height, width = rgb.shape[:2]
    scale = MAX_SIDE_PX / max(height, width)
    if scale < 1.0:
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        rgb = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
    return bytes(fill_compressed(CompressedImage(), rgb, "rgb8").data), width, height
