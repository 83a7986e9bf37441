# SPDX-License-Identifier: Apache-2.0
"""What a camera's lens is taken for, on a node that hears real messages, and how much of them is kept."""

from __future__ import annotations

import array
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from clip_seg_ros.config import CameraTopics
from clip_seg_ros.nodes.camera import camera_input
from clip_seg_ros.nodes.camera.camera_input import CameraInput, CameraJob
from clip_seg_ros.nodes.camera.conversions import fill_image
from clip_seg_ros.nodes.common.faults import FaultLog
from clip_seg_ros.types import CameraIntrinsics
from ros_harness import Talker, wait_until

LENS = CameraInfo(
    width=4,
    height=3,
    distortion_model="plumb_bob",
    d=[-0.3, 0.1, 0.0, 0.0, 0.0],
    k=[5.0, 0.0, 1.5, 0.0, 5.0, 1.0, 0.0, 0.0, 1.0],
    p=[4.0, 0.0, 1.25, 0.0, 0.0, 4.5, 1.125, 0.0, 0.0, 0.0, 1.0, 0.0],
)
AS_RAW = CameraIntrinsics(5.0, 5.0, 1.5, 1.0, 4, 3, (-0.3, 0.1, 0.0, 0.0, 0.0))
AS_RECTIFIED = CameraIntrinsics(4.0, 4.5, 1.25, 1.125, 4, 3)


class Listener:
    """A node with one camera, whose topics begin with ``/lens``."""

    def __init__(self, image: str) -> None:
        self.node, self.rectified, self.jobs = Node("listener"), False, []
        self.faults = FaultLog(lambda message: None)
        topics = CameraTopics("", f"/lens/{image}", "/lens/depth", "/lens/info")
        self.camera = CameraInput(
            self.node, topics, "raw", lambda: 0.1, lambda: self.rectified, self.faults, self.jobs.append
        )

    def intrinsics(self) -> CameraIntrinsics | None:
        job: CameraJob = self.jobs[-1]
        return self.camera.frame(job, self.camera.rgb(job)).intrinsics

    def hear(self, what: str, size_bytes: int, second: int = 0) -> None:
        """Takes a message of so many bytes, whatever they show, as rclpy hands it over."""
        data = array.array("B", bytes(size_bytes))
        message = Image(height=1, width=size_bytes, encoding="mono8", step=size_bytes, data=data)
        message.header.stamp.sec = second
        self.camera.inputs[("color", "depth").index(what)].subscription.callback(message)

    def close(self) -> None:
        self.camera.close()
        self.node.destroy_node()


@pytest.fixture(params=["image_raw", "image_rect_color"])
def listener(ros: None, request: pytest.FixtureRequest) -> Iterator[Listener]:
    """Has heard an image, its depth and its lens."""
    listener = Listener(request.param)
    topics = {
        "color": (Image, f"/lens/{request.param}"),
        "depth": (Image, "/lens/depth"),
        "info": (CameraInfo, "/lens/info"),
    }
    executor = SingleThreadedExecutor()
    executor.add_node(listener.node)
    try:
        with Talker(topics) as talker:
            talker.send(
                color=fill_image(Image(), np.zeros((3, 4, 3), np.uint8), "rgb8"),
                depth=fill_image(Image(), np.ones((3, 4), np.float32), "32FC1"),
                info=LENS,
            )

            def heard() -> bool:
                executor.spin_once(timeout_sec=0.05)
                return bool(listener.jobs) and listener.intrinsics() is not None

            wait_until(heard, "the image, its depth and its lens")
        yield listener
    finally:
        executor.shutdown()
        listener.close()


def test_the_lens_is_that_of_a_raw_or_of_a_rectified_image_as_is_said(listener: Listener) -> None:
    assert listener.intrinsics() == AS_RAW
    listener.rectified = True
    assert listener.intrinsics() == AS_RECTIFIED


def test_an_image_that_sounds_rectified_and_is_not_said_to_be_is_told(listener: Listener) -> None:
    listener.intrinsics()
    told = [fault for fault in listener.faults.standing() if "set the parameter rectified" in fault]
    assert len(told) == ("rect" in listener.camera.image_topic)
    listener.rectified = True
    listener.intrinsics()
    assert listener.faults.standing() == []


def test_topics_are_relative_and_their_quality_of_service_can_be_overridden(ros):
    """As ``qos_overrides`` in a parameter file; what is not named keeps its default, now and when it is made anew."""
    overrides = ["-p", "qos_overrides./robot_7/image.subscription.reliability:=reliable", "-r", "depth:=other"]
    node = Node("overridden", namespace="robot_7", cli_args=["--ros-args", *overrides])
    topics = CameraTopics("", "image", "depth", "info")
    for _ in range(2):
        camera = CameraInput(node, topics, "raw", lambda: 0.1, lambda: False, FaultLog(print), print)
        image, depth, info = camera.inputs
        assert [each.topic for each in camera.inputs] == ["/robot_7/image", "/robot_7/other", "/robot_7/info"]
        assert image.qos.reliability == ReliabilityPolicy.RELIABLE
        assert image.qos.depth == 1
        assert depth.qos.reliability == info.qos.reliability == ReliabilityPolicy.BEST_EFFORT
        camera.close()
    node.destroy_node()


@pytest.fixture
def silent(ros: None) -> Iterator[Listener]:
    """Has heard nothing."""
    listener = Listener("image_raw")
    yield listener
    listener.close()


@pytest.mark.parametrize("what", ["color", "depth"])
def test_a_message_that_is_too_large_is_told_and_not_kept(silent: Listener, monkeypatch, what: str) -> None:
    monkeypatch.setattr(camera_input, "MAX_MESSAGE_BYTES", 1000)
    silent.hear("color", 1000)
    before = silent.jobs[-1].depth
    assert silent.faults.standing() == []
    silent.hear(what, 1001)
    told = {"color": "image: ", "depth": "depth: "}[what] + "a message of 1,001 bytes is too large, the limit is 1,000"
    assert [fault.startswith(told) for fault in silent.faults.standing()] == [True]
    assert len(silent.jobs) == 1
    assert silent.jobs[-1].depth is before


def test_images_that_wait_for_their_depth_are_bounded_in_bytes(silent: Listener, monkeypatch) -> None:
    monkeypatch.setattr(camera_input, "MAX_KEPT_BYTES", 3000)
    kept: list[weakref.ref[CameraJob]] = []

    def sizes() -> list[int]:
        jobs = [job for each in kept if (job := each()) is not None]
        return [len(job.image.data) for job in jobs]

    for size_bytes in (1000, 1000, 1000, 1000, 2500, 5000, 100):
        silent.hear("color", size_bytes)
        kept.append(weakref.ref(silent.jobs.pop()))
        # The newest is always kept, for it is the one to be answered.
        assert sum(sizes()) <= 3000 or sizes() == [size_bytes]
    assert sizes() == [100]


def test_depth_images_are_bounded_in_bytes_with_and_without_their_colour(ros: None, monkeypatch) -> None:
    monkeypatch.setattr(camera_input, "MAX_KEPT_BYTES", 3000)
    silent = Listener("image_raw")
    alive: list[weakref.ref[array.array]] = []

    def kept() -> int:
        return sum(len(data) for each in alive if (data := each()) is not None)

    peek = silent.camera._depth_images.peek
    for second in range(20):
        silent.hear("depth", 1000, second)
        alive.append(weakref.ref(peek(second * 10**9, 0.0).data))
        assert kept() == min(1000 * len(alive), 3000)
    for second in range(100, 120):
        silent.hear("color", 100, second)
        silent.hear("depth", 1000, second)
        alive.append(weakref.ref(silent.jobs.pop().depth.data))
        # Those that wait to be found, and, if they are others, those of the images that are kept.
        assert 1000 <= kept() <= 6000
    assert len(silent.camera._jobs) == 2
    silent.close()
