# SPDX-License-Identifier: Apache-2.0
"""Logs a fault once, instead of once for each image, and bounds the log even if messages are hostile."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from clip_seg_ros.nodes.common.log_limits import LineCeiling, one_line

MAX_LINES = 10
"""The number of lines that one source may log in a minute; one more line says how many were held back."""
MAX_FAULTS = 16
"""The number of different faults of one source that are remembered and listed; further ones are only counted."""
MAX_KEY = 100
"""The number of characters by which two faults are told apart."""
FIRST_REST_S = 2.0
"""Time in seconds that a fault must have been gone to be logged again. It doubles each time, so that a fault that comes
and goes all day is logged only a few times."""
LONGEST_REST_S = 600.0
"""The longest such time in seconds."""


@dataclass
class _Fault:
    """One fault of a source."""

    message: str
    rest_s: float = FIRST_REST_S
    """Time in seconds that the fault must have been gone to be logged again."""
    cleared_s: float | None = None
    """When the fault first cleared since its last report; ``None`` as long as it stands."""


class _Source:
    """The faults of one source."""

    def __init__(self) -> None:
        self.faults: OrderedDict[str, _Fault] = OrderedDict()
        """The faults by their keys; the one that was reported last is at the end."""
        self.unlisted = 0
        """The known number of faults that still stand, but had to make room for others."""

    def note(self, key: str, message: str, now_s: float) -> bool:
        """Notes a report; returns whether it is worth a line in the log."""
        fault = self.faults.pop(key, None)
        if fault is None:
            fault, is_news = _Fault(message), True
            while len(self.faults) >= MAX_FAULTS:
                self._make_room()
        else:
            gone_s = 0.0 if fault.cleared_s is None else now_s - fault.cleared_s
            is_news = gone_s >= fault.rest_s
            if is_news:
                rest_s = FIRST_REST_S if gone_s >= LONGEST_REST_S else 2 * fault.rest_s
                fault.rest_s = min(rest_s, LONGEST_REST_S)
            fault.message, fault.cleared_s = message, None
        self.faults[key] = fault
        return is_news

    def clear(self, now_s: float) -> None:
        for fault in self.faults.values():
            if fault.cleared_s is None:
                fault.cleared_s = now_s
        self.unlisted = 0

    def _make_room(self) -> None:
        _, oldest = self.faults.popitem(last=False)
        self.unlisted += oldest.cleared_s is None


class FaultLog:
    """Logs a fault when it appears, and again only after it was gone for a while. It is safe to use from any thread.

    A source logs at most ``MAX_LINES`` lines in a minute; a line at the end of the minute says how many more there
    were. Memory is bounded whatever is reported, as long as sources are the program's own names.

    Args:
        log: Called with each line.
        clock: Monotonic time in seconds.
    """

    def __init__(self, log: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._log, self._clock = log, clock
        self._sources: dict[str, _Source] = {}
        self._ceiling = LineCeiling(MAX_LINES, clock)
        self._lock = threading.Lock()

    def report(self, source: str, fault: str, message: str, always: bool = False) -> None:
        """Notes that ``source`` shows ``fault`` and logs ``message`` where that is news.

        Args:
            source: The part that shows the fault; it must be one of the program's own names.
            fault: The kind of the fault; messages of the same kind are one fault.
            message: What is wrong and what to do about it.
            always: Whether to log the message each time, for example because a user requested what failed.
        """
        line = one_line(f"{source}: {message}")
        with self._lock:
            is_news = self._sources.setdefault(source, _Source()).note(fault[:MAX_KEY], line, self._clock())
        self._catch_up()
        if (is_news or always) and self._ceiling.admits(source):
            self._log(line)

    def clear(self, source: str) -> None:
        """Notes that ``source`` works again."""
        with self._lock:
            if source in self._sources:
                self._sources[source].clear(self._clock())

    def standing(self) -> list[str]:
        """Returns the messages of all faults that have not cleared, at most ``MAX_FAULTS`` of a source.

        It also logs how many lines were held back, so that it should be called now and then.
        """
        self._catch_up()
        lines = []
        with self._lock:
            for name, source in self._sources.items():
                lines += [fault.message for fault in source.faults.values() if fault.cleared_s is None]
                if source.unlisted:
                    lines.append(f"{name}: and {source.unlisted} more faults")
        return lines

    def _catch_up(self) -> None:
        for source, count in self._ceiling.overdue().items():
            self._log(f"{source}: and {count} more faults in the last minute")
