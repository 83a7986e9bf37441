# SPDX-License-Identifier: Apache-2.0
"""Keeps the last seconds of what was shown, and writes them as a recording that ROS 2 plays and Foxglove opens."""

from __future__ import annotations

import re
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from clip_seg_ros.sources.bag_messages import RecordingError, Stamped
from clip_seg_ros.sources.bag_writing import BagWriter
from clip_seg_ros.viewer.views import Thing, View

THING_BYTES = 1000
"""About what a thing takes in memory."""


@dataclass(frozen=True)
class _Shown:
    """What is kept of a view; its arrays are not."""

    camera: str
    stamp_ns: int
    arrived_s: float
    frame: str
    image_frame: str
    """Name of the optical frame; empty where the view does not name it."""
    prompts: tuple[str, ...]
    things: tuple[Thing, ...]
    jpeg: bytes

    @property
    def size(self) -> int:
        return len(self.jpeg) + THING_BYTES * (1 + len(self.things))


class Recorder:
    """Keeps pictures with the things in them. All methods may be called from any thread.

    Args:
        seconds: How long a picture is kept after a newer one of any camera came.
        most_mb: The most memory that is used, in MB; the oldest pictures are left out.
        namespace: Under which the topics of a recording stand; by default they are those of the nodes.
    """

    def __init__(self, seconds: float = 30.0, most_mb: float = 64.0, namespace: str = "/clip_seg") -> None:
        self._seconds, self._most_bytes = seconds, int(most_mb * 1e6)
        self._namespace = namespace.rstrip("/")
        self._lock = threading.Lock()
        self._kept: deque[_Shown] = deque()
        self._bytes = 0

    def add(self, view: View, jpeg: bytes) -> None:
        """Keeps a view with its picture.

        Args:
            view: Its arrays are not kept.
            jpeg: The picture as it was shown, with what is drawn on it.
        """
        image_frame = view.frame if view.camera_pose is None else ""
        shown = _Shown(
            view.camera, view.stamp_ns, view.arrived_s, view.frame, image_frame, view.prompts, view.things, jpeg
        )
        with self._lock:
            self._kept.append(shown)
            self._bytes += shown.size
            while self._kept and (
                self._bytes > self._most_bytes or self._kept[0].arrived_s < shown.arrived_s - self._seconds
            ):
                self._bytes -= self._kept.popleft().size

    def write(self, path: Path) -> int:
        """Writes what is kept to a new MCAP file, which ``ros2 bag play`` plays as it is.

        It holds ``overlay/compressed`` and ``objects`` of each camera, with the stamps of the images, also as the
        times of the messages.

        Args:
            path: A file that does not exist yet; its name ends with .mcap. Nothing is left of a failed attempt.

        Returns:
            The number of pictures.

        Raises:
            RecordingError: There is nothing to write, the file exists or cannot be written, or rosbags is missing.
        """
        with self._lock:
            kept = sorted(self._kept, key=lambda shown: shown.stamp_ns)
        if not kept:
            raise RecordingError("there are no pictures to write yet")
        with BagWriter(path) as bag:
            for shown in kept:
                at = Stamped(shown.stamp_ns, shown.image_frame)
                pictures, objects = topics_of(shown.camera, self._namespace)
                bag.add(pictures, bag.messages.picture(at, shown.jpeg, "jpeg"), shown.stamp_ns)
                found = bag.messages.objects(at, shown.camera, shown.prompts, shown.things, shown.frame)
                bag.add(objects, found, shown.stamp_ns)
        return len(kept)


def topics_of(camera: str, namespace: str) -> tuple[str, str]:
    """Returns the names of the topics of a camera's pictures and objects."""
    name = re.sub(r"\W+", "_", camera, flags=re.ASCII).strip("_")
    if name[:1].isdigit():
        name = f"camera_{name}"
    prefix = f"{namespace}/{name}" if name else namespace
    return f"{prefix}/overlay/compressed", f"{prefix}/objects"
