# SPDX-License-Identifier: Apache-2.0
"""The result topics of one camera of a ``semantic`` node: a class for every pixel, in several forms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from clip_seg_ros.msg import SegmentedObjectArray
from clip_seg_ros.nodes.camera.conversions import fill_compressed, fill_image
from clip_seg_ros.nodes.common.qos import RELIABLE
from clip_seg_ros.nodes.common.rclpy_internals import is_heard
from clip_seg_ros.nodes.outputs.topics import objects_message
from clip_seg_ros.pipeline.class_labels import class_regions, draw_classes, paint
from clip_seg_ros.types import ProbabilityMaps


@dataclass(frozen=True)
class ClassResult:
    """The classes of one image."""

    header: Header
    """The header of the image."""
    rgb: np.ndarray
    """(H, W, 3) uint8, the image."""
    maps: ProbabilityMaps
    """The probability of each class at every pixel."""
    labels: np.ndarray
    """(H, W) uint8, the index of each pixel's class, or 255 if it has none."""
    colors: np.ndarray
    """(256, 3) uint8 RGB, the colour of each label."""
    corner: str = ""
    """A small line for the corner of the overlay."""


class ClassTopics:
    """Publishes every result, all with the image's header.

    Args:
        node: Node of the publishers.
        camera: Name of the camera, with which the topics begin; empty if there is only one camera.
    """

    def __init__(self, node: Node, camera: str) -> None:
        def publisher(kind: type, topic: str) -> Publisher:
            return node.create_publisher(kind, f"{camera}/semantic/{topic}".lstrip("/"), RELIABLE)

        self._node, self._camera = node, camera
        self._labels = publisher(Image, "labels")
        self._color = publisher(Image, "color")
        self._overlay = publisher(Image, "overlay")
        self._overlay_jpeg = publisher(CompressedImage, "overlay/compressed")
        self._confidence = publisher(Image, "confidence")
        self._objects = publisher(SegmentedObjectArray, "objects")
        self._all = (
            self._labels,
            self._color,
            self._overlay,
            self._overlay_jpeg,
            self._confidence,
            self._objects,
        )

    def is_heard(self) -> bool:
        """Returns whether any of the topics has a subscriber."""
        return is_heard(self._all)

    def close(self) -> None:
        """Destroys the publishers."""
        for each in self._all:
            self._node.destroy_publisher(each)

    def prepare(self, result: ClassResult, min_area_fraction: float) -> Iterator[tuple[Publisher, object]]:
        """Makes the messages of one image for ``results.publish``, the labels first.

        A message that takes time to make is left out if its topic has no subscriber.

        Args:
            result: The classes of the image.
            min_area_fraction: The area of the smallest object, as a share of the image's pixels, 0..1.
        """
        header, names = result.header, result.maps.prompts

        def objects() -> SegmentedObjectArray:
            min_area_px = max(1, round(min_area_fraction * result.labels.size))
            found = class_regions(result.maps, result.labels, min_area_px)
            return objects_message(header, names, found, self._camera)

        def image(pixels: np.ndarray, encoding: str) -> Image:
            return fill_image(Image(header=header), pixels, encoding)

        overlay = cache(lambda: draw_classes(result.rgb, result.labels, names, result.colors, result.corner))
        makers = {
            self._color: lambda: image(paint(result.labels, result.colors), "rgb8"),
            self._overlay: lambda: image(overlay(), "rgb8"),
            self._overlay_jpeg: lambda: fill_compressed(CompressedImage(header=header), overlay(), "rgb8"),
            self._confidence: lambda: image(result.maps.values.max(axis=0), "32FC1"),
            self._objects: objects,
        }
        yield self._labels, image(result.labels, "8UC1")
        for topic, make in makers.items():
            if topic.get_subscription_count() > 0:
                yield topic, make()
