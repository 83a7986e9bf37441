# SPDX-License-Identifier: Apache-2.0
"""What a node says of publishers that it cannot hear."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from clip_seg_ros.nodes.camera.input_watch import InputWatch, type_name
from clip_seg_ros.nodes.common.faults import FaultLog
from clip_seg_ros.nodes.common.qos import RELIABLE
from ros_harness import NodeProcess, Talker, wait_until

BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
LOOKS_S = 3.0
"""Long enough for the node to look again, and to repeat itself if it did."""


@pytest.fixture(scope="module")
def watched(ros: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    parameters = [
        "image_topic:=/watched/image",
        "depth_topic:=/watched/depth",
        "camera_info_topic:=/watched/info",
        "initial_command:='segment the red cup'",
    ]
    node = NodeProcess("referring", tmp_path_factory.mktemp("watched") / "log", parameters, namespace="watched")
    try:
        node.wait_said("commands:")
        yield node
        assert node.end() == 0
        assert "Traceback" not in node.said()
    finally:
        node.end()


def test_nobody_publishes_images(watched):
    watched.wait_said("camera: no image on /watched/image for 5 s; it has 0 publishers")
    time.sleep(LOOKS_S)
    assert watched.said().count("it has 0 publishers") == 1


@pytest.mark.parametrize(
    ("topic", "source", "sent", "expected"),
    [("image", "image topic", CompressedImage, "Image"), ("info", "camera_info topic", Image, "CameraInfo")],
)
def test_another_type_is_told_once_with_who_publishes_it(watched, topic, source, sent, expected):
    warning = (
        f"{source}: /wrong_camera publishes sensor_msgs/msg/{sent.__name__} on /watched/{topic}, "
        f"and sensor_msgs/msg/{expected} is expected there"
    )
    for times in (1, 2):  # what went away and came back is told again
        with Talker({"it": (sent, f"/watched/{topic}")}, node_name="wrong_camera", heard=False):
            wait_until(lambda: watched.said().count(warning) == times, warning)
            time.sleep(LOOKS_S)
        assert watched.said().count(warning) == times
        time.sleep(LOOKS_S)
    assert "UNKNOWN" not in watched.said()


def test_commands_that_cannot_be_heard_are_told_with_the_policy(watched):
    with Talker({"it": (String, "/watched/command")}, BEST_EFFORT, "shy_person", heard=False):
        said = watched.wait_said("the quality of service of /shy_person on /watched/command does not fit:")
        line = next(line for line in said.splitlines() if "/shy_person" in line)
        assert "command topic: " in line
        assert "eliab" in line
        time.sleep(LOOKS_S)
    assert watched.said().count("/shy_person") == 1


def test_a_publisher_that_fits_is_no_fault(watched):
    before = watched.said()
    topics = {"image": (Image, "/watched/image"), "command": (String, "/watched/command")}
    with Talker(topics, node_name="good_citizen"):
        time.sleep(LOOKS_S)
    assert "good_citizen" not in watched.said()[len(before) :]


def test_types_are_named_as_ros_names_them():
    assert type_name(Image) == "sensor_msgs/msg/Image"
    assert type_name(String) == "std_msgs/msg/String"


def test_who_comes_and_goes_is_forgotten(ros):
    node = Node("forgetful")
    told = []
    commands = node.create_subscription(String, "/forgetful/command", lambda _: None, RELIABLE)
    watch = InputWatch(node, FaultLog(told.append), (), commands, lambda: False)

    def looked(count: int) -> bool:
        watch._look()  # as its timer would, once a second
        watch._look()
        return len(watch._seen) == len(watch._present) == count

    try:
        for number in range(3):
            with Talker({"it": (String, "/forgetful/command")}, BEST_EFFORT, f"guest_{number}", heard=False):
                wait_until(lambda: looked(1), "the guest to be seen")
                wait_until(lambda n=number: looked(1) and f"/guest_{n}" in "".join(told), "the guest to be told of")
            wait_until(lambda: looked(0), "the guest to be forgotten")
    finally:
        watch.close()
        node.destroy_node()
