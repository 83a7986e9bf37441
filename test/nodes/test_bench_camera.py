"""The camera of ``clip-seg bench ros`` as a process."""

from __future__ import annotations

import pytest
from ros_harness import NodeProcess, stamp_ns, wait_until
from sensor_msgs.msg import CameraInfo, Image

from clip_seg_ros.nodes.bench_camera import VIEWS
from clip_seg_ros.nodes.qos import camera_output

CYCLE = 2 * (VIEWS - 1)


@pytest.fixture
def camera(ros, log):
    node = NodeProcess(
        "bench_camera", log, ["width:=64", "height:=48", "rate_hz:=30", "reliability:=reliable"], namespace="bench"
    )
    yield node
    assert node.end() == 0 and "Traceback" not in node.said()


def test_recorded_views_are_played_there_and_back(camera, watcher):
    topics = {"color/image_raw": Image, "depth/image_raw": Image, "color/camera_info": CameraInfo}
    heard = {
        topic: watcher.hear(kind, f"/bench/camera/{topic}", camera_output("reliable")) for topic, kind in topics.items()
    }
    images = heard["color/image_raw"]
    wait_until(lambda: len(images) > 2 * CYCLE, "two cycles of images")

    pixels = [bytes(image.data) for image in images]
    assert pixels[:CYCLE] == pixels[CYCLE : 2 * CYCLE] and len(set(pixels)) == VIEWS
    turn = next(index for index in range(1, CYCLE + 1) if pixels[index - 1] == pixels[index + 1])
    assert all(pixels[turn - step] == pixels[turn + step] for step in range(min(turn, VIEWS)))
    stamps = [stamp_ns(image) for image in images]
    assert stamps == sorted(set(stamps))
    for topic in ("depth/image_raw", "color/camera_info"):
        wait_until(lambda: {stamp_ns(message) for message in heard[topic][:]} & set(stamps[-5:]), topic)
