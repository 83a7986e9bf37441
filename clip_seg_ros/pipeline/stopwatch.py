# SPDX-License-Identifier: Apache-2.0
"""Counts the time that each thread spends in some methods of an object."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol


class Stopwatch(threading.local):
    """The time that was counted so far, separately for each thread."""

    seconds = 0.0


class Timed(Protocol):
    """An object whose methods are timed."""

    stopwatch: Stopwatch


def timed(step: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the time that a method takes to the stopwatch of its object."""

    @functools.wraps(step)
    def counted(self: Timed, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return step(self, *args, **kwargs)
        finally:
            self.stopwatch.seconds += time.perf_counter() - start

    return counted
