import math

import numpy as np
import pytest
from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from clip_seg_ros.nodes.outputs import centroids_message, markers_message, objects_message, union_mask
from clip_seg_ros.types import ObjectRegion

HEADER = Header(frame_id="camera_color_optical_frame")


def region(id: int, position_m: tuple[float, float, float] | None) -> ObjectRegion:
    mask = np.zeros((8, 10), np.bool_)
    mask[2:4, 3:7] = True
    return ObjectRegion("red cup", id, 0.75, mask, (3, 2, 7, 4), (4.5, 2.5), 8, position_m)


def test_every_field_of_an_object():
    message = objects_message(HEADER, ("red cup", "box"), [region(7, (0.1, -0.2, 0.9))])
    (item,) = message.objects
    assert message.header == HEADER and list(message.prompts) == ["red cup", "box"]
    assert (item.prompt, item.id, item.area, item.score) == ("red cup", 7, 8, pytest.approx(0.75))
    assert (item.x_min, item.y_min, item.x_max, item.y_max) == (3, 2, 7, 4)
    assert (item.centroid_x, item.centroid_y) == (4.5, 2.5)
    assert item.has_position and (item.position.x, item.position.y, item.position.z) == (0.1, -0.2, 0.9)


def test_an_absent_position_is_nan_and_not_zero():
    (item,) = objects_message(HEADER, ("red cup",), [region(1, None)]).objects
    assert not item.has_position
    assert all(math.isnan(value) for value in (item.position.x, item.position.y, item.position.z))


def test_only_located_objects_have_a_pose_and_markers():
    regions = [region(1, None), region(2, (0.1, -0.2, 0.9))]
    poses = centroids_message(HEADER, regions)
    assert [(pose.position.x, pose.position.y, pose.position.z) for pose in poses.poses] == [(0.1, -0.2, 0.9)]
    assert poses.poses[0].orientation.w == 1.0

    clear, ball, name = markers_message(HEADER, regions, [(255, 0, 0), (0, 255, 0)]).markers
    assert clear.action == Marker.DELETEALL
    assert (ball.type, ball.id, ball.pose.position.z) == (Marker.SPHERE, 2, 0.9)
    assert (ball.color.r, ball.color.g, ball.color.b) == (0.0, 1.0, 0.0)
    assert name.type == Marker.TEXT_VIEW_FACING and "red cup" in name.text
    assert name.pose.position.y < ball.pose.position.y, "y points down in the optical frame"
    assert all(marker.header == HEADER for marker in (clear, ball, name))


def test_union_mask():
    labels = np.array([[0, 3], [255, 0]], np.uint8)
    assert union_mask(labels).tolist() == [[0, 255], [255, 0]] and union_mask(labels).dtype == np.uint8
