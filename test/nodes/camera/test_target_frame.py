# SPDX-License-Identifier: Apache-2.0
"""Positions in another frame: the arithmetic, and what happens where tf2 is not installed."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator

import numpy as np
import pytest
from std_msgs.msg import Header

from clip_seg_ros.msg import CommandStatus
from clip_seg_ros.nodes.camera.target_frame import Motion, TargetFrame
from clip_seg_ros.nodes.common.faults import FaultLog
from clip_seg_ros.types import ObjectRegion, OrientedBox
from ros_harness import NodeProcess, Talker, Watcher, running_referring

needs_no_tf2 = pytest.mark.skipif(importlib.util.find_spec("tf2_ros") is not None, reason="tf2_ros is installed")

MOTIONS = [
    ((0.0, 0.0, 1.0), 0.0, (0.0, 0.0, 0.0)),
    ((0.0, 0.0, 1.0), 90.0, (1.0, 2.0, 3.0)),
    ((1.0, 0.0, 0.0), -120.0, (0.1, -0.4, 2.0)),
    ((1.0, 2.0, -3.0), 200.0, (-5.0, 0.0, 0.25)),
    ((-0.3, 0.1, 0.8), 359.0, (0.0, 7.0, -1.0)),
]
"""Axis, angle in degrees, translation in metres."""


def turned(axis: tuple[float, ...], degrees: float, point: np.ndarray) -> np.ndarray:
    """Rodrigues' formula, which knows no quaternions."""
    k, angle = np.array(axis) / np.linalg.norm(axis), math.radians(degrees)
    return point * math.cos(angle) + np.cross(k, point) * math.sin(angle) + k * np.dot(k, point) * (1 - math.cos(angle))


def quaternion(axis: tuple[float, ...], degrees: float) -> tuple[float, ...]:
    half = math.radians(degrees) / 2
    return (*(np.array(axis) / np.linalg.norm(axis) * math.sin(half)).tolist(), math.cos(half))


def region(position_m: tuple[float, ...] | None, box_m: OrientedBox | None = None) -> ObjectRegion:
    return ObjectRegion.of_mask("cup", 3, 0.5, np.ones((4, 5), np.bool_), position_m, box_m)


@pytest.mark.parametrize(("axis", "degrees", "shift"), MOTIONS)
def test_points_are_turned_and_then_shifted(axis, degrees, shift):
    points = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    moved = Motion("map", quaternion(axis, degrees), shift).points(points)
    assert moved.dtype == np.float32
    expected = [turned(axis, degrees, point) + shift for point in points.astype(np.float64)]
    np.testing.assert_allclose(moved, expected, atol=1e-5)
    assert Motion("map", quaternion(axis, degrees), shift).points(points[:0]).shape == (0, 3)


@pytest.mark.parametrize(("axis", "degrees", "shift"), MOTIONS)
def test_a_box_moves_with_its_corners(axis, degrees, shift):
    """A corner of the moved box is where the motion takes that corner of the box."""
    box = OrientedBox((0.2, -0.1, 0.9), (0.3, 0.2, 0.1), quaternion((1.0, -1.0, 0.5), 50.0))
    moved = Motion("map", quaternion(axis, degrees), shift).region(region((0.2, 0.0, 1.0), box))
    np.testing.assert_allclose(moved.position_m, turned(axis, degrees, np.array([0.2, 0.0, 1.0])) + shift, atol=1e-9)
    assert moved.box_m.size_m == box.size_m
    assert moved.box_m.orientation_xyzw[3] >= 0

    def corner(of: OrientedBox, signs: tuple[int, ...]) -> np.ndarray:
        *vector, w = of.orientation_xyzw
        length = np.linalg.norm(vector)
        around = tuple(np.array(vector) / length) if length > 0 else (0.0, 0.0, 1.0)
        arm = np.array(of.size_m) / 2 * signs
        return turned(around, math.degrees(2 * math.atan2(length, w)), arm) + of.center_m

    for signs in np.ndindex(2, 2, 2):
        signs = tuple(2 * sign - 1 for sign in signs)
        there = turned(axis, degrees, corner(box, signs)) + shift
        np.testing.assert_allclose(corner(moved.box_m, signs), there, atol=1e-6)


def test_what_has_no_position_stays_as_it_is():
    motion = Motion("map", quaternion((0, 0, 1), 90.0), (1.0, 0.0, 0.0))
    nowhere = region(None)
    assert motion.region(nowhere) is nowhere
    moved = motion.region(region((1.0, 0.0, 0.0)))
    assert moved.box_m is None
    assert moved.position_m == pytest.approx((1.0, 1.0, 0.0))
    assert (moved.id, moved.score, moved.box_px) == (3, 0.5, (0, 0, 5, 4)), "the pixels do not move"


@pytest.mark.parametrize(("axis", "degrees", "shift"), MOTIONS)
def test_up_is_what_becomes_the_frames_z(axis, degrees, shift):
    motion = Motion("map", quaternion(axis, degrees), shift)
    np.testing.assert_allclose(turned(axis, degrees, np.array(motion.up)), (0.0, 0.0, 1.0), atol=1e-9)
    assert Motion("wrist_optical_frame", quaternion(axis, degrees), shift).up is None


def test_a_person_stands_at_the_origin_of_their_frame():
    person = Motion("person", quaternion((0.0, 0.0, 1.0), 90.0), (1.0, 2.0, 3.0)).person
    # In their frame, a point p is at (1 - y, 2 + x, 3 + z).
    assert person.at_m == pytest.approx((-2.0, 1.0, -3.0))
    assert person.ahead == pytest.approx((0.0, -1.0, 0.0))
    assert person.left == pytest.approx((1.0, 0.0, 0.0))


def test_without_a_target_frame_nothing_is_looked_up():
    said: list[str] = []
    frame = TargetFrame(None, "", FaultLog(said.append))
    assert frame.of(Header(frame_id="camera")) is None
    assert not said
    frame.close()


@needs_no_tf2
def test_tf2_that_is_missing_is_told_once():
    said: list[str] = []
    frame = TargetFrame(None, "map", FaultLog(said.append))
    assert frame.of(Header(frame_id="camera")) is None
    assert frame.of(Header(frame_id="camera")) is None
    assert len(said) == 1
    assert "tf2_ros is not installed" in said[0]
    assert "not in map" in said[0]


@pytest.fixture
def mapping(ros: None, log) -> Iterator[tuple[NodeProcess, Watcher]]:
    parameters = ["target_frame:=map", "initial_command:='segment the red cup'"]
    with running_referring(log, "mapping", parameters) as both:
        yield both


@needs_no_tf2
def test_without_tf2_positions_stay_and_their_frame_says_so(mapping, view):
    node, watcher = mapping
    with Talker.camera() as camera:
        stamps = [camera.send_view(view), camera.send_view(view)]
        seen = [watcher.of_stamp("objects", stamps[-1]), watcher.of_stamp("centroids", stamps[-1])]
        cloud = watcher.of_stamp("points", stamps[-1])
    objects, centroids = seen
    assert objects.position_frame == objects.header.frame_id == "camera_color_optical_frame"
    assert centroids.header.frame_id == cloud.header.frame_id == "camera_color_optical_frame"
    assert any(item.has_position for item in objects.objects)
    assert node.said().count("tf2_ros is not installed") == 1


@pytest.fixture
def spoken_to(ros: None, log) -> Iterator[tuple[NodeProcess, Watcher]]:
    with running_referring(log, "spoken_to", ["speaker_frame:=person"]) as both:
        yield both


@needs_no_tf2
def test_without_tf2_nobody_knows_whose_left_is_meant(spoken_to, view):
    node, watcher = spoken_to
    accepted = watcher.say("find the cup on my left")
    with Talker.camera() as camera:
        stamp = camera.send_view(view)
        objects = watcher.of_stamp("objects", stamp)
    outcome = watcher.outcome(accepted.command_id)
    assert outcome.state == CommandStatus.NOT_FOUND
    assert "nothing tells where you are: the cup cannot be placed" in outcome.message
    assert not objects.objects
    assert 'nothing tells where "my left" is' in node.said()
