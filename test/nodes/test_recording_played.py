# SPDX-License-Identifier: Apache-2.0
"""What the viewer has recorded, played in another process: ROS nodes hear what was shown."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage

from clip_seg_ros.msg import SegmentedObjectArray
from clip_seg_ros.nodes.common.qos import RELIABLE
from clip_seg_ros.viewer.recorder import Recorder
from ros_harness import stamp_ns, wait_until
from table_view import render_table, table_view

PLAYER = Path(__file__).parent / "bag_player.py"
COUNT, START_NS = 5, 1_700_000_000_000_000_007


@pytest.mark.skipif(importlib.util.find_spec("rosbags") is None, reason="rosbags is not here: pip install rosbags")
def test_a_node_hears_what_was_recorded(ros: None, tmp_path: Path) -> None:
    view = table_view(render_table())
    jpeg = cv2.imencode(".jpg", view.rgb[..., ::-1])[1].tobytes()
    recorder = Recorder()
    shown = [replace(view, camera="front", stamp_ns=START_NS + index, arrived_s=index / 30) for index in range(COUNT)]
    for each in shown:
        recorder.add(each, jpeg)
    recorder.write(tmp_path / "last.mcap")

    pictures: list[CompressedImage] = []
    objects: list[SegmentedObjectArray] = []
    node, executor = Node("listener"), SingleThreadedExecutor()
    node.create_subscription(CompressedImage, "/clip_seg/front/overlay/compressed", pictures.append, RELIABLE)
    node.create_subscription(SegmentedObjectArray, "/clip_seg/front/objects", objects.append, RELIABLE)
    executor.add_node(node)
    command = [sys.executable, str(PLAYER), str(tmp_path / "last.mcap")]
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as player:
            while player.poll() is None:
                executor.spin_once(timeout_sec=0.05)
            assert player.returncode == 0, player.stdout.read()

        def all_heard() -> bool:
            executor.spin_once(timeout_sec=0.05)
            return len(pictures) >= COUNT and len(objects) >= COUNT

        wait_until(all_heard, "what has arrived")
    finally:
        executor.shutdown()
        node.destroy_node()

    assert [stamp_ns(each) for each in pictures] == [stamp_ns(each) for each in objects] == [s.stamp_ns for s in shown]
    assert all(bytes(each.data) == jpeg for each in pictures)
    wanted = [(thing.prompt, thing.id, thing.position_m) for thing in view.things if thing.id]
    for message in objects:
        heard = [(one.prompt, one.id, (one.position.x, one.position.y, one.position.z)) for one in message.objects]
        assert heard == wanted
