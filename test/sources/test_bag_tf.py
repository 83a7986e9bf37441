# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest

from clip_seg_ros.data.samples import DataError
from clip_seg_ros.sources.bag_tf import BagTransforms, TfError, TransformTree
from written_sources import FRAME, START_NS, Joint, write_bag, write_pictures

NO_TURN = (0.0, 0.0, 0.0, 1.0)
S = 10**9


def turned(degrees: float) -> tuple[float, float, float, float]:
    """A turn about z."""
    half = math.radians(degrees) / 2
    return (0.0, 0.0, math.sin(half), math.cos(half))


def point(matrix: np.ndarray, *at_m: float) -> list[float]:
    return [round(float(each), 6) for each in (matrix @ (*at_m, 1.0))[:3]]


@pytest.fixture
def robot() -> TransformTree:
    """map <- base, which drives and turns; on it a camera and an arm, which never move."""
    tree = TransformTree()
    tree.add("map", "base", 0, (0, 0, 0), turned(0), False)
    tree.add("map", "base", S, (2, 0, 0), turned(90), False)
    tree.add("base", "camera", 0, (0, 0, 1), NO_TURN, True)
    tree.add("base", "arm", 0, (1, 0, 0), turned(90), True)
    return tree


def test_between_two_times_a_frame_is_on_the_line_and_on_the_shortest_turn(robot):
    half = robot.transform("map", "base", S // 2)
    root = math.sqrt(0.5)
    assert point(half, 0, 0, 0) == [1, 0, 0]
    assert point(half, 1, 0, 0) == pytest.approx([1 + root, root, 0], abs=1e-5)


def test_a_turn_beyond_half_a_circle_goes_the_other_way():
    tree = TransformTree()
    tree.add("map", "base", 0, (0, 0, 0), turned(10), False)
    tree.add("map", "base", 2, (0, 0, 0), turned(350), False)
    assert point(tree.transform("map", "base", 1), 1, 0, 0) == [1, 0, 0]


def test_a_way_leads_up_and_down_the_tree(robot):
    # The camera is 1 m above the base; the arm 1 m before it, and looks to the left.
    assert point(robot.transform("arm", "camera", 0), 0, 0, 0) == [0, 1, 1]
    assert point(robot.transform("map", "camera", S), 0, 0, 0) == [2, 0, 1]
    assert point(robot.transform("camera", "map", S), 2, 0, 1) == [0, 0, 0]


def test_frames_that_do_not_move_need_no_time(robot):
    assert point(robot.transform("base", "camera", 10**18), 0, 0, 0) == [0, 0, 1]


@pytest.mark.parametrize(
    ("target", "source", "stamp_ns", "why"),
    [
        ("world", "camera", 0, "no frame world in the transforms; they hold arm, base, camera, map"),
        ("map", "", 0, "no frame without a name"),
        ("map", "camera", 3 * S, "2.000 s after the last transform from base to map"),
        ("map", "camera", -S // 2, "0.500 s before the first transform from base to map"),
        ("island", "camera", 0, "do not connect camera, which hangs on map, with island, on sea"),
    ],
)
def test_what_is_not_known_is_said(robot, target, source, stamp_ns, why):
    robot.add("sea", "island", 0, (0, 0, 0), NO_TURN, True)
    if target == "world":
        robot = TransformTree()
        robot.add("map", "base", 0, (0, 0, 0), NO_TURN, True)
        robot.add("base", "camera", 0, (0, 0, 0), NO_TURN, True)
        robot.add("base", "arm", 0, (0, 0, 0), NO_TURN, True)
    with pytest.raises(TfError, match=why):
        robot.transform(target, source, stamp_ns)


def test_a_circle_is_refused():
    tree = TransformTree()
    tree.add("a", "b", 0, (0, 0, 0), NO_TURN, True)
    tree.add("b", "a", 0, (0, 0, 0), NO_TURN, True)
    with pytest.raises(TfError, match="in a circle: a in b in a"):
        tree.transform("b", "a", 0)


@pytest.mark.parametrize(
    ("position", "turn", "parent"),
    [((math.nan, 0, 0), NO_TURN, "map"), ((0, 0, 0), (0, 0, 0, 0), "map"), ((0, 0, 0), NO_TURN, "")],
)
def test_what_is_no_transform_is_ignored(position, turn, parent):
    tree = TransformTree()
    tree.add(parent, "base", 0, position, turn, True)
    assert tree.frames == []


def test_names_with_the_slash_of_ros_1_are_the_same(robot):
    assert np.array_equal(robot.transform("/map", "/camera", 0), robot.transform("map", "camera", 0))


def test_a_message_that_was_overtaken_takes_its_place():
    tree = TransformTree()
    for second in (0, 4, 2):
        tree.add("map", "base", second * S, (second**2, 0, 0), NO_TURN, False)
    assert point(tree.transform("map", "base", 3 * S), 0, 0, 0) == [10, 0, 0]


def test_only_the_newest_seconds_of_moving_frames_are_kept():
    tree = TransformTree()
    for second in range(100):
        tree.add("map", "base", second * S, (second, 0, 0), NO_TURN, False)
    assert point(tree.transform("map", "base", 80 * S), 0, 0, 0) == [80, 0, 0]
    with pytest.raises(TfError, match="before the first"):
        tree.transform("map", "base", 60 * S)


@pytest.mark.parametrize("version", [1, 2])
def test_a_bag_is_read_along(views, tmp_path, version):
    moves = [Joint("map", "base", (step, 0, 0), at_s=step) for step in range(10)]
    joints = [*moves, Joint("base", FRAME, (0, 0, 1))]  # the static one comes last
    bag = write_bag(tmp_path / "a.bag", views[:1], version, joints=joints)
    with BagTransforms(bag) as transforms:
        assert point(transforms.transform("map", FRAME, START_NS + S // 2), 0, 0, 0) == [0.5, 0, 1]
        assert point(transforms.transform("map", FRAME, START_NS + 8 * S), 0, 0, 0) == [8, 0, 1]
        with pytest.raises(TfError, match=r"11\.000 s after the last"):
            transforms.transform("map", FRAME, START_NS + 20 * S)


def test_a_bag_without_transforms_says_so(tmp_path):
    with pytest.raises(DataError, match="holds no transforms"):
        BagTransforms(write_pictures(tmp_path / "bag", []))
