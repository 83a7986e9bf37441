# SPDX-License-Identifier: Apache-2.0
"""Finds the depth image that belongs to a colour image."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

MessageT = TypeVar("MessageT")

_NANOSECONDS = 1_000_000_000


class StampedBuffer(Generic[MessageT]):
    """The last few messages of one topic, found by their stamps. One thread adds messages, another one finds them.

    Args:
        size: The largest number of messages to keep.
        most_bytes: The largest size of all kept messages together; the newest one is always kept.
        wait_s: How many seconds to wait for a message that has not arrived yet. After a message did not arrive in this
            time, there is no waiting until one has been in time again.
    """

    def __init__(self, size: int = 8, most_bytes: int = 2**28, wait_s: float = 0.2) -> None:
        self._messages: deque[tuple[int, MessageT, int]] = deque(maxlen=size)
        """The stamp of each message, the message, and its size in bytes."""
        self._most_bytes = most_bytes
        self._wait_s = wait_s
        self._patient = True
        self._arrived = threading.Condition()

    def add(self, stamp_ns: int, message: MessageT, size_bytes: int = 0) -> None:
        """Keeps ``message``, which has so many bytes, and drops the oldest ones if the buffer is full."""
        with self._arrived:
            self._messages.append((stamp_ns, message, size_bytes))
            while len(self._messages) > 1 and sum(size for *_, size in self._messages) > self._most_bytes:
                self._messages.popleft()
            self._arrived.notify_all()

    def clear(self) -> None:
        """Drops all messages."""
        with self._arrived:
            self._messages.clear()

    def nearest(self, stamp_ns: int, tolerance_s: float, expected: bool) -> MessageT | None:
        """Returns the message stamped nearest to ``stamp_ns``, at most ``tolerance_s`` away, or ``None``.

        It waits for a message that has not arrived yet, but only if one is ``expected``.
        """
        tolerance_ns = round(tolerance_s * _NANOSECONDS)

        def settled() -> bool:
            newer = any(kept_ns > stamp_ns + tolerance_ns for kept_ns, *_ in self._messages)
            return newer or self._match(stamp_ns, tolerance_s) is not None

        with self._arrived:
            if expected and self._patient:
                self._arrived.wait_for(settled, self._wait_s)
            found = self._match(stamp_ns, tolerance_s)
            self._patient = found is not None
            return found

    def peek(self, stamp_ns: int, tolerance_s: float) -> MessageT | None:
        """Returns what ``nearest`` would return among the messages that have arrived; it never waits."""
        with self._arrived:
            return self._match(stamp_ns, tolerance_s)

    def _match(self, stamp_ns: int, tolerance_s: float) -> MessageT | None:
        best = min(self._messages, key=lambda kept: abs(kept[0] - stamp_ns), default=None)
        return best[1] if best is not None and is_near(best[0], stamp_ns, tolerance_s) else None


def is_near(stamp_ns: int, other_ns: int, tolerance_s: float) -> bool:
    """Returns whether two stamps in nanoseconds are at most ``tolerance_s`` seconds apart."""
    return abs(stamp_ns - other_ns) <= round(tolerance_s * _NANOSECONDS)
