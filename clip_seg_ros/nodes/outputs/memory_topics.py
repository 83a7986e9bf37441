# SPDX-License-Identifier: Apache-2.0
"""What is remembered, as messages, and the topics that show it."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping

from geometry_msgs.msg import Pose
from rclpy.node import Node
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from clip_seg_ros.msg import RememberedObject as RememberedMessage
from clip_seg_ros.msg import RememberedObjectArray, SegmentedObject
from clip_seg_ros.nodes.common.qos import LATCHED
from clip_seg_ros.nodes.common.rclpy_internals import is_heard
from clip_seg_ros.nodes.outputs.topics import (
    OPTICAL_UP,
    WORLD_UP,
    box_pose,
    box_size,
    name_marker,
    no_object_message,
    point,
    vector,
)
from clip_seg_ros.pipeline.stream.remembered import RememberedObject

_GREY = ColorRGBA(r=0.6, g=0.6, b=0.6, a=0.35)


def remembered_message(item: RememberedObject, camera: str = "", with_view: bool = False) -> RememberedMessage:
    """Returns one remembered thing.

    Args:
        item: The thing.
        camera: Name of the camera that saw it last, if there are several.
        with_view: Whether its best picture is in the message.
    """
    absent, box = (math.nan,) * 3, item.box_m
    message = RememberedMessage(
        id=item.id,
        phrase=item.phrase,
        camera=camera,
        score=item.score,
        sightings=item.sightings,
        first_seen=Time(nanoseconds=max(0, item.first_ns)).to_msg(),
        last_seen=Time(nanoseconds=max(0, item.last_ns)).to_msg(),
        position=point(item.position_m),
        has_box=box is not None,
        box_pose=box_pose(box) if box else Pose(position=point(absent)),
        box_size=vector(box.size_m if box else absent),
    )
    if with_view:
        message.view = CompressedImage(format="jpeg", data=array("B", item.view.jpeg))
    return message


def remembered_object_message(item: RememberedObject) -> SegmentedObject:
    """Returns a remembered thing as ``find_object`` answers it: with a place, and without pixels."""
    message, box = no_object_message(), item.box_m
    message.prompt, message.score = item.phrase, item.score
    message.has_position, message.position = True, point(item.position_m)
    if box is not None:
        message.has_box, message.box_pose, message.box_size = True, box_pose(box), vector(box.size_m)
    return message


def memory_markers_message(frame_id: str, items: Iterable[RememberedObject]) -> MarkerArray:
    """Returns a name and a grey box for each thing, after deleting all earlier markers.

    Their stamps are 0, which stands for the newest transform: they hold until the next message.

    Args:
        frame_id: The fixed frame.
        items: The things, with positions in that frame.
    """
    header = Header(frame_id=frame_id)
    up = OPTICAL_UP if "optical" in frame_id else WORLD_UP
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for item in items:
        box = item.box_m
        markers.append(name_marker(header, "remembered_names", item.id, item.phrase, item.position_m, box, up))
        if box is not None:
            marker = Marker(header=header, ns="remembered_boxes", id=item.id, type=Marker.CUBE, action=Marker.ADD)
            marker.color, marker.pose, marker.scale = _GREY, box_pose(box), box_size(box)
            markers.append(marker)
    return MarkerArray(markers=markers)


class MemoryTopics:
    """Publishes what is remembered, latched. Whoever uses it decides when.

    Args:
        node: Node of the publishers.
        frame_id: The fixed frame of the positions.
    """

    def __init__(self, node: Node, frame_id: str) -> None:
        self._node, self._frame_id = node, frame_id
        self._objects = node.create_publisher(RememberedObjectArray, "memory", LATCHED)
        self._markers = node.create_publisher(MarkerArray, "memory_markers", LATCHED)
        self._marked: tuple[tuple[object, ...], ...] = ()

    def is_heard(self) -> bool:
        """Returns whether any of the topics has a subscriber."""
        return is_heard((self._objects, self._markers))

    def publish(self, items: Iterable[RememberedObject], cameras: Mapping[int, str], stamp_ns: int) -> None:
        """Publishes everything that is remembered.

        Args:
            items: The things, the last seen first.
            cameras: The names of the cameras that saw them last, by the ids of the things.
            stamp_ns: The stamp of the newest image that changed something.
        """
        header = Header(stamp=Time(nanoseconds=max(0, stamp_ns)).to_msg(), frame_id=self._frame_id)
        objects = [remembered_message(item, cameras.get(item.id, "")) for item in items]
        self._objects.publish(RememberedObjectArray(header=header, objects=objects))

    def mark(self, items: Iterable[RememberedObject]) -> None:
        """Publishes the markers of things that are out of view, if they are others than last time."""
        items = sorted(items, key=lambda item: item.id)
        marked = tuple((item.id, item.phrase, item.position_m, item.box_m) for item in items)
        if marked != self._marked:
            self._marked = marked
            self._markers.publish(memory_markers_message(self._frame_id, items))

    def close(self) -> None:
        """Destroys the publishers."""
        for publisher in (self._objects, self._markers):
            self._node.destroy_publisher(publisher)
