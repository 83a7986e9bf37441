# SPDX-License-Identifier: Apache-2.0
"""A second stage of work, which runs beside the first stage of the next item."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_LOG = logging.getLogger(__name__)


class SecondStage:
    """Does the second half of the work on each item on a thread of its own, one after the other.

    Nothing queues up: whoever hands over work waits until the work before it has begun and ended. The thread is started
    when it is first needed, and ends with ``close``.

    Args:
        on_error: Called with the exception that work raised, on the thread that did it.

    Examples:
        >>> stage, seen = SecondStage(on_error=print), []
        >>> stage.do(lambda: seen.append("objects"), beside=True)
        >>> stage.close()
        True
        >>> seen
        ['objects']
    """

    def __init__(self, on_error: Callable[[Exception], None]) -> None:
        self._on_error = on_error
        self._changed = threading.Condition()
        self._work: Callable[[], None] | None = None
        self._busy = self._closed = False
        self._thread: threading.Thread | None = None

    def do(self, work: Callable[[], None], beside: bool) -> None:
        """Does ``work`` after all that was handed over before.

        Args:
            work: The work.
            beside: Whether it may be done on the other thread while the caller goes on. Otherwise it is done when this
                returns.
        """
        self.wait()
        if not beside:
            self._try(work)
            return
        with self._changed:
            if self._closed:
                return
            if self._thread is None:
                # A daemon, so that work which never returns cannot keep the process alive.
                self._thread = threading.Thread(target=self._run, name="second_stage", daemon=True)
                self._thread.start()
            self._work, self._busy = work, True
            self._changed.notify_all()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Waits until all work is done; returns whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._busy, timeout_s)

    def close(self, timeout_s: float = 2.0) -> bool:
        """Ends the thread after the work in progress; returns whether it has ended within ``timeout_s``."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return thread is None
        thread.join(timeout_s)
        return not thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._busy or self._closed)
                work, self._work = self._work, None
                if work is None:
                    return
            self._try(work)
            # It may hold images, so it is released before the wait for the next one.
            del work
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _try(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # whatever it is, the next item deserves its chance
            try:
                self._on_error(error)
            except Exception:
                _LOG.exception("on_error failed while it reported %r", error)
