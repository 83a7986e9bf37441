# SPDX-License-Identifier: Apache-2.0
"""A program that plays an MCAP file as ``ros2 bag play`` does: it publishes its messages byte for byte.

    python bag_player.py FILE

It begins when every topic has a subscriber, and ends when all of them have everything.
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path

import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from rosbags.highlevel import AnyReader

from clip_seg_ros.nodes.common.qos import RELIABLE

PATIENCE_S = 120.0


def kind_of(name: str) -> type:
    """The class of a type such as "sensor_msgs/msg/Image"."""
    package, _, kind = name.split("/")
    return getattr(importlib.import_module(f"{package}.msg"), kind)


def play(path: Path) -> None:
    node = Node("bag_player")
    with AnyReader([path]) as bag:
        publishers = {each.topic: node.create_publisher(kind_of(each.msgtype), each.topic, RELIABLE)
                      for each in bag.connections}  # fmt: skip
        deadline_s = time.monotonic() + PATIENCE_S
        while not all(publisher.get_subscription_count() for publisher in publishers.values()):
            assert time.monotonic() < deadline_s, "nobody listens"
            time.sleep(0.02)
        for connection, _, data in bag.messages():
            publishers[connection.topic].publish(bytes(data))
    for topic, publisher in publishers.items():
        assert publisher.wait_for_all_acked(Duration(seconds=PATIENCE_S)), f"not everything of {topic} came"
    node.destroy_node()


if __name__ == "__main__":
    rclpy.init()
    play(Path(sys.argv[1]))
    rclpy.shutdown()
