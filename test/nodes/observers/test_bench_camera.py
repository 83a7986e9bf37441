# SPDX-License-Identifier: Apache-2.0
"""The camera of ``clip-seg bench ros`` as a process."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from sensor_msgs.msg import CameraInfo, Image

from clip_seg_ros.nodes.common.qos import camera_output
from clip_seg_ros.nodes.observers.bench_camera import VIEWS
from ros_harness import NodeProcess, stamp_ns, wait_until

CYCLE = 2 * (VIEWS - 1)


@pytest.fixture
def camera(ros, log):
    node = NodeProcess(
        "observers.bench_camera",
        log,
        ["width:=64", "height:=48", "rate_hz:=30", "reliability:=reliable"],
        namespace="bench",
    )
    yield node
    assert node.end() == 0
    assert "Traceback" not in node.said()


def two_cycles(images: Sequence[Image]) -> Sequence[Image]:
    """The first images after one another that show all views twice in the same order; empty where there are none."""
    for start in range(len(images) - 2 * CYCLE):
        shown = images[start : start + 2 * CYCLE]
        pixels = [bytes(image.data) for image in shown]
        if pixels[:CYCLE] == pixels[CYCLE:] and len(set(pixels)) == VIEWS:
            return shown
    return []


def test_recorded_views_are_played_there_and_back(camera, watcher):
    topics = {"color/image_raw": Image, "depth/image_raw": Image, "color/camera_info": CameraInfo}
    heard = {
        topic: watcher.hear(kind, f"/bench/camera/{topic}", camera_output("reliable")) for topic, kind in topics.items()
    }
    images = heard["color/image_raw"]
    # On a busy machine one may get lost on its way.
    played = wait_until(lambda: two_cycles(images[:]), "two cycles of images")
    pixels = [bytes(image.data) for image in played]
    turn = next(index for index in range(1, CYCLE + 1) if pixels[index - 1] == pixels[index + 1])
    assert all(pixels[turn - step] == pixels[turn + step] for step in range(min(turn, VIEWS)))
    stamps = [stamp_ns(image) for image in played]
    assert stamps == sorted(set(stamps))
    for topic in ("depth/image_raw", "color/camera_info"):
        wait_until(lambda: {stamp_ns(message) for message in heard[topic][:]} & set(stamps[-5:]), topic)
