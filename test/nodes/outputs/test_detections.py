# SPDX-License-Identifier: Apache-2.0
"""The results as vision_msgs, where that package is installed."""

from __future__ import annotations

import numpy as np
import pytest
from std_msgs.msg import Header

from clip_seg_ros.nodes.outputs import detections
from clip_seg_ros.types import ObjectRegion, OrientedBox

pytestmark = pytest.mark.skipif(not detections.AVAILABLE, reason="vision_msgs is not installed")
HEADER = Header(frame_id="map")
BOX = OrientedBox((0.1, -0.2, 0.95), (0.3, 0.2, 0.1), (0.0, 0.6, 0.0, 0.8))


def region(id: int, position_m: tuple[float, ...] | None, box_m: OrientedBox | None = None) -> ObjectRegion:
    mask = np.zeros((8, 10), np.bool_)
    mask[2:4, 3:7] = True
    return ObjectRegion.of_mask("red cup", id, 0.75, mask, position_m, box_m)


def test_boxes_in_pixels():
    (found,) = detections.message(HEADER, [region(7, (0.1, -0.2, 0.9))]).detections
    assert (found.id, found.bbox.size_x, found.bbox.size_y) == ("7", 4.0, 2.0)
    assert (found.bbox.center.position.x, found.bbox.center.position.y) == (4.5, 2.5)
    (hypothesis,) = found.results
    assert (hypothesis.hypothesis.class_id, hypothesis.hypothesis.score) == ("red cup", pytest.approx(0.75))
    assert hypothesis.pose.pose.position.z == 0.9


def test_oriented_boxes_in_metres():
    message = detections.message_3d(HEADER, [region(1, None), region(2, (0.1, -0.2, 0.9), BOX)])
    (found,) = message.detections
    assert message.header == found.header == HEADER
    assert found.id == "2"
    centre, turn, size = found.bbox.center.position, found.bbox.center.orientation, found.bbox.size
    assert (centre.x, centre.y, centre.z) == BOX.center_m
    assert (size.x, size.y, size.z) == BOX.size_m
    assert (turn.x, turn.y, turn.z, turn.w) == BOX.orientation_xyzw
    assert found.results[0].hypothesis.class_id == "red cup"
    assert found.results[0].pose.pose.position.z == 0.9


def test_what_is_too_small_for_a_box_has_an_empty_one():
    (found,) = detections.message_3d(HEADER, [region(2, (0.1, -0.2, 0.9))]).detections
    assert found.bbox.center.position.z == 0.9
    assert found.bbox.size.x == 0.0
    assert found.bbox.center.orientation.w == 1.0


def test_names_of_values():
    message = detections.label_info(HEADER, {3: "red cup", 7: "ball"}, 0.25)
    assert {each.class_id: each.class_name for each in message.class_map} == {3: "red cup", 7: "ball"}
    assert (message.header, message.threshold) == (HEADER, 0.25)
