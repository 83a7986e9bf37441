"""The result topics of a node: what was found in one image, in every form that users rely on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from geometry_msgs.msg import PoseArray
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from clip_seg_ros.msg import SegmentedObjectArray
from clip_seg_ros.nodes.conversions import fill_image
from clip_seg_ros.nodes.outputs import centroids_message, markers_message, objects_message, union_mask
from clip_seg_ros.nodes.qos import RELIABLE
from clip_seg_ros.pipeline.overlay import draw, prompt_colors
from clip_seg_ros.pipeline.postprocess import label_image
from clip_seg_ros.types import ObjectRegion, ProbabilityMaps


class ResultTopics:
    """Publishes mask, labels, confidence, overlay, objects, centroids and markers, all with the image's header."""

    def __init__(self, node: Node) -> None:
        def publisher(kind: type, topic: str) -> Publisher:
            return node.create_publisher(kind, topic, RELIABLE)

        self._mask = publisher(Image, "mask")
        self._labels = publisher(Image, "labels")
        self._confidence = publisher(Image, "confidence")
        self._overlay = publisher(Image, "overlay")
        self._objects = publisher(SegmentedObjectArray, "objects")
        self._centroids = publisher(PoseArray, "centroids")
        self._markers = publisher(MarkerArray, "markers")

    def prepare(
        self, header: Header, rgb: np.ndarray, maps: ProbabilityMaps, regions: Sequence[ObjectRegion]
    ) -> list[tuple[Publisher, object]]:
        """Makes the messages of one image for ``publish``; what nobody listens to and costs time is left out.

        Args:
            header: Of the image.
            rgb: (H, W, 3) uint8, the image.
            maps: What was asked and how sure the model is; P = 0 empties every output.
            regions: What was found.
        """
        labels = label_image(regions, rgb.shape[:2])
        colors = prompt_colors(maps.prompts)
        makers = {
            self._labels: lambda: _image(header, labels, "8UC1"),
            self._confidence: lambda: _image(header, maps.values.max(axis=0, initial=0.0), "32FC1"),
            self._overlay: lambda: _image(header, draw(rgb, regions, maps.prompts), "rgb8"),
            self._centroids: lambda: centroids_message(header, regions),
            self._markers: lambda: markers_message(header, regions, [colors[region.prompt] for region in regions]),
        }
        messages: list[tuple[Publisher, object]] = [
            (self._mask, _image(header, union_mask(labels), "mono8")),
            (self._objects, objects_message(header, maps.prompts, regions)),
        ]
        messages += [(topic, make()) for topic, make in makers.items() if topic.get_subscription_count() > 0]
        return messages


def publish(messages: Sequence[tuple[Publisher, object]]) -> None:
    """Sends what ``ResultTopics.prepare`` made."""
    for topic, message in messages:
        topic.publish(message)


def _image(header: Header, pixels: np.ndarray, encoding: str) -> Image:
    return fill_image(Image(header=header), pixels, encoding)
