# SPDX-License-Identifier: Apache-2.0
"""A slot a source and a thread: work on each source's newest item only, drop what it replaces."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")

_LOG = logging.getLogger(__name__)


class LatestWorker(Generic[ItemT]):
    """Runs slow work away from the threads that deliver its items.

    While one item is worked on, at most one of each source waits; a newer one takes its place. Sources take turns: the
    one that was served longest ago is next. An exception in the work goes to ``on_error`` and the thread lives on.

    Args:
        work: Called with one item at a time, on the worker's thread.
        on_error: Called with the exception that ``work`` raised, on the worker's thread.

    Examples:
        >>> seen = []
        >>> worker = LatestWorker(seen.append, on_error=print)
        >>> worker.put("frame")
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
        """Items that were put and will never be worked on."""
        return self._dropped

    def put(self, item: ItemT, source: Hashable = None) -> bool:
        """Hands over an item of a source and returns at once; ignored after ``close``.

        Returns:
            Whether an older item of the source was dropped for it.
        """
        with self._changed:
            if self._closed:
                return False
            replaced = source in self._waiting
            self._dropped += replaced
            self._waiting[source] = item
            self._changed.notify()
            return replaced

    def close(self, timeout_s: float = 2.0) -> bool:
        """Drops what waits and ends the thread; safe to call again, from any thread and from ``work``.

        Returns:
            False when the work in progress did not end within ``timeout_s``; the thread then ends after it.
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
            if not self._waiting:
                return []
            source = min(self._waiting, key=lambda waiting: self._served.get(waiting, 0))
            self._turn += 1
            self._served[source] = self._turn
            return [self._waiting.pop(source)]

    def _run(self) -> None:
        while taken := self._next():
            try:
                self._work(taken[0])
            except Exception as error:  # whatever it is, the next frame deserves its chance
                self._report(error)
            # An item holds images: let go of it before the wait for the next one.
            del taken

    def _report(self, error: Exception) -> None:
        try:
            self._on_error(error)
        except Exception:
            _LOG.exception("on_error failed while it reported %r", error)
