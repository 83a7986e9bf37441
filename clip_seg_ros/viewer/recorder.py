# SPDX-License-Identifier: Apache-2.0
"""Keeps the last seconds of what was shown, and writes them as a recording that ROS 2 plays and Foxglove opens."""

from __future__ import annotations

import math
import os
import re
import tempfile
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clip_seg_ros.resources import message_dir
from clip_seg_ros.types import OrientedBox
from clip_seg_ros.viewer.views import Thing, View

THING_BYTES = 1000
"""About what a thing takes in memory."""
OBJECTS = "clip_seg_ros/msg/SegmentedObjectArray"
PICTURE = "sensor_msgs/msg/CompressedImage"
_NO_ROSBAGS = "recordings are written by the package rosbags, which is not installed: pip install rosbags"


class RecordingError(Exception):
    """A recording cannot be written; the message says why, and what to do."""


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

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0

    @property
    def pictures(self) -> int:
        """The number of pictures that are kept."""
        with self._lock:
            return len(self._kept)

    @property
    def megabytes(self) -> float:
        """About the memory that they take."""
        with self._lock:
            return self._bytes / 1e6

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
        path = Path(path)
        if path.suffix != ".mcap":
            raise RecordingError(f"a recording is a file whose name ends with .mcap, not {path.name}")
        try:
            path.touch(exist_ok=False)
        except FileExistsError as error:
            raise RecordingError(f"{path} exists already; choose another name") from error
        except OSError as error:
            raise RecordingError(f"{path} cannot be written: {error}") from error
        try:
            with tempfile.TemporaryDirectory(prefix=".recording_", dir=path.parent) as folder:
                os.replace(_write(kept, Path(folder) / path.stem, self._namespace), path)
        except BaseException as error:
            path.unlink()
            if isinstance(error, OSError):
                raise RecordingError(f"{path} cannot be written: {error}") from error
            raise
        return len(kept)


def topics_of(camera: str, namespace: str) -> tuple[str, str]:
    """Returns the names of the topics of a camera's pictures and objects."""
    name = re.sub(r"\W+", "_", camera, flags=re.ASCII).strip("_")
    if name[:1].isdigit():
        name = f"camera_{name}"
    prefix = f"{namespace}/{name}" if name else namespace
    return f"{prefix}/overlay/compressed", f"{prefix}/objects"


def typestore() -> Any:
    """Returns the message types of ROS 2 Jazzy and of this package, for ``rosbags``.

    Raises:
        RecordingError: rosbags is not installed.
        FileNotFoundError: The package's own definitions are not there.
    """
    try:
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore
    except ImportError as error:
        raise RecordingError(_NO_ROSBAGS) from error
    store = get_typestore(Stores.ROS2_JAZZY)
    own = {}
    for name in ("SegmentedObject", "SegmentedObjectArray"):
        text = (message_dir() / f"{name}.msg").read_text(encoding="utf-8")
        own.update(get_types_from_msg(text, f"clip_seg_ros/msg/{name}"))
    store.register(own)
    return store


def _write(kept: Sequence[_Shown], folder: Path, namespace: str) -> Path:
    """Writes a recording into a new folder, and returns the file in it."""
    store = typestore()
    from rosbags.rosbag2 import StoragePlugin, Writer

    connections: dict[tuple[str, str], Any] = {}
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for shown in kept:
            messages = ((PICTURE, _picture(store, shown)), (OBJECTS, _objects(store, shown)))
            for topic, (kind, message) in zip(topics_of(shown.camera, namespace), messages):
                if (topic, kind) not in connections:
                    connections[topic, kind] = writer.add_connection(topic, kind, typestore=store)
                writer.write(connections[topic, kind], shown.stamp_ns, store.serialize_cdr(message, kind))
    (file,) = folder.glob("*.mcap")
    return file


def _header(store: Any, shown: _Shown) -> Any:
    seconds, nanoseconds = divmod(shown.stamp_ns, 10**9)
    stamp = store.types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
    return store.types["std_msgs/msg/Header"](stamp=stamp, frame_id=shown.image_frame)


def _picture(store: Any, shown: _Shown) -> Any:
    data = np.frombuffer(shown.jpeg, np.uint8)
    return store.types[PICTURE](header=_header(store, shown), format="jpeg", data=data)


def _objects(store: Any, shown: _Shown) -> Any:
    return store.types[OBJECTS](
        header=_header(store, shown),
        camera=shown.camera,
        prompts=list(shown.prompts),
        position_frame=shown.frame,
        objects=[_object(store, thing) for thing in shown.things if thing.id],
        anchors=[_object(store, thing) for thing in shown.things if not thing.id],
    )


def _object(store: Any, thing: Thing) -> Any:
    point = store.types["geometry_msgs/msg/Point"]
    x, y, z = thing.position_m or (math.nan,) * 3
    pose, size = _box(store, thing.box_m)
    x_min, y_min, x_max, y_max = thing.box_px
    return store.types["clip_seg_ros/msg/SegmentedObject"](
        prompt=thing.prompt,
        id=thing.id,
        score=thing.score,
        x_min=x_min,
        y_min=y_min,
        x_max=x_max,
        y_max=y_max,
        area=thing.area_px,
        centroid_x=thing.centroid_px[0],
        centroid_y=thing.centroid_px[1],
        has_position=thing.position_m is not None,
        position=point(x=x, y=y, z=z),
        has_box=thing.box_m is not None,
        box_pose=pose,
        box_size=size,
        anchors=np.zeros(0, np.uint8),  # a view does not say what relates to what
    )


def _box(store: Any, box: OrientedBox | None) -> tuple[Any, Any]:
    """Returns pose and size of a box as messages, all NaN without one."""
    x, y, z = box.center_m if box else (math.nan,) * 3
    qx, qy, qz, qw = box.orientation_xyzw if box else (math.nan,) * 4
    a, b, c = box.size_m if box else (math.nan,) * 3
    pose = store.types["geometry_msgs/msg/Pose"](
        position=store.types["geometry_msgs/msg/Point"](x=x, y=y, z=z),
        orientation=store.types["geometry_msgs/msg/Quaternion"](x=qx, y=qy, z=qz, w=qw),
    )
    return pose, store.types["geometry_msgs/msg/Vector3"](x=a, y=b, z=c)
