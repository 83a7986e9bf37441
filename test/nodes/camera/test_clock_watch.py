# SPDX-License-Identifier: Apache-2.0
"""A node that is told to use a simulation's time, with and without one."""

from __future__ import annotations

import pytest
from rclpy.clock import ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.time import Time
from sensor_msgs.msg import Image

from clip_seg_ros.nodes.camera.camera_input import SILENCE_S
from clip_seg_ros.nodes.camera.clock_watch import ClockWatch
from clip_seg_ros.nodes.common.faults import FaultLog
from ros_harness import Talker, messages_of, running_referring

WARNING = "clock: use_sim_time is set, and /clock has stood still for 5 s; it has 0 publishers"


@pytest.mark.parametrize("simulated", [True, False])
def test_a_clock_that_stands_still_is_told_where_it_is_a_simulation_s(ros, simulated):
    said: list[str] = []
    faults = FaultLog(said.append)
    node = Node("clock_watch_test")
    node.set_parameters([Parameter("use_sim_time", value=simulated)])
    watch = ClockWatch(node, faults)
    watch.look(100.0)
    watch.look(100.0 + SILENCE_S - 0.1)
    assert not said
    watch.look(100.0 + SILENCE_S)
    watch.look(100.0 + 2 * SILENCE_S)
    assert [line[: len(WARNING)] for line in said] == [WARNING] * simulated
    if simulated:
        node.get_clock().set_ros_time_override(Time(seconds=3, clock_type=ClockType.ROS_TIME))
        watch.look(100.0 + 3 * SILENCE_S)
        assert not faults.standing(), "it moves"
    node.destroy_node()


def test_a_node_without_its_clock_says_so_and_answers_all_the_same(ros, log, view):
    """Nothing in it waits for that clock."""
    parameters = ["use_sim_time:=true", "initial_command:='segment the red cup'", "image_topic:=/timeless/image"]
    with running_referring(log, "timeless", parameters) as (node, watcher):
        node.wait_said(WARNING)
        node.wait_said("camera: no image on /timeless/image for 5 s")
        with Talker({"color": (Image, "/timeless/image")}) as camera:
            watcher.of_stamp("mask", camera.send(color=messages_of(view)["color"]))
        assert watcher.set_parameter("referring", "smoothing", 0.5).successful
