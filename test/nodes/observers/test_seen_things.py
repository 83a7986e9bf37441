# SPDX-License-Identifier: Apache-2.0
"""Messages of found objects as the viewer takes them: what the node publishes comes back the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from clip_seg_ros.msg import SegmentedObject
from clip_seg_ros.nodes.observers.seen_things import MOST_POINTS, cloud_of, same_thing, thing_of, things_of
from clip_seg_ros.nodes.outputs.topics import object_message, objects_message, points_message
from clip_seg_ros.pipeline.space.localization import with_position
from clip_seg_ros.pipeline.space.point_cloud import PointCloud
from clip_seg_ros.types import CameraFrame, ObjectRegion


@pytest.fixture(scope="module")
def cup(view) -> ObjectRegion:
    region = ObjectRegion.of_mask("red cup", 3, 0.75, view.mask_of("red", "cup"))
    frame = CameraFrame(view.rgb, 0, "optical", depth_m=view.depth_m, intrinsics=view.intrinsics)
    return with_position(region, frame)


def some_points(count: int) -> PointCloud:
    random = np.random.default_rng(0)
    return PointCloud(
        random.normal(size=(count, 3)).astype(np.float32),
        random.integers(0, 256, (count, 3), np.uint8),
        random.integers(1, 256, count, np.uint8),
    )


def test_an_object_comes_back(cup):
    thing = thing_of(object_message(cup))
    assert (thing.prompt, thing.id, thing.score, thing.area_px) == ("red cup", 3, 0.75, cup.area_px)
    assert thing.box_px == cup.box_px
    assert thing.centroid_px == cup.centroid_px
    assert thing.position_m == pytest.approx(cup.position_m)
    assert thing.box_m == cup.box_m


def test_what_has_no_depth_has_no_place(view):
    thing = thing_of(object_message(ObjectRegion.of_mask("cup", 1, 1.0, view.mask_of("red", "cup"))))
    assert (thing.position_m, thing.box_m) == (None, None)


def test_a_box_that_is_none_is_left_out():
    broken = SegmentedObject(has_box=True, has_position=True)
    broken.box_size.x = math.nan
    assert thing_of(broken).box_m is None
    assert thing_of(broken).position_m == (0.0, 0.0, 0.0)


def test_what_things_relate_to_comes_after_them(cup):
    message = objects_message(Header(), ("red cup",), [cup])
    anchor = object_message(cup)
    anchor.id = 0
    message.anchors = [anchor]
    assert [thing.id for thing in things_of(message)] == [3, 0]


def test_points_come_back():
    cloud = some_points(100)
    seen = cloud_of(points_message(Header(), cloud))
    for part in ("points_m", "rgb", "ids"):
        assert np.array_equal(getattr(seen, part), getattr(cloud, part)), part


def test_of_too_many_points_some_are_taken_evenly():
    cloud = some_points(2 * MOST_POINTS)
    seen = cloud_of(points_message(Header(), cloud))
    assert np.array_equal(seen.points_m, cloud.points_m[1::2])


def test_no_points_are_an_empty_cloud():
    assert cloud_of(points_message(Header(), some_points(0))).points_m.shape == (0, 3)


def test_another_cloud_is_refused():
    with pytest.raises(ValueError, match="a cloud of objects has the fields x, y, z, rgb, id, got "):
        cloud_of(PointCloud2())
    cut = points_message(Header(), some_points(10))
    cut.data = cut.data[:-1]
    with pytest.raises(ValueError, match="buffer"):
        cloud_of(cut)


def test_the_thing_under_a_mask_is_the_one_that_covers_it_best(cup):
    labels = np.where(cup.mask, 3, 0).astype(np.uint8)
    things = [thing_of(object_message(cup))]
    assert same_thing(cup.mask, labels, things, 0.9) is things[0]
    half = cup.mask.copy()
    half[:, round(cup.centroid_px[0]) :] = False
    assert same_thing(half, labels, things, 0.3) is things[0]
    assert same_thing(half, labels, things, 0.8) is None
    assert same_thing(~cup.mask, labels, things, 0.1) is None
    assert same_thing(cup.mask, None, things, 0.1) is None
    assert same_thing(cup.mask, labels[:10], things, 0.1) is None
