# SPDX-License-Identifier: Apache-2.0
"""A worker thread with one slot for each source: it works on the newest item of each, and drops the older ones."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")

_LOG = logging.getLogger(__name__)


class LatestWorker(Generic[ItemT]):
    """Does slow work on a thread of its own, apart from the threads that deliver its items.

    While one item is worked on, at most one item of each source waits; a newer one takes its place. Sources take turns:
    the source that was served longest ago is next. If the work raises, ``on_error`` is called and the thread lives on.

    Args:
        work: Called with one item at a time, on the worker's thread.
        on_error: Called with the exception that ``work`` raised, on the worker's thread.

    Examples:
        >>> seen = []
        >>> worker = LatestWorker(seen.append, on_error=print)
        >>> worker.put("frame")
        False
        >>> worker.close()
        True
    """

    def __init__(self, work: Callable[[ItemT], None], on_error: Callable[[Exception], None]) -> None:
        self._work = work
        self._on_error = on_error
        self._changed = threading.Condition()
        self._waiting: dict[Hashable, ItemT] = {}
        self._served: dict[Hashable, int] = {}
        self._turn = 0
        self._dropped = 0
        self._closed = False
        # A daemon, so that work which never returns cannot keep the process alive.
        self._thread = threading.Thread(target=self._run, name="latest_worker", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """The number of items that were put and will never be worked on."""
        return self._dropped

    def put(self, item: ItemT, source: Hashable = None) -> bool:
        """Hands over an item of a source and returns at once; after ``close`` the item is ignored.

        Returns:
            Whether the item replaced an older one of the same source.
        """
        with self._changed:
            if self._closed:
                return False
            replaced = source in self._waiting
            self._dropped += replaced
            self._waiting[source] = item
            self._changed.notify()
            return replaced

    def take(self, most: int) -> list[ItemT]:
        """Takes waiting items of up to ``most`` sources, in their turn, to be worked on with the present one.

        It is for ``work``, which is called with one item.
        """
        with self._changed:
            return [self._pop() for _ in range(min(most, len(self._waiting)))]

    def close(self, timeout_s: float = 2.0) -> bool:
        """Drops the waiting items and ends the thread.

        It is safe to call again, from any thread and from ``work``.

        Returns:
            Whether the thread has ended. It has not if the work in progress takes longer than ``timeout_s``, or calls
            this itself; the thread then ends after this work.
        """
        with self._changed:
            self._closed = True
            self._dropped += len(self._waiting)
            self._waiting = {}
            self._changed.notify()
        if threading.current_thread() is self._thread:
            return False
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _next(self) -> list[ItemT]:
        """Waits for an item; returns it in a list, or an empty list once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting)
            return [self._pop()] if self._waiting else []

    def _pop(self) -> ItemT:
        source = min(self._waiting, key=lambda waiting: self._served.get(waiting, 0))
        self._turn += 1
        self._served[source] = self._turn
        return self._waiting.pop(source)

    def _run(self) -> None:
        while taken := self._next():
            try:
                self._work(taken[0])
            except Exception as error:  # whatever it is, the next frame deserves its chance
                self._report(error)
            # An item holds images, so it is released before the wait for the next one.
            del taken

    def _report(self, error: Exception) -> None:
        try:
            self._on_error(error)
        except Exception:
            _LOG.exception("on_error failed while it reported %r", error)
