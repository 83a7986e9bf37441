# SPDX-License-Identifier: Apache-2.0
"""tf2's buffer, fed on a thread of its own, where tf2 is installed."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
import rclpy
from geometry_msgs.msg import TransformStamped
from rclpy.clock import ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from rclpy.time import Time
from std_msgs.msg import Header

from ros_harness import Talker, running_referring, wait_until

tf2_ros = pytest.importorskip("tf2_ros", reason="tf2_ros is not installed")
from tf2_msgs.msg import TFMessage  # noqa: E402

from clip_seg_ros.nodes.camera.transform_feed import TransformFeed  # noqa: E402
from clip_seg_ros.nodes.common.faults import FaultLog  # noqa: E402
from clip_seg_ros.nodes.common.qos import TRANSFORMS, TRANSFORMS_LATCHED  # noqa: E402

LONG_NS = 100 * 10**9


def message(parent: str, child: str, x: float, stamp_ns: int) -> TFMessage:
    transform = TransformStamped(
        header=Header(frame_id=parent, stamp=Time(nanoseconds=stamp_ns).to_msg()), child_frame_id=child
    )
    transform.transform.translation.x = x
    transform.transform.rotation.w = 1.0
    return TFMessage(transforms=[transform])


def joined(*messages: TFMessage) -> TFMessage:
    return TFMessage(transforms=[transform for each in messages for transform in each.transforms])


class CountingBuffer(tf2_ros.Buffer):
    """tf2's buffer, which notes the frames of what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[str] = []

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        self.given.append(transform.child_frame_id)
        super().set_transform(transform, authority)


class Stage:
    """A node with a feed, and who tells it of transforms; nobody spins."""

    def __init__(self) -> None:
        self.node = Node(
            "transform_feed_test",
            namespace="/robot_7",
            cli_args=[
                "--ros-args",
                "-r",
                "/tf:=tf",
                "-r",
                "/tf_static:=tf_static",
            ],
        )
        self.said: list[str] = []
        self.buffer = CountingBuffer()
        self.feed = TransformFeed(self.node, self.buffer, FaultLog(self.said.append))
        self.moving = self.node.create_publisher(TFMessage, "/robot_7/tf", TRANSFORMS)
        self.static = self.node.create_publisher(TFMessage, "/robot_7/tf_static", TRANSFORMS_LATCHED)
        publishers = (self.moving, self.static)
        wait_until(lambda: all(each.get_subscription_count() > 0 for each in publishers), "the remapped topics")

    def x(self, stamp_ns: int) -> float | None:
        """Where the camera is at a time; ``None`` where that is not known."""
        self.feed.want("map", "camera")
        try:
            return self.buffer.lookup_transform("map", "camera", Time(nanoseconds=stamp_ns)).transform.translation.x
        except tf2_ros.TransformException:
            return None


@pytest.fixture
def stage(ros) -> Iterator[Stage]:
    stage = Stage()
    stage.static.publish(message("map", "base", 10.0, 0))
    yield stage
    stage.feed.close()
    stage.node.destroy_node()
    assert not stage.said


def test_moving_and_static_transforms_are_heard_on_remapped_topics_while_nobody_spins(stage):
    for step in range(500):
        stage.moving.publish(message("base", "camera", float(step), LONG_NS + step * 10**6))
    wait_until(lambda: stage.x(LONG_NS + 499 * 10**6) == 509.0, "the last transform")


def test_a_bag_that_begins_anew_is_followed(stage):
    """Without a simulation's clock; tf2 by itself would refuse what is ten seconds older than the newest."""
    stage.moving.publish(message("base", "camera", 1.0, LONG_NS))
    wait_until(lambda: stage.x(LONG_NS) == 11.0, "the end of the bag")
    start_ns = LONG_NS - 60 * 10**9
    stage.moving.publish(message("base", "camera", 2.0, start_ns))
    wait_until(lambda: stage.x(start_ns) == 12.0, "its beginning")
    assert stage.x(LONG_NS) is None


def test_a_simulation_s_clock_that_jumps_back_is_followed(stage):
    stage.node.set_parameters([Parameter("use_sim_time", value=True)])
    clock = stage.node.get_clock()
    clock.set_ros_time_override(Time(nanoseconds=LONG_NS, clock_type=ClockType.ROS_TIME))
    stage.moving.publish(message("base", "camera", 1.0, LONG_NS))
    wait_until(lambda: stage.x(LONG_NS) == 11.0, "the end of the bag")
    clock.set_ros_time_override(Time(nanoseconds=LONG_NS - 5 * 10**9, clock_type=ClockType.ROS_TIME))
    wait_until(lambda: stage.x(LONG_NS) is None, "the jump")
    stage.moving.publish(message("base", "camera", 2.0, LONG_NS - 5 * 10**9))
    wait_until(lambda: stage.x(LONG_NS - 5 * 10**9) == 12.0, "its beginning, and the static transform")


def test_of_a_robot_with_many_joints_the_buffer_gets_the_camera_s_way_alone(stage):
    """As a robot's state comes: all joints in one message, here with the camera's link among them."""
    stage.feed.want("map", "camera")
    for step in range(50):
        stamp_ns = LONG_NS + step * 20 * 10**6
        joints = [message("base", f"joint{index}", 1.0, stamp_ns) for index in range(40)]
        stage.moving.publish(joined(*joints[:20], message("base", "camera", step * 0.1, stamp_ns), *joints[20:]))
    wait_until(lambda: stage.x(LONG_NS + 49 * 20 * 10**6) is not None, "the last transform")
    for step in range(490):
        assert stage.x(LONG_NS + step * 2 * 10**6) == pytest.approx(10.0 + step * 0.01, abs=1e-9)
    assert stage.buffer.given.count("camera") == 50
    # The first time, so that tf2 can say how the frames stand.
    assert stage.buffer.given.count("joint7") == 1
    assert "joint39" in stage.buffer.all_frames_as_yaml()


@pytest.mark.parametrize("together", [False, True])
def test_a_frame_that_is_wanted_later_has_its_past(stage, together):
    for step in range(100):
        stamp_ns = LONG_NS + step * 20 * 10**6
        each = [message("odom", "camera", float(step), stamp_ns), message("base", "odom", 1000.0 * step, stamp_ns)]
        for one in [joined(*each)] if together else each:
            stage.moving.publish(one)
        if step % 25 == 24:
            # As slowly as they are taken, for the subscription keeps 100.
            stage.moving.publish(message("base", f"end{step}", 0.0, LONG_NS))
            wait_until(lambda end=f"end{step}": end in stage.buffer.given, "all of them so far")
    assert stage.buffer.given.count("camera") == 1
    for step in range(99):
        assert stage.x(LONG_NS + step * 20 * 10**6 + 5 * 10**6) == pytest.approx(10.0 + 1001 * (step + 0.25), abs=1e-6)
    assert stage.buffer.given.count("camera") == stage.buffer.given.count("odom") == 100, "each of them once"


def test_a_tree_that_changes_is_followed_with_its_past(stage):
    """The camera is on the base, then on an arm, whose way to the base came all the time, then on the base again."""
    for step in range(60):
        stamp_ns = LONG_NS + step * 10**7
        parent = "arm" if 20 <= step < 40 else "base"
        arm = message("base", "arm", 100.0 + step, stamp_ns)
        stage.moving.publish(joined(arm, message(parent, "camera", float(step), stamp_ns)))
        wait_until(lambda at_ns=stamp_ns: stage.x(at_ns) is not None, f"step {step}")
    for step in range(60):
        on_arm = 20 <= step < 40
        expected = 10.0 + step + (100.0 + step if on_arm else 0.0)
        assert stage.x(LONG_NS + step * 10**7) == pytest.approx(expected), step
    assert stage.buffer.given.count("camera") == 60


def test_links_that_get_other_names_are_followed(stage):
    for name, start in (("neck", 0), ("neck_renamed", 10), ("n", 20)):
        for step in range(start, start + 10):
            stamp_ns = LONG_NS + step * 10**7
            stage.moving.publish(message("base", name, 100.0, stamp_ns))
            stage.moving.publish(message(name, "camera", float(step), stamp_ns))
        wait_until(lambda: stage.x(stamp_ns) == pytest.approx(110.0 + step), name)
    assert stage.x(LONG_NS + 5 * 10**7) == pytest.approx(115.0), "before the first change"


def test_frames_that_do_not_meet_are_told_of(stage):
    """As tf2 says it: that there is no connection, and not that it does not know the frame."""
    stage.moving.publish(message("rail", "camera", 1.0, LONG_NS))
    wait_until(lambda: "camera" in stage.buffer.given, "the camera")
    stage.feed.want("map", "camera")
    with pytest.raises(tf2_ros.ConnectivityException, match="not part of the same tree"):
        stage.buffer.lookup_transform("map", "camera", Time(nanoseconds=LONG_NS))


def test_the_past_is_kept_within_limits(stage, monkeypatch):
    monkeypatch.setattr("clip_seg_ros.nodes.camera.transform_feed._HISTORY_BYTES", 2000)
    for step in range(100):
        stage.moving.publish(message("base", "camera", float(step), LONG_NS + step * 10**6))
    stage.moving.publish(message("base", "end", 0.0, LONG_NS))
    wait_until(lambda: "end" in stage.buffer.given, "all of it")
    assert stage.x(LONG_NS + 99 * 10**6) == 109.0
    assert 2 < stage.buffer.given.count("camera") < 25


def test_frames_without_end_are_ignored_with_one_word_and_those_that_are_wanted_are_not(ros, monkeypatch):
    monkeypatch.setattr("clip_seg_ros.nodes.camera.transform_feed._MOST_LINKS", 40)
    stage = Stage()
    stage.static.publish(message("map", "base", 10.0, 0))
    wait_until(lambda: "base" in stage.buffer.all_frames_as_yaml(), "the static transform")
    for index in range(300):
        child, parent = (f"junk{index}", "base") if index % 3 else ("changeling", f"junk{index}")
        joints = [message(parent, child, 1.0, LONG_NS), message("base", "x" * 300, 1.0, LONG_NS)]
        (stage.static if index % 7 == 0 else stage.moving).publish(joined(*joints))
        if index % 50 == 49:  # as slowly as they are taken
            last = f"base{index}"
            stage.moving.publish(message(last, "first", 1.0, LONG_NS))
            wait_until(lambda: stage.said or last in stage.buffer.all_frames_as_yaml(), "all of them so far")
    # A frame that is wanted is heard all the same, with what links it to the others.
    stage.feed.want("map", "camera")

    def x() -> float | None:
        stage.moving.publish(joined(message("arm", "camera", 1.0, LONG_NS), message("base", "arm", 2.0, LONG_NS)))
        return stage.x(LONG_NS)

    wait_until(lambda: x() == 13.0, "the camera's way")
    frames = [line for line in stage.buffer.all_frames_as_yaml().splitlines() if not line.startswith(" ")]
    assert 20 < len(frames) < 60
    assert len(stage.feed._newest_ns) < 60
    assert stage.said == [
        "transforms: more than 40 frames, or names of more than 256 characters: what else comes is ignored"
    ]
    stage.feed.close()
    stage.node.destroy_node()


def test_what_is_not_little_endian_or_broken_does_no_harm(ros):
    stage = Stage()
    stage.static.publish(message("map", "base", 10.0, 0))
    good = bytes(serialize_message(message("base", "camera", 1.0, LONG_NS)))
    stage.moving.publish(good[:50])
    big = (
        good[:1]
        + b"\0"
        + good[2:4]
        + b"".join(
            [
                struct.pack(">IiII", 1, LONG_NS // 10**9, 0, 5),
                b"base\0\0\0\0",
                struct.pack(">I", 7),
                b"camera\0",
                bytes(-(16 + 8 + 4 + 7) % 8),
                struct.pack(">7d", 2.0, 0, 0, 0, 0, 0, 1.0),
            ]
        )
    )
    stage.moving.publish(big)
    wait_until(lambda: stage.x(LONG_NS) == 12.0, "a big-endian sender")
    wait_until(lambda: any("a transform cannot be taken" in each for each in stage.said), "a word of what is broken")
    stage.feed.close()
    stage.node.destroy_node()


def test_after_closing_nothing_is_heard(ros):
    node = Node("transform_feed_closed")
    buffer = tf2_ros.Buffer()
    TransformFeed(node, buffer, FaultLog(print)).close()
    assert not list(node.subscriptions) or all("/tf" not in each.topic_name for each in node.subscriptions)
    node.destroy_node()


def test_a_node_answers_in_the_target_frame(ros, log, view):
    parameters = ["target_frame:=map", "initial_command:='segment the red cup'"]
    with running_referring(log, "moving", parameters) as (_, watcher):
        topics = {"tf": (TFMessage, "/tf")}
        with Talker(topics, TRANSFORMS) as moving, Talker.camera() as camera:

            def answered() -> list:
                # Of a camera that stands still; its transforms come a little before and after its images.
                now_ns = rclpy.clock.Clock(clock_type=ClockType.SYSTEM_TIME).now().nanoseconds
                for shift_ns in (-(10**9), 10**9):
                    transforms = message("map", "camera_color_optical_frame", 5.0, now_ns + shift_ns)
                    moving.publishers["tf"].publish(transforms)
                stamp = camera.send_view(view)
                return [each for each in [watcher.of_stamp("objects", stamp)] if each.position_frame == "map"]

            (objects,) = wait_until(answered, "positions in the map")
        near = view.mask_of("red", "cup")
        truth = view.depth_m[near].min()
        (cup,) = objects.objects
        assert cup.has_position
        assert cup.position.z == pytest.approx(truth, abs=0.1)
        assert cup.position.x > 4.0
