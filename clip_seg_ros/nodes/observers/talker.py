# SPDX-License-Identifier: Apache-2.0
"""Gives the nodes a command and reports their messages, for ``clip-seg say`` and ``clip-seg watch``.

Each report is one line of JSON: ``{"event": "connected"}``, ``{"event": "nobody", "topic": topic, "others":
[topics]}``, or what ``status_event`` and ``objects_event`` return. It goes on until SIGINT.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from std_msgs.msg import String

from clip_seg_ros.msg import CommandStatus, SegmentedObject, SegmentedObjectArray
from clip_seg_ros.nodes.common.qos import RELIABLE
from clip_seg_ros.nodes.common.rclpy_internals import is_heard, publisher_count
from clip_seg_ros.nodes.common.statuses import MAX_ECHO
from clip_seg_ros.nodes.observers.observing import observing

_STATES = {
    getattr(CommandStatus, name): name.lower().replace("_", " ")
    for name in ("ACCEPTED", "REJECTED", "FOUND", "NOT_FOUND", "DONE", "FAILED")
}
_SETTLE_S = 0.3
"""Time in seconds after two sides have discovered each other until messages are sure to arrive."""
_AGAIN_S = 5.0
"""Time in seconds without a status after which the command is given again, because it got lost during discovery."""
_SCAN_S = 0.5


class Talker(Node):
    """Publishes a command and reports what the nodes publish.

    Args:
        namespace: Namespace of the nodes to talk to.
        topic: Topic of the commands.
    """

    def __init__(self, namespace: str, topic: str) -> None:
        super().__init__(f"talker_{os.getpid()}", namespace=namespace)
        self.tell: Callable[[dict[str, Any]], None] = lambda event: None
        self.is_answered = False
        self._text: str | None = None
        self._id: int | None = None
        self._command = self.create_publisher(String, topic, RELIABLE)
        self._status = self.create_subscription(CommandStatus, "status", self._on_status, RELIABLE)
        self._heard: set[str] = set()

    def is_connected(self) -> bool:
        """Returns whether a node subscribes to commands and publishes their statuses."""
        return is_heard([self._command]) and publisher_count(self, self._status) > 0

    def others(self) -> list[str]:
        """Returns the topics on which other nodes of this package publish statuses of commands."""
        kind = "clip_seg_ros/msg/CommandStatus"
        return sorted(
            name
            for name, kinds in self.get_topic_names_and_types()
            if kind in kinds and self.count_publishers(name) > 0
        )

    @property
    def status_topic(self) -> str:
        """The full name of the topic of statuses."""
        return self._status.topic_name

    def say(self, text: str) -> None:
        """Gives a command; from then on, only its own statuses are reported."""
        self._text = text
        self._command.publish(String(data=text))

    def watch(self) -> None:
        """Reports the objects of every node in the namespace, also of nodes that start later."""
        self._scan()
        self.create_timer(_SCAN_S, self._scan)

    def _scan(self) -> None:
        below = f"{self.get_namespace().rstrip('/')}/"
        for name, kinds in self.get_topic_names_and_types():
            is_new = name.startswith(below) and name not in self._heard
            if is_new and "clip_seg_ros/msg/SegmentedObjectArray" in kinds:
                self._heard.add(name)
                self.create_subscription(SegmentedObjectArray, name, self._on_objects, RELIABLE)

    def _on_status(self, status: CommandStatus) -> None:
        if self._text is not None:
            if status.command != self._text[:MAX_ECHO] or self._id not in (None, status.command_id):
                return
            self._id, self.is_answered = status.command_id, True
        self.tell(status_event(status))

    def _on_objects(self, message: SegmentedObjectArray) -> None:
        self.tell(objects_event(message))


def status_event(status: CommandStatus) -> dict[str, Any]:
    """Returns the status of a command as plain values; ``state`` is the name of the constant in lower case."""
    return {
        "event": "status",
        "id": status.command_id,
        "command": status.command,
        "state": _STATES[status.state],
        "message": status.message,
        "prompts": list(status.prompts),
        "found": list(status.found),
    }


def objects_event(message: SegmentedObjectArray) -> dict[str, Any]:
    """Returns the objects of one image as plain values, in pixels, and in metres in ``frame`` or ``None``."""
    stamp = message.header.stamp
    return {
        "event": "objects",
        "camera": message.camera,
        "stamp_ns": stamp.sec * 10**9 + stamp.nanosec,
        "prompts": list(message.prompts),
        "frame": message.position_frame or message.header.frame_id,
        "objects": [object_values(item) for item in message.objects],
    }


def object_values(item: SegmentedObject) -> dict[str, Any]:
    """Returns an object as plain values, in pixels, and in metres or ``None``."""
    place = item.position
    return {
        "prompt": item.prompt,
        "id": item.id,
        "score": round(item.score, 4),
        "box_px": [item.x_min, item.y_min, item.x_max, item.y_max],
        "area_px": item.area,
        "centroid_px": [round(item.centroid_x, 2), round(item.centroid_y, 2)],
        "position_m": [round(value, 4) for value in (place.x, place.y, place.z)] if item.has_position else None,
    }


def _connect(talker: Talker, patience_s: float) -> bool:
    deadline_s = time.monotonic() + patience_s
    while not talker.is_connected():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.05)
    time.sleep(_SETTLE_S)
    return True


def main() -> int:
    """Runs the talker as a process until SIGINT."""
    parser = argparse.ArgumentParser(prog="talker", description="For clip-seg say and clip-seg watch.")
    parser.add_argument("--namespace", default="clip_seg")
    parser.add_argument("--topic", default="command")
    parser.add_argument("--say", metavar="TEXT", help="a command to give; without, everything is passed on")
    parser.add_argument("--patience", type=float, default=10.0, metavar="S", help="how long to look for a node")
    args = parser.parse_args()
    with observing(lambda: Talker(args.namespace, args.topic)) as (talker, tell):
        talker.tell = tell
        if args.say is None:
            talker.watch()
        if _connect(talker, args.patience):
            tell({"event": "connected"})
        else:
            tell({"event": "nobody", "topic": talker.status_topic, "others": talker.others()})
            if args.say is not None:
                return 0
        while args.say is not None and not talker.is_answered:
            talker.say(args.say)
            deadline_s = time.monotonic() + _AGAIN_S
            while not talker.is_answered and time.monotonic() < deadline_s:
                time.sleep(0.05)
        while True:
            signal.pause()  # the node is spun on a thread of its own
    return 0


if __name__ == "__main__":
    sys.exit(main())
