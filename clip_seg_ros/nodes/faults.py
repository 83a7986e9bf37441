"""Says what is wrong once, not once a frame."""

from __future__ import annotations

import threading
from collections.abc import Callable


class FaultLog:
    """Logs a fault when it appears, and again only after it has cleared and come back. Safe to use from any thread."""

    def __init__(self, log: Callable[[str], object]) -> None:
        self._log = log
        self._standing: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()

    def report(self, source: str, fault: str, message: str) -> None:
        """Notes that ``source`` shows ``fault``; logs ``message`` if it did not already."""
        with self._lock:
            if (source, fault) in self._standing:
                return
            self._standing[source, fault] = f"{source}: {message}"
        self._log(f"{source}: {message}")

    def clear(self, source: str) -> None:
        """Notes that ``source`` works again."""
        with self._lock:
            self._standing = {key: message for key, message in self._standing.items() if key[0] != source}

    def standing(self) -> list[str]:
        """The messages of all faults that have not cleared."""
        with self._lock:
            return list(self._standing.values())
