# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
from visualization_msgs.msg import Marker

from clip_seg_ros.nodes.outputs.memory_topics import (
    memory_markers_message,
    remembered_message,
    remembered_object_message,
)
from clip_seg_ros.pipeline.stream.remembered import LOOKS_BINS, BestView, RememberedObject
from clip_seg_ros.types import OrientedBox

BOX = OrientedBox((0.1, -0.2, 0.95), (0.3, 0.2, 0.0), (0.0, 0.6, 0.0, 0.8))


def remembered(id: int, box_m: OrientedBox | None = BOX) -> RememberedObject:
    return RememberedObject(
        id=id,
        phrase="red cup",
        position_m=(0.1, -0.2, 0.9),
        box_m=box_m,
        first_ns=1_500_000_000,
        last_ns=2_000_000_003,
        sightings=5,
        whole=4,
        missed=0,
        score=0.75,
        surface_m=np.zeros((0, 3), np.float32),
        looks=np.zeros(LOOKS_BINS, np.float32),
        view=BestView(b"jpeg", b"png", 0.1),
    )


def test_every_field_of_a_remembered_thing():
    message = remembered_message(remembered(300), "left", with_view=True)
    assert (message.id, message.phrase, message.camera, message.sightings) == (300, "red cup", "left", 5)
    assert message.score == np.float32(0.75)
    assert (message.first_seen.sec, message.first_seen.nanosec) == (1, 500_000_000)
    assert (message.last_seen.sec, message.last_seen.nanosec) == (2, 3)
    assert (message.position.x, message.position.y, message.position.z) == (0.1, -0.2, 0.9)
    assert message.has_box
    assert (message.box_size.x, message.box_size.y, message.box_size.z) == BOX.size_m
    assert (message.view.format, bytes(message.view.data)) == ("jpeg", b"jpeg")


def test_what_is_not_known_is_nan_and_pictures_stay_away():
    message = remembered_message(remembered(1, None))
    assert not message.has_box
    assert math.isnan(message.box_pose.position.x)
    assert math.isnan(message.box_size.z)
    assert not message.view.data


def test_a_goal_gets_a_place_and_no_pixels():
    message = remembered_object_message(remembered(7))
    assert (message.prompt, message.has_position, message.has_box) == ("red cup", True, True)
    assert message.position.z == 0.9
    assert message.box_pose.position.z == BOX.center_m[2]
    assert message.id == message.area == message.x_max == 0
    assert math.isnan(message.centroid_x)


def test_markers_are_names_and_grey_boxes_that_hold_until_the_next_message():
    message = memory_markers_message("map", [remembered(7), remembered(9, None)])
    first, *rest = message.markers
    assert first.action == Marker.DELETEALL
    assert [(marker.ns, marker.id) for marker in rest] == [
        ("remembered_names", 7),
        ("remembered_boxes", 7),
        ("remembered_names", 9),
    ]
    assert all(marker.header.frame_id == "map" for marker in message.markers)
    assert all(marker.header.stamp.sec == 0 for marker in message.markers), "the newest transform counts"
    name, box, _ = rest
    assert name.text == "red cup"
    assert name.pose.position.z > BOX.center_m[2], "above the box, where z points up"
    assert box.color.r == box.color.g == box.color.b
    assert box.scale.z > 0, "RViz refuses a box without thickness"
