# SPDX-License-Identifier: Apache-2.0
"""Plays the images of a source: at their own speed, paused, or one by one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from clip_seg_ros.sources.frame import DataError, Frame, Frames

SLIDE_S = 3.0
"""How many seconds a picture of a folder is shown."""
LONGEST_GAP_S = 5.0
"""Longer gaps between the images of a recording are shortened to this."""
_BEHIND_S = 0.5
"""A recording that is read more slowly than it was taken is this much behind when its clock is set anew."""


@dataclass(frozen=True)
class Shown:
    """An image that it is the turn of."""

    frame: Frame
    position: str
    """Where it is in the source, for people: "3 of 12"."""
    is_first: bool
    """Whether the source begins with it, or begins anew."""
    arrived_s: float
    """When it was read, by ``time.monotonic()``."""


class Playback:
    """Reads a source on a thread of its own. The first image comes at once, and others only while somebody looks.

    Recordings and webcams begin to play; folders wait on their first picture for "step" or "go".

    Args:
        frames: The images.
        on_image: Called with each image when it is its turn, on the thread; it must not wait.
        on_end: Called with a sentence when there are no more images, likewise.
        loops: Whether the source begins anew at its end.
    """

    def __init__(
        self, frames: Frames, on_image: Callable[[Shown], None], on_end: Callable[[str], None], loops: bool = False
    ) -> None:
        self._frames, self._on_image, self._on_end, self._loops = frames, on_image, on_end, loops
        self._changed = threading.Condition()
        self._is_playing = frames.kind != "still"
        self._steps = 1
        """The images that come even if nothing plays."""
        self._is_watched = self._is_closed = False
        self._thread: threading.Thread | None = None

    @property
    def is_playing(self) -> bool:
        """Whether images follow by themselves."""
        return self._is_playing

    def start(self) -> None:
        """Starts the thread."""
        self._thread = threading.Thread(target=self._run, name="playback", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Ends the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def watch(self, is_watched: bool) -> None:
        """Says whether somebody looks."""
        with self._changed:
            self._is_watched = is_watched
            self._changed.notify_all()

    def play(self, how: Literal["pause", "go", "step"]) -> None:
        """Pauses, goes on, or pauses after the next image; at the end, the last two begin anew."""
        with self._changed:
            self._is_playing = how == "go"
            self._steps = int(how == "step")
            self._changed.notify_all()

    def _run(self) -> None:
        while not self._is_closed:
            fault, count = "", 0
            try:
                count = self._pass()
            except DataError as error:
                fault = str(error)
            except Exception as error:  # a library may raise anything; whoever looks must hear of it
                fault = f"{self._frames.title} cannot be read on: {type(error).__name__}: {error}"
            if self._is_closed:
                return
            if count < 0:  # a webcam that was left for a while
                self._wait_for_turn()
            elif fault or not self._loops or len(self._frames) == 1:
                self._end(fault)

    def _end(self, fault: str) -> None:
        """Tells that the source has ended, and waits until it is to begin anew."""
        with self._changed:
            was_playing, self._is_playing, self._steps = self._is_playing, False, 0
        if fault:
            self._on_end(fault)
        elif self._frames.kind == "recorded":
            self._on_end(f"{self._frames.title} has ended; to go on plays it again")
        elif len(self._frames) > 1:
            self._on_end(f"this is the last of {len(self._frames)} pictures; the first one comes next")
        elif was_playing:
            self._on_end("there is one picture alone")
        self._wait_for_turn()

    def _pass(self) -> int:
        """Reads the source once; returns the number of images, or -1 if a webcam is to be opened anew."""
        count, clock = 0, _Clock(self._frames.kind)
        with closing(iter(self._frames)) as images:
            for frame in images:
                if self._frames.kind == "live" and count and not self._is_turn():
                    return -1
                if not self._wait_for_turn(clock, frame.stamp_ns):
                    return count
                count += 1
                self._on_image(Shown(frame, self._position(count, clock), count == 1, time.monotonic()))
        if count and self._frames.kind == "still" and self._is_playing and len(self._frames) > 1:
            self._wait_for_turn(clock, 0)  # the last picture is shown as long as the others
        return count

    def _position(self, count: int, clock: _Clock) -> str:
        total = len(self._frames)
        if self._frames.kind == "live":
            return f"picture {count}"
        where = f"{count} of {total}" if total else f"{count}"
        return where if self._frames.kind == "still" else f"{clock.passed_s:.1f} s, picture {where}"

    def _is_turn(self) -> bool:
        return self._steps > 0 or (self._is_playing and self._is_watched)

    def _wait_for_turn(self, clock: _Clock | None = None, stamp_ns: int = 0) -> bool:
        """Waits until the next image may come; returns whether it may, and false at the end of all."""
        with self._changed:
            while not self._is_closed:
                if not self._is_turn():
                    self._changed.wait()
                    if clock is not None:
                        clock.stop()
                    continue
                left_s = 0.0 if clock is None or self._steps else clock.left_s(stamp_ns)
                if left_s <= 0.0:
                    if clock is not None:
                        self._steps = max(0, self._steps - 1)
                        clock.take(stamp_ns)
                    return True
                self._changed.wait(left_s)
            return False


class _Clock:
    """Says when the next image is due."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._begin_ns: int | None = None
        self._last_ns = 0
        self._due_s: float | None = None
        """When the last image was due, by the monotonic clock; ``None`` if the next one may come at once."""

    @property
    def passed_s(self) -> float:
        """The time from the first image to the last one, in the time of the source."""
        return (self._last_ns - (self._begin_ns or 0)) * 1e-9

    def stop(self) -> None:
        """Forgets when images are due, because the source has stood still."""
        self._due_s = None

    def left_s(self, stamp_ns: int) -> float:
        """Returns for how many seconds the next image is not due."""
        if self._due_s is None or self._kind == "live":
            return 0.0
        return self._due_s + self._gap_s(stamp_ns) - time.monotonic()

    def take(self, stamp_ns: int) -> None:
        """Notes that an image was shown."""
        now_s = time.monotonic()
        due_s = now_s if self._due_s is None else self._due_s + self._gap_s(stamp_ns)
        # Whoever is far behind does not hurry after, but goes on from here.
        self._due_s = now_s if now_s - due_s > _BEHIND_S or due_s > now_s else due_s
        self._begin_ns = stamp_ns if self._begin_ns is None else self._begin_ns
        self._last_ns = stamp_ns

    def _gap_s(self, stamp_ns: int) -> float:
        if self._kind == "still":
            return SLIDE_S
        return min(max(0.0, (stamp_ns - self._last_ns) * 1e-9), LONGEST_GAP_S)
