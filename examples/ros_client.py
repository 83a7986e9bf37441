# SPDX-License-Identifier: Apache-2.0
"""Gives a running node a command and prints what it finds: python ros_client.py ["find the red cup"]

Start a node first, for example with `make demo` or `ros2 launch clip_seg_ros demo.launch.py`. Ctrl-C ends this program.
"""

import sys
from contextlib import suppress

import rclpy
from rclpy.executors import ExternalShutdownException
from std_msgs.msg import String

from clip_seg_ros.msg import CommandStatus, SegmentedObjectArray

command = sys.argv[1] if len(sys.argv) > 1 else "find the red cup"
rclpy.init()
node = rclpy.create_node("ros_client", namespace="clip_seg")
publisher = node.create_publisher(String, "command", 10)
# Until the node answers, the command is repeated: nobody may listen yet.
timer = node.create_timer(1.0, lambda: publisher.publish(String(data=command)))


def on_status(status: CommandStatus) -> None:
    if status.command == command:
        timer.cancel()
        print(status.message, flush=True)


def on_objects(message: SegmentedObjectArray) -> None:
    for item in message.objects:
        where = f"({item.position.x:.3f}, {item.position.y:.3f}, {item.position.z:.3f}) m in {message.position_frame}"
        print(f"{item.prompt}: score {item.score:.2f}, {where if item.has_position else 'no position'}", flush=True)


node.create_subscription(CommandStatus, "status", on_status, 10)
node.create_subscription(SegmentedObjectArray, "objects", on_objects, 10)
with suppress(KeyboardInterrupt, ExternalShutdownException):
    rclpy.spin(node)
