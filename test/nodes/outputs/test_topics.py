# SPDX-License-Identifier: Apache-2.0
import math
import struct

import numpy as np
import pytest
from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from clip_seg_ros.nodes.camera.target_frame import Motion
from clip_seg_ros.nodes.outputs.results import Result
from clip_seg_ros.nodes.outputs.topics import (
    centroids_message,
    markers_message,
    objects_message,
    points_message,
    union_mask,
)
from clip_seg_ros.pipeline.cell_maps import CellMaps
from clip_seg_ros.pipeline.preprocess import Geometry
from clip_seg_ros.pipeline.space.point_cloud import PointCloud
from clip_seg_ros.types import ObjectRegion, OrientedBox

HEADER = Header(frame_id="camera_color_optical_frame")


BOX = OrientedBox((0.1, -0.2, 0.95), (0.3, 0.2, 0.0), (0.0, 0.6, 0.0, 0.8))


def region(id: int, position_m: tuple[float, float, float] | None, box_m: OrientedBox | None = None) -> ObjectRegion:
    mask = np.zeros((8, 10), np.bool_)
    mask[2:4, 3:7] = True
    return ObjectRegion.of_mask("red cup", id, 0.75, mask, position_m, box_m)


def test_every_field_of_an_object():
    message = objects_message(HEADER, ("red cup", "box"), [region(7, (0.1, -0.2, 0.9))])
    (item,) = message.objects
    assert message.header == HEADER
    assert list(message.prompts) == ["red cup", "box"]
    assert (item.prompt, item.id, item.area, item.score) == ("red cup", 7, 8, pytest.approx(0.75))
    assert (item.x_min, item.y_min, item.x_max, item.y_max) == (3, 2, 7, 4)
    assert (item.centroid_x, item.centroid_y) == (4.5, 2.5)
    assert item.has_position
    assert (item.position.x, item.position.y, item.position.z) == (0.1, -0.2, 0.9)
    assert message.camera == ""
    assert message.position_frame == HEADER.frame_id


def test_a_box_and_a_frame_of_its_own():
    message = objects_message(HEADER, ("red cup",), [region(7, (0.1, -0.2, 0.9), BOX)], "left", "map")
    (item,) = message.objects
    centre, turn, size = item.box_pose.position, item.box_pose.orientation, item.box_size
    assert item.has_box
    assert (centre.x, centre.y, centre.z) == BOX.center_m
    assert (turn.x, turn.y, turn.z, turn.w) == BOX.orientation_xyzw
    assert (size.x, size.y, size.z) == BOX.size_m
    assert (message.camera, message.position_frame, message.header) == ("left", "map", HEADER)


def test_an_absent_position_is_nan_and_not_zero():
    (item,) = objects_message(HEADER, ("red cup",), [region(1, None)]).objects
    assert not item.has_position
    assert all(math.isnan(value) for value in (item.position.x, item.position.y, item.position.z))
    assert not item.has_box
    assert math.isnan(item.box_pose.position.x)
    assert math.isnan(item.box_size.z)
    assert item.box_pose.orientation.w == 1.0, "an orientation is never 0, not even of nothing"


def test_only_located_objects_have_a_pose_and_markers():
    regions = [region(1, None), region(2, (0.1, -0.2, 0.9))]
    poses = centroids_message(HEADER, regions)
    assert [(pose.position.x, pose.position.y, pose.position.z) for pose in poses.poses] == [(0.1, -0.2, 0.9)]
    assert poses.poses[0].orientation.w == 1.0

    clear, ball, name = markers_message(HEADER, regions, [(255, 0, 0), (0, 255, 0)]).markers
    assert clear.action == Marker.DELETEALL
    assert (ball.type, ball.id, ball.pose.position.z) == (Marker.SPHERE, 2, 0.9)
    assert (ball.color.r, ball.color.g, ball.color.b) == (0.0, 1.0, 0.0)
    assert name.type == Marker.TEXT_VIEW_FACING
    assert "red cup" in name.text
    assert name.pose.position.y < ball.pose.position.y, "y points down in the optical frame"
    assert all(marker.header == HEADER for marker in (clear, ball, name))


def test_a_box_is_shown_around_its_object():
    markers = markers_message(HEADER, [region(2, (0.1, -0.2, 0.9), BOX)], [(255, 0, 0)]).markers
    (cube,) = [marker for marker in markers if marker.ns == "boxes"]
    assert (cube.type, cube.id, cube.pose.position.z) == (Marker.CUBE, 2, 0.95)
    assert (cube.scale.x, cube.scale.y) == (0.3, 0.2), "RViz shows no box without thickness"
    assert cube.scale.z > 0, "RViz shows no box without thickness"
    assert 0 < cube.color.a < 1


def test_words_of_a_name_stand_together():
    """RViz takes the space between words from ``scale.x``; 0 makes it as wide as it likes."""
    name = markers_message(HEADER, [region(2, (0.1, -0.2, 0.9))], [(255, 0, 0)]).markers[-1]
    assert name.type == Marker.TEXT_VIEW_FACING
    assert 0.2 < name.scale.x / name.scale.z < 0.6


@pytest.mark.parametrize("up", [(0.0, -1.0, 0.0), (0.0, 0.0, 1.0)])
@pytest.mark.parametrize("box", [None, BOX])
def test_a_name_stands_above_its_object_and_not_beside_it(up, box):
    position = np.array((0.1, -0.2, 0.9))
    markers = markers_message(HEADER, [region(2, tuple(position), box)], [(255, 0, 0)], up).markers
    (name,) = [marker for marker in markers if marker.ns == "names"]
    (ball,) = [marker for marker in markers if marker.ns == "objects"]
    shift = np.array((name.pose.position.x, name.pose.position.y, name.pose.position.z)) - position
    assert shift == pytest.approx(np.dot(shift, up) * np.array(up)), "straight up"
    top = ball.scale.z / 2 if box is None else np.dot(np.array(box.center_m) - position, up) + box.reach_m(up)
    assert np.dot(shift, up) - name.scale.z / 2 >= max(top, ball.scale.z / 2), "nothing hides it"


def test_up_is_that_of_the_frame_of_the_positions():
    def up(frame_id: str | None) -> tuple[float, float, float]:
        motion = frame_id and Motion(frame_id, (0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0))
        maps = CellMaps((), np.zeros((0, 1, 1), np.float32), Geometry((1, 1), (1, 1)))
        return Result(HEADER, np.zeros((1, 1, 3), np.uint8), maps, motion=motion or None).up

    assert up(None) == up("head_camera_optical_frame") == (0.0, -1.0, 0.0)
    assert up("map") == up("base_link") == (0.0, 0.0, 1.0)


def test_every_field_of_a_point():
    """Read byte by byte, as the fields say."""
    rng = np.random.default_rng(1)
    points = rng.normal(size=(50, 3)).astype(np.float32)
    rgb, ids = rng.integers(0, 256, (50, 3)).astype(np.uint8), rng.integers(1, 256, 50).astype(np.uint8)
    message = points_message(HEADER, PointCloud(points, rgb, ids))
    assert (message.height, message.width, message.header) == (1, 50, HEADER)
    assert message.row_step == 50 * message.point_step == len(message.data)
    assert message.is_dense
    order, data = ">" if message.is_bigendian else "<", bytes(message.data)
    formats = {7: "f", 6: "I"}  # FLOAT32, UINT32
    offsets = {each.name: (each.offset, formats[each.datatype]) for each in message.fields}
    assert list(offsets) == ["x", "y", "z", "rgb", "id"]
    for index in range(50):
        start = index * message.point_step
        values = {
            name: struct.unpack_from(order + kind, data, start + offset)[0] for name, (offset, kind) in offsets.items()
        }
        assert [values[axis] for axis in "xyz"] == points[index].tolist()
        assert values["id"] == ids[index]
        # As RViz does: the bits of the number that is called a float are 0x00RRGGBB.
        (bits,) = struct.unpack_from(order + "I", data, start + offsets["rgb"][0])
        assert (bits >> 16, bits >> 8 & 255, bits & 255) == tuple(rgb[index].tolist())


def test_a_cloud_without_points():
    nothing = PointCloud(np.empty((0, 3), np.float32), np.empty((0, 3), np.uint8), np.empty(0, np.uint8))
    message = points_message(HEADER, nothing)
    assert (message.height, message.width, message.row_step, len(message.data)) == (1, 0, 0, 0)
    assert len(message.fields) == 5
    assert message.point_step == 20


def test_union_mask():
    labels = np.array([[0, 3], [255, 0]], np.uint8)
    assert union_mask(labels).tolist() == [[0, 255], [255, 0]]
    assert union_mask(labels).dtype == np.uint8
