# SPDX-License-Identifier: Apache-2.0
"""The result topics of one camera: the objects that were found in one image, in several forms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from geometry_msgs.msg import PoseArray
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from clip_seg_ros.msg import SegmentedObjectArray
from clip_seg_ros.nodes.camera.target_frame import Motion
from clip_seg_ros.nodes.outputs import detections
from clip_seg_ros.nodes.outputs.camera_topics import CameraTopics, compressed, heard, image
from clip_seg_ros.nodes.outputs.relating import relate, tie_markers
from clip_seg_ros.nodes.outputs.topics import (
    OPTICAL_UP,
    WORLD_UP,
    centroids_message,
    markers_message,
    objects_message,
    points_message,
    union_mask,
)
from clip_seg_ros.pipeline.cell_maps import CellMaps
from clip_seg_ros.pipeline.lettering import Color
from clip_seg_ros.pipeline.overlay import draw, prompt_colors
from clip_seg_ros.pipeline.postprocess import label_image
from clip_seg_ros.pipeline.space.localization import Measurement
from clip_seg_ros.pipeline.space.point_cloud import PointCloud, point_cloud
from clip_seg_ros.pipeline.ties import NO_TIES, Ties
from clip_seg_ros.types import ObjectRegion


@dataclass(frozen=True)
class Result:
    """The objects that were found in one image."""

    header: Header
    """The header of the image."""
    rgb: np.ndarray
    """(H, W, 3) uint8, the image."""
    maps: CellMaps
    """The prompts and their probabilities; with P = 0 every output is empty."""
    measured: Sequence[Measurement] = ()
    """The objects, with positions and points in the camera's optical frame."""
    motion: Motion | None = None
    """The transform to the frame of the positions; ``None``: they stay in the optical frame."""
    corner: str = ""
    """A small line for the corner of the overlay."""
    threshold: float = 0.5
    """The probability above which a pixel belongs to a prompt, 0..1."""
    ties: Ties = NO_TIES
    """What the objects relate to, in the camera's optical frame."""

    @property
    def position_header(self) -> Header:
        """The header of messages with positions in metres."""
        if self.motion is None:
            return self.header
        return Header(stamp=self.header.stamp, frame_id=self.motion.frame_id)

    @property
    def up(self) -> tuple[float, float, float]:
        """Unit vector that points up in the frame of the positions."""
        # The frame of an image is optical whatever its name is; for other frames, only the name tells.
        return OPTICAL_UP if self.motion is None or "optical" in self.motion.frame_id else WORLD_UP


class ResultTopics(CameraTopics):
    """Publishes every result, all with the image's header.

    Args:
        node: Node of the publishers.
        camera: Name of the camera, with which the topics begin; empty if there is only one camera.
    """

    def __init__(self, node: Node, camera: str = "") -> None:
        super().__init__(node, camera)
        self._mask = self.create(Image, "mask")
        self._mask_png = self.create(CompressedImage, "mask/compressed")
        self._labels = self.create(Image, "labels")
        self._confidence = self.create(Image, "confidence")
        self._overlay = self.create(Image, "overlay")
        self._overlay_jpeg = self.create(CompressedImage, "overlay/compressed")
        self._objects = self.create(SegmentedObjectArray, "objects")
        self._centroids = self.create(PoseArray, "centroids")
        self._markers = self.create(MarkerArray, "markers")
        self._points = self.create(PointCloud2, "points")
        self._detections = self._detections_3d = self._label_info = None
        if detections.AVAILABLE:
            self._detections = self.create(detections.Detection2DArray, "detections")
            self._detections_3d = self.create(detections.Detection3DArray, "detections3d")
            self._label_info = self.create(detections.LabelInfo, "label_info")

    def prepare(self, result: Result, max_points: int) -> Iterator[tuple[Publisher, object]]:
        """Makes the messages of one image for ``publish``, one after the other; the mask is first, as robots act on it.

        A message that takes time to make is left out if its topic has no subscriber.

        Args:
            result: The result of the image.
            max_points: The largest number of points of one object in the point cloud.
        """
        header, rgb, prompts = result.header, result.rgb, result.maps.prompts
        seen = [measurement.region for measurement in result.measured]
        placed = [result.motion.region(region) for region in seen] if result.motion else seen
        metric = result.position_header
        labels = label_image(seen, rgb.shape[:2])
        mask = union_mask(labels)
        yield self._mask, image(header, mask, "mono8")
        colors = prompt_colors(prompts)
        overlay = cache(lambda: draw(rgb, seen, prompts, corner=result.corner, ties=result.ties))
        makers = {
            self._mask_png: lambda: compressed(header, mask, "mono8"),
            self._labels: lambda: image(header, labels, "8UC1"),
            self._confidence: lambda: image(header, result.maps.confidence(), "32FC1"),
            self._overlay: lambda: image(header, overlay(), "rgb8"),
            self._overlay_jpeg: lambda: compressed(header, overlay(), "rgb8"),
            self._centroids: lambda: centroids_message(metric, placed),
            self._markers: lambda: _markers(result, placed, colors),
            self._points: lambda: points_message(metric, _cloud(result, max_points)),
            self._detections: lambda: detections.message(header, seen),
            self._detections_3d: lambda: detections.message_3d(metric, placed),
            self._label_info: lambda: detections.label_info(
                header, {region.id: region.prompt for region in seen}, result.threshold
            ),
        }
        objects = objects_message(header, prompts, placed, self.camera, metric.frame_id)
        objects.anchors = relate(objects.objects, seen, result.ties, result.motion)
        yield self._objects, objects
        yield from heard(makers)


def _markers(result: Result, placed: Sequence[ObjectRegion], colors: Mapping[str, Color]) -> MarkerArray:
    header, up = result.position_header, result.up
    message = markers_message(header, placed, [colors[region.prompt] for region in placed], up)
    message.markers += tie_markers(header, result.ties, result.motion, up)
    return message


def _cloud(result: Result, max_points: int) -> PointCloud:
    cloud = point_cloud(result.measured, result.rgb, max_points)
    return replace(cloud, points_m=result.motion.points(cloud.points_m)) if result.motion else cloud
