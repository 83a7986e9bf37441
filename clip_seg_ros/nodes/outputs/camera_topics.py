# SPDX-License-Identifier: Apache-2.0
"""The result topics of one camera, whatever they carry: made, heard, published and destroyed together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from clip_seg_ros.nodes.camera.conversions import fill_compressed, fill_image
from clip_seg_ros.nodes.common.qos import RELIABLE
from clip_seg_ros.nodes.common.rclpy_internals import is_heard


class CameraTopics:
    """Publishers of one camera's results.

    Args:
        node: Node of the publishers.
        camera: Name of the camera, with which the topics begin; empty if there is only one camera.
    """

    def __init__(self, node: Node, camera: str) -> None:
        self.camera = camera
        self._node = node
        self._publishers: list[Publisher] = []

    def create(self, kind: type, topic: str) -> Publisher:
        """Returns a new publisher of a topic of the camera."""
        name = f"{self.camera}/{topic}" if self.camera else topic
        self._publishers.append(self._node.create_publisher(kind, name, RELIABLE))
        return self._publishers[-1]

    def is_heard(self) -> bool:
        """Returns whether any of the topics has a subscriber."""
        return is_heard(self._publishers)

    def close(self) -> None:
        """Destroys the publishers."""
        for publisher in self._publishers:
            self._node.destroy_publisher(publisher)
        self._publishers = []


def heard(makers: Mapping[Publisher | None, Callable[[], object]]) -> Iterator[tuple[Publisher, object]]:
    """Makes the messages of those topics that have a subscriber, one after the other; ``None`` is no topic."""
    for topic, make in makers.items():
        if topic is not None and topic.get_subscription_count() > 0:
            yield topic, make()


def publish(messages: Iterable[tuple[Publisher, object]]) -> None:
    """Publishes messages, each on its topic."""
    for topic, message in messages:
        topic.publish(message)


def image(header: Header, pixels: np.ndarray, encoding: str) -> Image:
    """Returns an image as a message; ``pixels`` are (H, W) or (H, W, C) of the encoding's type."""
    return fill_image(Image(header=header), pixels, encoding)


def compressed(header: Header, pixels: np.ndarray, encoding: str) -> CompressedImage:
    """Returns an image as a compressed message: ``fill_compressed`` says how each encoding is compressed."""
    return fill_compressed(CompressedImage(header=header), pixels, encoding)
