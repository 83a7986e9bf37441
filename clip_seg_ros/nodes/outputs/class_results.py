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
from clip_seg_ros.nodes.outputs.camera_topics import CameraTopics, compressed, heard, image
from clip_seg_ros.nodes.outputs.topics import objects_message
from clip_seg_ros.pipeline.class_labels import ClassMap, class_regions, draw_classes, paint
from clip_seg_ros.pipeline.postprocess import label_image


@dataclass(frozen=True)
class ClassResult:
    """The classes of one image."""

    header: Header
    """The header of the image."""
    rgb: np.ndarray
    """(H, W, 3) uint8, the image."""
    found: ClassMap
    """The class of every pixel."""
    colors: np.ndarray
    """(256, 3) uint8 RGB, the colour of each label."""
    corner: str = ""
    """A small line for the corner of the overlay."""


class ClassTopics(CameraTopics):
    """Publishes every result, all with the image's header.

    Args:
        node: Node of the publishers.
        camera: Name of the camera, with which the topics begin; empty if there is only one camera.
    """

    def __init__(self, node: Node, camera: str) -> None:
        super().__init__(node, camera)
        self._labels = self.create(Image, "semantic/labels")
        self._color = self.create(Image, "semantic/color")
        self._overlay = self.create(Image, "semantic/overlay")
        self._overlay_jpeg = self.create(CompressedImage, "semantic/overlay/compressed")
        self._confidence = self.create(Image, "semantic/confidence")
        self._objects = self.create(SegmentedObjectArray, "semantic/objects")
        self._instances = self.create(Image, "semantic/instances")

    def prepare(self, result: ClassResult, min_area_fraction: float) -> Iterator[tuple[Publisher, object]]:
        """Makes the messages of one image for ``publish``, the labels first.

        A message that takes time to make is left out if its topic has no subscriber.

        Args:
            result: The classes of the image.
            min_area_fraction: The area of the smallest object, as a share of the image's pixels, 0..1.
        """
        header, names, labels = result.header, result.found.names, result.found.labels
        min_area_px = max(1, round(min_area_fraction * labels.size))
        # Once for both topics, so that the ids of the image are those of the list.
        regions = cache(lambda: class_regions(result.found, min_area_px))
        overlay = cache(lambda: draw_classes(result.rgb, labels, names, result.colors, result.corner))
        yield self._labels, image(header, labels, "8UC1")
        yield from heard(
            {
                self._color: lambda: image(header, paint(labels, result.colors), "rgb8"),
                self._overlay: lambda: image(header, overlay(), "rgb8"),
                self._overlay_jpeg: lambda: compressed(header, overlay(), "rgb8"),
                self._confidence: lambda: image(header, result.found.confidence, "32FC1"),
                self._objects: lambda: objects_message(header, names, regions(), self.camera),
                self._instances: lambda: image(header, label_image(regions(), labels.shape), "mono8"),
            }
        )
