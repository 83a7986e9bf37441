# SPDX-License-Identifier: Apache-2.0
"""Keeps the memory of objects of a node: feeds it with images, publishes it, and reads and writes its file."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.timer import Timer

from clip_seg_ros.config import ReferringConfig
from clip_seg_ros.nodes.common.core import NodeCore
from clip_seg_ros.nodes.outputs.memory_topics import MemoryTopics
from clip_seg_ros.nodes.services.memory_file import MemoryFile
from clip_seg_ros.pipeline.stream.recollection import ObjectMemory
from clip_seg_ros.pipeline.stream.remembered import RememberedObject
from clip_seg_ros.types import CameraFrame, ObjectRegion

PERIOD_S = 0.5
"""Period in seconds of publications while times and places change a little; what is new or gone is told at once."""
SAVE_PERIOD_S = 30.0
"""Period in seconds at which a memory that has changed is written to its file."""
IN_VIEW_S = 2.0
"""Time in seconds for which what an image showed counts as in view, if no other image follows."""
NO_FRAME = "nothing is remembered: set target_frame to a frame that does not move, such as map"
SWITCHED_OFF = "nothing is remembered: set the parameter remember to auto or always"
MOVING_FRAME = (
    "nothing is remembered, because {} moves with the robot by its name: set target_frame to a frame that does not "
    "move, such as map, or remember to always if it stands still"
)
_MOVING = re.compile(r"(?:^|/)(?:base(?:_\w+)?|\w*_link|\w*optical\w*)$")
"""Names of frames that are parts of a robot or a camera, by REP 103 and REP 105."""
_TIMES_KEPT = 200


@dataclass(frozen=True)
class Sight:
    """What one image showed."""

    frame: CameraFrame
    camera: str
    """Name of the camera; empty if there is only one."""
    to_fixed: np.ndarray
    """(4, 4), the transform from the camera's optical frame to the fixed frame, metres."""
    regions: tuple[ObjectRegion, ...]
    """What was found, with positions in the optical frame."""
    asked: tuple[str, ...]
    """The phrases that would have found what is missing."""


class MemoryKeeper:
    """Keeps what the cameras of a node saw. It is safe to use from any thread.

    Args:
        core: The objects that the parts of the node share.
        place_of: Returns where a frame is in the fixed frame at present, metres; ``None`` if that is not known.
    """

    def __init__(
        self,
        core: NodeCore[ReferringConfig],
        place_of: Callable[[str], tuple[float, float, float] | None],
    ) -> None:
        self._core, self._place_of = core, place_of
        self._saving = threading.Lock()
        """Is held while the file is written."""
        self._lock = threading.RLock()
        """Guards all of the following fields."""
        self._topics: MemoryTopics | None = None
        self._timer: Timer | None = None
        self._file = MemoryFile("", "", core.faults)
        self._clear()

    def _clear(self) -> None:
        self._memory = ObjectMemory()
        self._cameras: dict[int, str] = {}
        """The camera that saw each object last."""
        self._frames: dict[str, str] = {}
        """The optical frame of each camera."""
        self._in_view: dict[str, tuple[frozenset[int], float]] = {}
        """What the newest image of each camera showed, and when it was taken in, by the monotonic clock."""
        self._newest_ns = 0
        self._is_unpublished = self._is_unsaved = False
        self._saved_s = time.monotonic()
        self._seconds: deque[float] = deque(maxlen=_TIMES_KEPT)

    # The lifecycle.

    def open(self) -> None:
        """Creates the topics, and reads the file if there is one."""
        node, config = self._core.node, self._core.config
        with self._lock:
            self._clear()
            self._topics = MemoryTopics(node, config.target_frame)
            self._file = MemoryFile(config.memory_file, config.target_frame, self._core.faults)
            if not config.target_frame:
                return
            self._memory = self._file.load()
            self._newest_ns = max((item.last_ns for item in self._memory.what_was_seen()), default=0)
            self._publish()
            self._timer = node.create_timer(
                PERIOD_S,
                self._tick,
                callback_group=MutuallyExclusiveCallbackGroup(),
                # A steady clock runs on while the time of a simulation stands still.
                clock=Clock(clock_type=ClockType.STEADY_TIME),
            )

    def close(self) -> None:
        """Destroys the topics and forgets everything that is not in a file."""
        with self._lock:
            if self._timer is not None:
                self._core.node.destroy_timer(self._timer)
            if self._topics is not None:
                self._topics.close()
            self._topics = self._timer = None
            self._clear()

    def save(self) -> None:
        """Writes what has changed to the file, if there is one."""
        with self._saving:
            with self._lock:
                if not self._is_unsaved or not self._file:
                    return
                self._is_unsaved, self._saved_s = False, time.monotonic()
                # Objects do not change, so that a copy can be written while the next images come.
                objects, next_id = self._memory.what_was_seen(doubtful=True), self._memory.next_id
            if not self._file.save(ObjectMemory.holding(reversed(objects), next_id)):
                self._is_unsaved = True

    # What comes in.

    @property
    def refusal(self) -> str:
        """Why nothing is remembered; empty if things are."""
        config = self._core.config
        if not config.target_frame:
            return NO_FRAME
        if config.remember == "never":
            return SWITCHED_OFF
        is_moving = config.remember == "auto" and _MOVING.search(config.target_frame)
        return MOVING_FRAME.format(config.target_frame) if is_moving else ""

    def see(self, sight: Sight) -> None:
        """Takes in one image; an error in it is reported."""
        begun_s, frame = time.perf_counter(), sight.frame
        with self._lock:
            if self._topics is None:
                return
            before = self._shown()
            try:
                noticed = self._memory.see(frame, sight.to_fixed, sight.regions, sight.asked)
            except ValueError as error:
                self._core.faults.report("memory", str(error), f"an image is not remembered: {error}")
                return
            self._core.faults.clear("memory")
            ids = frozenset(id for id in noticed.ids if id is not None)
            self._cameras.update(dict.fromkeys(ids, sight.camera))
            self._frames[sight.camera] = frame.frame_id
            self._in_view[sight.camera] = ids, time.monotonic()
            self._newest_ns = frame.stamp_ns
            matters = bool(noticed.moved) or self._shown() != before
            if ids or noticed.forgotten or matters:
                self._is_unpublished = self._is_unsaved = True
            if matters:
                self._publish()
        self._seconds.append(time.perf_counter() - begun_s)

    def forget(self, names: Sequence[str]) -> list[RememberedObject]:
        """Forgets what the names recall, also what is doubtful, or everything if there are none; returns it."""
        with self._lock:
            gone = self._recalled(names, doubtful=True)
            for item in gone:
                self._memory.forget(item.id)
            if gone:
                self._is_unsaved = True
                self._publish()
        return [item for item in gone if not item.is_doubtful]

    # What is asked.

    def recall(self, names: Sequence[str]) -> list[RememberedObject]:
        """Returns what the names recall, the best first, or everything, the last seen first, if there are none."""
        with self._lock:
            return self._recalled(names)

    def out_of_view(self, items: Iterable[RememberedObject]) -> list[RememberedObject]:
        """Returns those things that the newest images did not show."""
        oldest_s = time.monotonic() - IN_VIEW_S
        with self._lock:
            seen = {id for ids, when_s in self._in_view.values() if when_s >= oldest_s for id in ids}
        return [item for item in items if item.id not in seen]

    def camera_of(self, item: RememberedObject) -> str:
        """Returns the name of the camera that saw a thing last; empty if there is only one, or if it is not known."""
        return self._cameras.get(item.id, "")

    def viewer_of(self, item: RememberedObject) -> tuple[float, float, float] | None:
        """Returns where the camera that saw a thing last is now, in the fixed frame; ``None`` if it is not known."""
        frame_id = self._frames.get(self.camera_of(item))
        return None if frame_id is None else self._place_of(frame_id)

    def is_heard(self) -> bool:
        """Returns whether the topics have a subscriber."""
        topics = self._topics
        return topics is not None and not self.refusal and topics.is_heard()

    def values(self) -> dict[str, str]:
        """Returns what diagnostics tell."""
        if self.refusal:
            return {}
        values = {"things remembered": str(len(self._memory.what_was_seen()))}
        if times := list(self._seconds):
            values["memory, ms an image, 50th percentile"] = f"{1000 * np.percentile(times, 50):.1f}"
        return values

    # The rest; all of it is called with the lock.

    def _recalled(self, names: Sequence[str], doubtful: bool = False) -> list[RememberedObject]:
        if not names:
            return self._memory.what_was_seen(doubtful)
        found = {item.id: item for name in names for item in self._memory.recall(name, doubtful)}
        return sorted(found.values(), key=lambda item: -item.score)

    def _shown(self) -> set[tuple[int, str]]:
        return {(item.id, item.phrase) for item in self._memory.what_was_seen()}

    def _publish(self) -> None:
        if self._topics is None:
            return
        items = self._memory.what_was_seen()
        kept = {item.id for item in self._memory.what_was_seen(doubtful=True)}
        self._cameras = {id: camera for id, camera in self._cameras.items() if id in kept}
        self._is_unpublished = False
        self._topics.publish(items, self._cameras, self._newest_ns)
        self._topics.mark(self.out_of_view(items))

    def _tick(self) -> None:
        with self._lock:
            if self._topics is None:
                return
            if self._is_unpublished:
                self._publish()
            else:
                self._topics.mark(self.out_of_view(self._memory.what_was_seen()))
            is_due = time.monotonic() - self._saved_s >= SAVE_PERIOD_S
        if is_due:
            self.save()
