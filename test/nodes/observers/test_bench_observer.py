# SPDX-License-Identifier: Apache-2.0
"""The stopwatch of ``clip-seg bench ros`` as a process, in front of a robot that is played to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header, String

from clip_seg_ros.msg import CommandStatus
from clip_seg_ros.nodes.camera.conversions import fill_image
from clip_seg_ros.nodes.common.qos import RELIABLE, camera_output
from domains import reserve_domain
from ros_harness import PATIENCE_S

# It talks to fixed topics, which other tests' nodes use in this run's domain.
DOMAIN = reserve_domain()
MASK_AGE_NS = 40_000_000
"""The robot's masks are of images so long ago."""


class Robot(Node):
    """Camera and node in one: an answer to a command, then a lens and a mask fifty times a second."""

    def __init__(self, context: rclpy.Context) -> None:
        super().__init__("robot", namespace="clip_seg", context=context)
        self.state, self.shows_masks = CommandStatus.ACCEPTED, True
        self.commanded = False
        self.stamps_ns: list[int] = []
        self._mask = self.create_publisher(Image, "mask", RELIABLE)
        self._lens = self.create_publisher(CameraInfo, "/camera/color/camera_info", camera_output("reliable"))
        self._status = self.create_publisher(CommandStatus, "status", RELIABLE)
        self.create_subscription(Image, "/camera/color/image_raw", lambda image: None, 1)
        self.create_subscription(String, "command", self._on_command, RELIABLE)
        self.create_timer(0.02, self._tick)

    def _on_command(self, message: String) -> None:
        self.commanded = True
        self._status.publish(CommandStatus(state=self.state, message=f"heard {message.data}"))

    def _tick(self) -> None:
        stamp_ns = self.get_clock().now().nanoseconds - MASK_AGE_NS
        header = Header(stamp=rclpy.time.Time(nanoseconds=stamp_ns).to_msg())
        self._lens.publish(CameraInfo(header=header))
        if self.commanded and self.shows_masks:
            self.stamps_ns.append(stamp_ns)
            self._mask.publish(fill_image(Image(header=header), np.zeros((48, 64), np.uint8), "mono8"))


@pytest.fixture
def robot(ros):
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    robot = Robot(context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(robot)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    yield robot
    executor.shutdown()
    thread.join()
    robot.destroy_node()
    context.shutdown()


def observe(*arguments: str) -> dict:
    """Runs the observer and returns what it wrote; it must end quietly."""
    process = subprocess.Popen(
        [sys.executable, "-m", "clip_seg_ros.nodes.observers.bench_observer", "--command", "find the cup", *arguments],
        env=os.environ | {"ROS_DOMAIN_ID": str(DOMAIN)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watchdog = threading.Timer(PATIENCE_S, process.kill)
    watchdog.start()
    line = process.stdout.readline()
    assert process.poll() is None, "whoever started it ends it"
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    watchdog.cancel()
    assert process.returncode == 0, said
    assert "Traceback" not in said, said
    return json.loads(line)


def test_each_mask_is_noted_with_its_stamp_and_its_arrival(robot):
    start_ns = time.time_ns()
    seen = observe("--warm-up", "0.5", "--seconds", "1")
    end_ns = time.time_ns()

    assert seen["accepted"] is True
    assert seen["understood"] == "heard find the cup"
    stamps_ns = [stamp_ns for stamp_ns, _ in seen["masks_ns"]]
    assert len(stamps_ns) >= 10
    assert set(stamps_ns) <= set(robot.stamps_ns)
    assert all(stamp_ns + MASK_AGE_NS <= arrived_ns for stamp_ns, arrived_ns in seen["masks_ns"])
    # What came while warming up is left out.
    assert stamps_ns[0] - robot.stamps_ns[0] >= 0.5e9 - MASK_AGE_NS
    everything_ns = [time_ns for pair in seen["masks_ns"] for time_ns in pair]
    assert start_ns <= min(everything_ns)
    assert max(everything_ns) <= end_ns
    assert len(seen["sent_ns"]) >= 10
    assert max(seen["sent_ns"]) - min(seen["sent_ns"]) <= 1e9


def test_masks_that_never_come_are_not_waited_for(robot):
    robot.shows_masks = False
    seen = observe("--patience", "0.5")
    assert seen["accepted"] is True
    assert seen["masks_ns"] == []
    assert len(seen["sent_ns"]) >= 3


def test_a_refused_command_is_told(robot):
    robot.state = CommandStatus.REJECTED
    seen = observe()
    assert seen["accepted"] is False
    assert seen["understood"] == "heard find the cup"
    assert seen["masks_ns"] == []
