# SPDX-License-Identifier: Apache-2.0
"""The memory of the ``referring`` node on a robot that moves, and in a file that outlives the node."""

from __future__ import annotations

import json
import math

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TransformStamped
from rclpy.time import Time

from clip_seg_ros.msg import RememberedObject, SegmentedObject
from clip_seg_ros.nodes.common.qos import RELIABLE
from clip_seg_ros.pipeline.space.fixed_frame import moved_points
from clip_seg_ros.sim.renderer import RenderedView
from clip_seg_ros.srv import Recall
from clip_seg_ros.types import quaternion
from remembering_robot import DAY_S, FIXED, NEAR_M, Robot, Views, off_m, rendered_views, running_robot, true_position
from ros_harness import Talker, running_referring, wait_until

SECOND = 1_000_000_000
CUPS = ("red cup", "blue cup")
SIDES = ("left", "right")


@pytest.fixture(scope="module")
def views() -> Views:
    return rendered_views()


def test_a_second_process_remembers_what_the_first_one_saw(ros, tmp_path, views):
    path = tmp_path / "memory.json"
    parameters = [f"target_frame:={FIXED}", f"memory_file:={path}", "initial_command:='find the red cup'"]
    with running_robot(tmp_path / "first", "first", *parameters) as robot:
        robot.show(views.there, lambda: robot.remembers("red cup"), "the cup to be remembered")
        robot.look_away(views.away)
        (before,) = robot.recall("red cup").objects
    with running_robot(tmp_path / "second", "second", *parameters[:2]) as robot:
        (after,) = robot.recall("red cup").objects
        assert after == before
        assert robot.find("red cup", DAY_S).remembered
        (latched,) = wait_until(lambda: robot.memory[:1], "the latched memory")
        assert [item.phrase for item in latched.objects] == ["red cup"]
        assert "at (" in robot.recall("red cup").message, "no camera is known yet"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is damaged or no memory of objects"),
        ('{"format": "clip_seg_ros object memory", "version": 1, "frame_id": "odom"}', "positions in the frame 'odom'"),
    ],
)
def test_a_file_of_no_use_is_a_fault_and_is_kept(ros, tmp_path, views, content, words):
    path = tmp_path / "memory.json"
    path.write_text(content)
    parameters = [f"target_frame:={FIXED}", f"memory_file:={path}", "initial_command:='find the red cup'"]
    with running_robot(tmp_path / "log", "damaged", *parameters) as robot:
        heard = robot.watcher.hear(DiagnosticArray, "/diagnostics", RELIABLE)
        assert words in robot.node.said()
        assert "Before it is saved, this file becomes memory.json.kept-1" in robot.node.said()
        wait_until(
            lambda: any(words in status.message for message in heard for status in message.status), "the diagnostics"
        )
        assert path.read_text() == content
        robot.show(views.there, lambda: robot.remembers("red cup"), "the cup to be remembered")
    assert path.with_name("memory.json.kept-1").read_text() == content
    assert [item["phrase"] for item in json.loads(path.read_text())["objects"]] == ["red cup"]


def test_a_file_that_cannot_be_written_is_a_fault(ros, tmp_path, views):
    path = tmp_path / "missing" / "memory.json"
    parameters = [f"target_frame:={FIXED}", f"memory_file:={path}", "initial_command:='find the red cup'"]
    with running_robot(tmp_path / "log", "folderless", *parameters) as robot:
        assert f"the folder {path.parent} does not exist, so that nothing can be kept: create it" in robot.node.said()
        robot.show(views.there, lambda: robot.remembers("red cup"), "the cup to be remembered")
    assert f"what is remembered cannot be written to {path}" in (tmp_path / "log").read_text()


def test_cameras_share_one_memory(ros, tmp_path, views):
    """What one camera saw, another may see again: it is remembered once, with the camera that saw it last."""
    topics = {kind: [f"/{side}/{kind}" for side in SIDES] for kind in ("color/image_raw", "depth/image_raw")}
    parameters = [
        f"image_topics:={topics['color/image_raw']}",
        f"depth_topics:={topics['depth/image_raw']}",
        f"camera_info_topics:={[f'/{side}/color/camera_info' for side in SIDES]}",
        f"target_frame:={FIXED}",
        "initial_command:='find the red cup, the blue cup'",
    ]
    with (
        running_referring(tmp_path / "log", "pair", parameters, SIDES) as (_, watcher),
        Talker.camera("/left") as left,
        Talker.camera("/right") as right,
    ):

        def shown_by(camera: Talker, name: str) -> dict[str, int]:
            """Returns the ids of the cups once a camera has seen both."""

            def seen() -> list[RememberedObject]:
                camera.send_view(views.there, FIXED)
                items = watcher.call(Recall, "recall", Recall.Request(phrase="cup")).objects
                return items if [item.camera for item in items] == [name, name] else []

            return {item.phrase: item.id for item in wait_until(seen, f"the cups, seen by {name}")}

        ids = shown_by(left, "left")
        assert set(ids) == set(CUPS)
        assert shown_by(right, "right") == ids


def place_of(item: SegmentedObject) -> tuple[float, float, float]:
    return item.position.x, item.position.y, item.position.z


def transform_of(view: RenderedView, stamp: int) -> TransformStamped:
    """Where the camera of a view was at a stamp, in nanoseconds."""
    transform = TransformStamped(child_frame_id="eye")
    transform.header.frame_id, transform.header.stamp = FIXED, Time(nanoseconds=stamp).to_msg()
    matrix, part = view.camera_to_world, transform.transform
    part.translation.x, part.translation.y, part.translation.z = map(float, matrix[:3, 3])
    part.rotation.x, part.rotation.y, part.rotation.z, part.rotation.w = map(float, quaternion(matrix[:3, :3]))
    return transform


def true_positions(view: RenderedView) -> dict[str, list[float]]:
    """Where the cups are in the world, as a view shows them."""
    return {name: moved_points(view.camera_to_world, true_position(view, *name.split())) for name in CUPS}


def check_places(robot: Robot, view: RenderedView) -> dict[str, int]:
    """Checks where the cups are remembered; returns their ids."""
    items = robot.recall("cup").objects
    for item in items:
        assert off_m(item, true_positions(view)[item.phrase]) < NEAR_M
    return {item.phrase: item.id for item in items}


def test_a_camera_that_moves_remembers_in_the_fixed_frame(ros, tmp_path, views):
    """The camera goes round the table, by tf2: each thing is remembered once, and where it is in the world."""
    pytest.importorskip("tf2_ros", reason="tf2_ros is not installed")
    from tf2_msgs.msg import TFMessage

    from clip_seg_ros.nodes.common.qos import TRANSFORMS

    parameters = [f"target_frame:={FIXED}", "initial_command:='find the red cup, the blue cup'"]
    with (
        running_robot(tmp_path / "log", "mover", *parameters) as robot,
        Talker({"tf": (TFMessage, "/tf")}, TRANSFORMS) as transforms,
    ):
        stamp = robot.camera._node.get_clock().now().nanoseconds

        def send(view: RenderedView) -> int:
            """Shows a view from where its camera is."""
            nonlocal stamp
            stamp += 10 * SECOND
            for shift in (-SECOND, SECOND):
                transforms.publishers["tf"].publish(TFMessage(transforms=[transform_of(view, stamp + shift)]))
            return robot.camera.send_view(view, "eye", stamp)

        def look(view: RenderedView) -> str:
            """Returns the frame of the positions."""
            return robot.look(view, send).position_frame

        wait_until(lambda: look(views.there) == FIXED and robot.remembers("red cup"), "a transform")
        ids = check_places(robot, views.there)
        assert set(ids) == set(CUPS)
        for _ in range(2):
            wait_until(lambda: look(views.away) == FIXED, "a transform")
        found = robot.find("red cup", DAY_S)
        assert found.remembered
        away_m = math.dist(views.away.camera_to_world[:3, 3], place_of(found.object))
        assert f"red cup: {away_m:.1f} m away" in found.message or f"{100 * away_m:.0f} cm away" in found.message

        def seen_from_there() -> bool:
            look(views.round_the_table)
            recalled = robot.recall("cup").objects
            return min(Time.from_msg(item.last_seen).nanoseconds for item in recalled) > turned

        turned = stamp
        wait_until(seen_from_there, "both cups from the other side")
        assert check_places(robot, views.round_the_table) == ids, "each is remembered once"
