"""A one-slot queue and a thread: work on the newest item only, drop what it replaces."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")

_LOG = logging.getLogger(__name__)


class LatestWorker(Generic[ItemT]):
    """Runs slow work away from the threads that deliver its items.

    While one item is worked on, at most one waits; a newer one takes its place. An exception in the work goes to
    ``on_error`` and the thread lives on.

    Args:
        work: Called with one item at a time, on the worker's thread.
        on_error: Called with the exception that ``work`` raised, on the worker's thread.

    Example:
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
        self._waiting: list[ItemT] = []  # empty or one item; a list because None is an item too
        self._dropped = 0
        self._closed = False
        # A daemon, so that work which never returns cannot keep the process alive.
        self._thread = threading.Thread(target=self._run, name="latest_worker", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Items that were put and will never be worked on."""
        return self._dropped

    def put(self, item: ItemT) -> None:
        """Hands over an item and returns at once; ignored after ``close``."""
        with self._changed:
            if self._closed:
                return
            self._dropped += len(self._waiting)
            self._waiting = [item]
            self._changed.notify()

    def close(self, timeout_s: float = 2.0) -> bool:
        """Drops the waiting item and ends the thread; safe to call again, from any thread and from ``work``.

        Returns:
            False when the work in progress did not end within ``timeout_s``; the thread then ends after it.
        """
        with self._changed:
            self._closed = True
            self._dropped += len(self._waiting)
            self._waiting = []
            self._changed.notify()
        if threading.current_thread() is self._thread:
            return False
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _next(self) -> list[ItemT]:
        """Waits for an item; returns it in a list, or an empty list once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting)
            taken, self._waiting = self._waiting, []
            return taken

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
