# SPDX-License-Identifier: Apache-2.0
"""Gives the nodes a command and tells what they say, for ``clip-seg say`` and ``clip-seg watch``, in lines of JSON.

Each line is one event: ``{"event": "connected"}``, ``{"event": "nobody", "others": [topics]}``, or what
``status_event`` and ``objects_event`` return. It goes on until SIGINT.
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
from clip_seg_ros.nodes.common.statuses import MAX_ECHO
from clip_seg_ros.nodes.observers.observing import observing

_STATES = {
    getattr(CommandStatus, name): name.lower().replace("_", " ")
    for name in ("ACCEPTED", "REJECTED", "FOUND", "NOT_FOUND", "DONE", "FAILED")
}
_SETTLE_S = 0.3
"""Between the moment that two sides know of each other and the moment that a message surely arrives."""
_AGAIN_S = 5.0
"""Without an answer for so long, the command is given again: it got lost while the two sides met."""
_SCAN_S = 0.5


class Talker(Node):
    """Publishes a command and passes on what comes back.

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
        """Whether a node would hear a command, and would be heard."""
        return self._command.get_subscription_count() > 0 and self._status.get_publisher_count() > 0

    def others(self) -> list[str]:
        """Topics on which other nodes of this package answer commands."""
        kind = "clip_seg_ros/msg/CommandStatus"
        return sorted(
            name
            for name, kinds in self.get_topic_names_and_types()
            if kind in kinds and self.count_publishers(name) > 0
        )

    @property
    def status_topic(self) -> str:
        """Full name of the topic of the answers."""
        return self._status.topic_name

    def say(self, text: str) -> None:
        """Gives a command; only its own answers are passed on from then on."""
        self._text = text
        self._command.publish(String(data=text))

    def watch(self) -> None:
        """Passes the objects of every node in the namespace on, also of those that come later."""
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
    """Returns what became of a command as plain values; ``state`` is the constant's name in small letters."""
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
    """Returns the objects of one image as plain values: pixels, and metres in ``frame`` or ``None``."""
    stamp = message.header.stamp
    return {
        "event": "objects",
        "camera": message.camera,
        "stamp_ns": stamp.sec * 10**9 + stamp.nanosec,
        "prompts": list(message.prompts),
        "frame": message.position_frame or message.header.frame_id,
        "objects": [_plain(item) for item in message.objects],
    }


def _plain(item: SegmentedObject) -> dict[str, Any]:
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
