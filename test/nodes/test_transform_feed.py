"""tf2's buffer, fed on a thread of its own, where tf2 is installed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import rclpy
from geometry_msgs.msg import TransformStamped
from rclpy.clock import ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.time import Time
from ros_harness import Talker, running_referring, wait_until
from std_msgs.msg import Header

tf2_ros = pytest.importorskip("tf2_ros", reason="tf2_ros is not installed")
from tf2_msgs.msg import TFMessage  # noqa: E402

from clip_seg_ros.nodes.faults import FaultLog  # noqa: E402
from clip_seg_ros.nodes.qos import TRANSFORMS, TRANSFORMS_LATCHED  # noqa: E402
from clip_seg_ros.nodes.transform_feed import TransformFeed  # noqa: E402

LONG_NS = 100 * 10**9


def message(parent: str, child: str, x: float, stamp_ns: int) -> TFMessage:
    transform = TransformStamped(
        header=Header(frame_id=parent, stamp=Time(nanoseconds=stamp_ns).to_msg()), child_frame_id=child
    )
    transform.transform.translation.x = x
    transform.transform.rotation.w = 1.0
    return TFMessage(transforms=[transform])


class Stage:
    """A node with a feed, and who tells it of transforms; nobody spins."""

    def __init__(self) -> None:
        self.node = Node("transform_feed_test", namespace="/robot_7", cli_args=[
            "--ros-args", "-r", "/tf:=tf", "-r", "/tf_static:=tf_static",
        ])  # fmt: skip
        self.said: list[str] = []
        self.buffer = tf2_ros.Buffer()
        self.feed = TransformFeed(self.node, self.buffer, FaultLog(self.said.append))
        self.moving = self.node.create_publisher(TFMessage, "/robot_7/tf", TRANSFORMS)
        self.static = self.node.create_publisher(TFMessage, "/robot_7/tf_static", TRANSFORMS_LATCHED)
        publishers = (self.moving, self.static)
        wait_until(lambda: all(each.get_subscription_count() > 0 for each in publishers), "the remapped topics")

    def x(self, stamp_ns: int) -> float | None:
        """Where the camera is at a time; ``None`` where that is not known."""
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


def test_after_closing_nothing_is_heard(ros):
    node = Node("transform_feed_closed")
    buffer = tf2_ros.Buffer()
    TransformFeed(node, buffer, FaultLog(print)).close()
    assert not list(node.subscriptions) or all("/tf" not in each.topic_name for each in node.subscriptions)
    node.destroy_node()


def test_a_node_answers_in_the_target_frame(ros, log, view):
    parameters = ["target_frame:=map", "initial_command:='segment the red cup'"]
    with running_referring(log, "moving", parameters) as (node, watcher):
        topics = {"tf": (TFMessage, "/tf")}
        with Talker(topics, TRANSFORMS) as moving, Talker.camera() as camera:

            def answered() -> list:
                # Of a camera that stands still; its transforms come a little before and after its images.
                now_ns = rclpy.clock.Clock(clock_type=ClockType.SYSTEM_TIME).now().nanoseconds
                for shift_ns in (-10**9, 10**9):
                    transforms = message("map", "camera_color_optical_frame", 5.0, now_ns + shift_ns)
                    moving.publishers["tf"].publish(transforms)
                stamp = camera.send_view(view)
                return [each for each in [watcher.of_stamp("objects", stamp)] if each.position_frame == "map"]

            (objects,) = wait_until(answered, "positions in the map")
        near = view.mask_of("red", "cup")
        truth = view.depth_m[near].min()
        (cup,) = objects.objects
        assert cup.has_position and cup.position.z == pytest.approx(truth, abs=0.1) and cup.position.x > 4.0
