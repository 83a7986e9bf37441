# SPDX-License-Identifier: Apache-2.0
"""The common parts of ``clip-seg say`` and ``clip-seg watch``: a process that uses ROS, and its events as text."""

from __future__ import annotations

import argparse
import json
import math
import os
import queue
import re
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from clip_seg_ros.tools.processes import ChildProcesses
from clip_seg_ros.tools.simulation import check_ros, shared_memory

_CONNECT_S = 10.0
"""The time that the discovery of nodes may take."""
_MOVED_PX, _MOVED_M = 20.0, 0.05
"""The distances above which an object counts as moved."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that select the nodes."""
    parser.add_argument(
        "--namespace",
        type=_ros_name,
        default="clip_seg",
        metavar="NAME",
        help="namespace of the nodes (default: %(default)s)",
    )


def _ros_name(text: str) -> str:
    if not re.fullmatch(r"/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is no name in ROS: use letters, digits, underscores and slashes")
    return text


topic_name = _ros_name


def seconds(text: str) -> float:
    """Parses a number of seconds, 0.1 to 3600."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.1 <= value <= 3600.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0.1 to 3600")
    return value


class Talk:
    """Runs the process ``nodes.observers.talker`` while its block lasts, and receives its events.

    Args:
        what: Command that needs ROS, for the message if there is none.
        arguments: Arguments of the process.
        env: Its environment; ``None``: that of this process.

    Raises:
        NoRos: This Python cannot run the process.
    """

    def __init__(self, what: str, arguments: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        check_ros(what)
        self._folder = tempfile.TemporaryDirectory(prefix="clip_seg_talk_")
        self._children = ChildProcesses(Path(self._folder.name), shared_memory(env or os.environ))
        self._arguments = [*arguments, "--patience", str(_CONNECT_S)]
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()

    def __enter__(self) -> Talk:
        child = self._children.start("talker", "clip_seg_ros.nodes.observers.talker", self._arguments, talks=True)
        threading.Thread(target=self._read, args=(child.stdout,), daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._children.stop()
        self._folder.cleanup()

    def _read(self, stream: Any) -> None:
        try:
            for line in stream:
                self._events.put(json.loads(line))
        except ValueError:  # the pipe was closed, or a line was cut at the end
            pass

    def next(self, deadline_s: float | None = None) -> dict[str, Any] | None:
        """Waits for the next event; returns ``None`` if there is none until ``deadline_s`` of ``time.monotonic``.

        Raises:
            ChildDied: The process ended unexpectedly.
        """
        while deadline_s is None or time.monotonic() < deadline_s:
            try:
                return self._events.get(timeout=0.2)
            except queue.Empty:
                pass
            self._children.check()
        return None

    def arrived(self) -> list[dict[str, Any]]:
        """Returns the events that have come already, without waiting."""
        events = []
        with suppress(queue.Empty):
            while True:
                events.append(self._events.get_nowait())
        return events


def nobody(event: Mapping[str, Any], domain: str | None) -> str:
    """Returns a message that no node listens, and what to do about it."""
    said = f"no node answers on {event['topic']} in ROS domain {domain or '0'}"
    if event["others"]:
        spaces = ", ".join(f"--namespace {topic.rpartition('/')[0].strip('/')}" for topic in event["others"])
        return f"{said}; there is one with {spaces}"
    return (
        f"{said}. Start it with `ros2 launch clip_seg_ros seg.launch.py` or `python -m clip_seg_ros.nodes.referring`; "
        "where it runs already, set ROS_DOMAIN_ID and --namespace to its own"
    )


def status_line(event: Mapping[str, Any]) -> str:
    """Formats a status as one line."""
    return f"{event['state']}: {event['message']}"


def objects_lines(event: Mapping[str, Any]) -> list[str]:
    """Formats the objects of an image, one per line; there is one line if there are no objects."""
    camera = f" ({event['camera']})" if event["camera"] else ""
    if not event["objects"]:
        asked = ", ".join(event["prompts"])
        return [f"objects{camera}: none{f' of {asked}' if asked else ''}"]
    lines = []
    for item in event["objects"]:
        x, y = item["centroid_px"]
        where = f"at pixel ({x:.0f}, {y:.0f})"
        if item["position_m"] is not None:
            place = ", ".join(f"{value:.3f}" for value in item["position_m"])
            where += f", ({place}) m in {event['frame']}"
        lines.append(f"objects{camera}: {item['prompt']} #{item['id']}, score {item['score']:.2f}, {where}")
    return lines


class Changes:
    """Stores the last objects of each camera, and decides whether new ones differ enough to be shown."""

    def __init__(self) -> None:
        self._last: dict[tuple[Any, ...], Mapping[str, Any]] = {}

    def is_new(self, event: Mapping[str, Any]) -> bool:
        """Returns whether there are other objects than before, or an object has moved."""
        # Both nodes may use one camera, each with its own prompts.
        key = (event["camera"], tuple(event["prompts"]))
        last = self._last.get(key)
        if last is not None and not _differ(last["objects"], event["objects"]):
            return False
        for other in [each for each in self._last if each[0] == key[0]]:
            del self._last[other]
        self._last[key] = event
        return True


def _differ(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> bool:
    before = {(item["prompt"], item["id"]): item for item in old}
    after = {(item["prompt"], item["id"]): item for item in new}
    return before.keys() != after.keys() or any(_moved(before[key], after[key]) for key in before)


def _moved(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    if (old["position_m"] is None) != (new["position_m"] is None):
        return True
    if math.dist(old["centroid_px"], new["centroid_px"]) > _MOVED_PX:
        return True
    return old["position_m"] is not None and math.dist(old["position_m"], new["position_m"]) > _MOVED_M
