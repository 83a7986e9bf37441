# SPDX-License-Identifier: Apache-2.0
"""Messages and markers of what found objects relate to."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from geometry_msgs.msg import Point, Vector3
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker

from clip_seg_ros.msg import SegmentedObject
from clip_seg_ros.nodes.camera.target_frame import Motion
from clip_seg_ros.nodes.outputs.topics import OPTICAL_UP, object_message, point
from clip_seg_ros.pipeline.ties import Ties
from clip_seg_ros.types import ObjectRegion, OrientedBox

_LINE_M = 0.003
_TEXT_HEIGHT_M = 0.018
_GREY = ColorRGBA(r=0.72, g=0.72, b=0.76, a=0.8)
_EDGES = [
    (one, other)
    for one, other in itertools.combinations(list(itertools.product((-0.5, 0.5), repeat=3)), 2)
    if sum(a != b for a, b in zip(one, other, strict=True)) == 1
]
"""The twelve edges of a cube with sides of 1."""


def relate(
    objects: Sequence[SegmentedObject], regions: Sequence[ObjectRegion], ties: Ties, motion: Motion | None = None
) -> list[SegmentedObject]:
    """Notes in the messages of objects what they relate to.

    Args:
        objects: The messages of ``regions``, which are changed.
        regions: The found objects.
        ties: What they relate to.
        motion: The transform to the frame of the positions; ``None``: they stay in the optical frame.

    Returns:
        The messages of the anchors, into which the objects' indices point.
    """
    anchors = [object_message(motion.region(anchor) if motion else anchor) for anchor in ties.anchors]
    for anchor in anchors:
        anchor.id = 0
    for message, region in zip([*objects, *anchors], [*regions, *ties.anchors], strict=True):
        message.anchors = ties.indices(region)
    return anchors


def tie_markers(
    header: Header, ties: Ties, motion: Motion | None = None, up: tuple[float, float, float] = OPTICAL_UP
) -> list[Marker]:
    """Returns thin lines from objects to what they relate to, and the outlines and names of the latter.

    Args:
        header: Stamp of the image and frame of the positions.
        ties: What relates to what; things without positions are left out.
        motion: The transform to that frame; ``None``: positions stay in the optical frame.
        up: Unit vector that points up in that frame; names are placed in this direction.
    """

    def moved(region: ObjectRegion) -> ObjectRegion:
        return motion.region(region) if motion else region

    ends = [(tie.region, tie.anchor) for tie in ties.ties]
    drawn = [pair for pair in ends if all(region.position_m is not None for region in pair)]
    markers = []
    if drawn:
        between = [point(moved(region).position_m) for pair in drawn for region in pair]
        markers.append(_lines(header, "relations", 0, between))
    for index, anchor in enumerate(map(moved, ties.anchors)):
        if anchor.position_m is None:
            continue
        if anchor.box_m is not None:
            markers.append(_lines(header, "anchors", index, _edges(anchor.box_m)))
        markers.append(_name(header, index, anchor, up))
    return markers


def _lines(header: Header, space: str, index: int, points: list[Point]) -> Marker:
    """Returns lines, each from one point to the next of a pair."""
    marker = Marker(header=header, ns=space, id=index, type=Marker.LINE_LIST, action=Marker.ADD, color=_GREY)
    marker.scale = Vector3(x=_LINE_M)
    marker.pose.orientation.w = 1.0
    marker.points = points
    return marker


def _edges(box: OrientedBox) -> list[Point]:
    x, y, z, w = box.orientation_xyzw
    vector = np.array([x, y, z])
    corners = np.array(_EDGES).reshape(-1, 3) * np.asarray(box.size_m)
    twice = 2 * np.cross(vector, corners)
    turned = corners + w * twice + np.cross(vector, twice) + np.asarray(box.center_m)
    return [point(corner) for corner in turned]


def _name(header: Header, index: int, anchor: ObjectRegion, up: tuple[float, float, float]) -> Marker:
    marker = Marker(header=header, ns="anchor_names", id=index, type=Marker.TEXT_VIEW_FACING, action=Marker.ADD)
    marker.text, marker.color = anchor.prompt, _GREY
    marker.scale.z = _TEXT_HEIGHT_M
    position, direction = np.asarray(anchor.position_m), np.asarray(up)
    top_m = 0.0
    if (box := anchor.box_m) is not None:
        top_m = float((np.asarray(box.center_m) - position) @ direction) + box.reach_m(up)
    marker.pose.position = point(position + (top_m + _TEXT_HEIGHT_M) * direction)
    marker.pose.orientation.w = 1.0
    return marker
