# SPDX-License-Identifier: Apache-2.0
"""Counts the time that the methods of an object take, separately for each thread."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import Any


class Stopwatch(threading.local):
    """The time that was counted so far, in the calling thread."""

    seconds = 0.0


def timed(step: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the time that a method takes to the ``stopwatch`` of its object."""

    @functools.wraps(step)
    def stopped(self: Any, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return step(self, *args, **kwargs)
        finally:
            self.stopwatch.seconds += time.perf_counter() - start

    return stopped
