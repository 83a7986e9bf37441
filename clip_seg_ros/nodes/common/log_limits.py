# SPDX-License-Identifier: Apache-2.0
"""Limits on the lines that a node logs, so that nobody can fill a disk by sending it messages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import qos_policy_name_from_kind
from rclpy.subscription import Subscription

from clip_seg_ros.nodes.common.rclpy_internals import (
    CallbacksT,
    PublisherEventCallbacks,
    RcutilsLogger,
    SubscriptionEventCallbacks,
    misfit_callbacks,
)

WINDOW_S = 60.0
MAX_LINE = 500
"""The largest number of characters in one line of the log, because a quoted message may be a megabyte long."""
LINES_A_MINUTE = 60
"""The number of lines of one severity that a node may log in a minute, including faults and responses to commands."""


def one_line(text: str, limit: int = MAX_LINE) -> str:
    """Returns ``text`` cut to ``limit`` characters, with escapes such as ``\\x1b`` for unprintable characters.

    Quoted text comes from others, who must be able neither to forge lines of the log nor to control a terminal.
    """
    if len(text) > limit:
        text = f"{text[:limit]} ... ({len(text)} characters)"
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


@dataclass
class _Window:
    """The number of lines that one source has logged since ``began_s``."""

    began_s: float
    lines: int = 0
    held_back: int = 0


class LineCeiling:
    """Limits the lines that each source logs in a minute, and counts the rest. It is safe to use from any thread.

    Args:
        most: The number of lines that a source may log in a minute.
        clock: Monotonic time in seconds.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._windows: dict[str, _Window] = {}
        self._lock = threading.Lock()

    def admits(self, source: str) -> bool:
        """Returns whether ``source`` may log a line now, and counts the line.

        Call ``overdue`` first, because it ends the windows whose minute is over.
        """
        now_s = self._clock()
        with self._lock:
            window = self._windows.setdefault(source, _Window(now_s))
            if window.lines < self._most:
                window.lines += 1
                return True
            window.held_back += 1
            return False

    def overdue(self) -> dict[str, int]:
        """Ends the windows whose minute is over; returns how many lines of each source were held back in them."""
        now_s = self._clock()
        with self._lock:
            ended = {source: each for source, each in self._windows.items() if now_s - each.began_s >= WINDOW_S}
            for source in ended:
                del self._windows[source]
        return {source: window.held_back for source, window in ended.items() if window.held_back}


class BoundedLogger:
    """Wraps a logger of rclpy: it logs at most ``LINES_A_MINUTE`` of each severity, then how many more there were.

    Debug lines are not limited, because a user who switches them on needs all of them.
    """

    def __init__(self, logger: RcutilsLogger, ceiling: LineCeiling | None = None) -> None:
        self._logger = logger
        self._ceiling = LineCeiling(LINES_A_MINUTE) if ceiling is None else ceiling
        # rclpy requires that each place in the code always logs with the same severity.
        self._severities: dict[str, Callable[[str], object]] = {
            "info": lambda line: logger.info(line),
            "warning": lambda line: logger.warning(line),
            "error": lambda line: logger.error(line),
            "fatal": lambda line: logger.fatal(line),
        }

    def __getattr__(self, name: str) -> Any:
        return getattr(self._logger, name)

    def get_child(self, name: str) -> BoundedLogger:
        """Returns a child of this logger, which shares its limit."""
        return BoundedLogger(self._logger.get_child(name), self._ceiling)

    def info(self, message: str) -> None:
        """Logs a normal event."""
        self._log("info", message)

    def warning(self, message: str) -> None:
        """Logs a problem that the node can handle."""
        self._log("warning", message)

    warn = warning

    def error(self, message: str) -> None:
        """Logs a failure."""
        self._log("error", message)

    def fatal(self, message: str) -> None:
        """Logs a failure that ends the node."""
        self._log("fatal", message)

    def catch_up(self) -> None:
        """Logs how many lines were held back, once their minute is over; it should be called now and then."""
        for severity, count in self._ceiling.overdue().items():
            self._severities[severity](f"and {count} more lines of this severity in the last minute")

    def _log(self, severity: str, message: str) -> None:
        self.catch_up()
        if self._ceiling.admits(severity):
            self._severities[severity](one_line(message, 4 * MAX_LINE))


class BoundedLogs(Node):
    """A base class of nodes whose log is limited, including what rclpy itself logs of endpoints that do not fit.

    Libraries in C and C++ that write to the standard error by themselves, such as OpenCV and Fast DDS, are not limited.
    It must come before the other base classes of a node.
    """

    _bounded_logger: BoundedLogger | None = None

    def get_logger(self) -> BoundedLogger:
        """Returns the node's limited logger."""
        # It is not made in a constructor, because the constructor of rclpy's node already needs it.
        if self._bounded_logger is None:
            self._bounded_logger = BoundedLogger(super().get_logger())
        return self._bounded_logger

    def create_publisher(self, msg_type: type, topic: str, *args: Any, **kwargs: Any) -> Publisher:
        """Creates a publisher as rclpy does; the warnings about subscriptions that do not fit are limited, too."""
        made = self._misfits_told(PublisherEventCallbacks, "subscription", "requests", topic)
        return super().create_publisher(msg_type, topic, *args, **{"event_callbacks": made, **kwargs})

    def create_subscription(self, msg_type: type, topic: str, *args: Any, **kwargs: Any) -> Subscription:
        """Creates a subscription as rclpy does; the warnings about publishers that do not fit are limited, too."""
        made = self._misfits_told(SubscriptionEventCallbacks, "publisher", "offers", topic)
        return super().create_subscription(msg_type, topic, *args, **{"event_callbacks": made, **kwargs})

    def _misfits_told(self, kind: type[CallbacksT], who: str, does: str, topic: str) -> CallbacksT:
        """Makes callbacks that replace rclpy's own ones, which would log a line for every such endpoint."""

        def tell_quality(event: Any) -> None:
            policy = qos_policy_name_from_kind(event.last_policy_kind)
            self.get_logger().warning(
                f"a {who} on topic {topic} {does} an incompatible quality of service ({policy}): no messages pass"
            )

        def tell_type(event: Any) -> None:
            self.get_logger().warning(f"a {who} on topic {topic} has messages of another type: no messages pass")

        return misfit_callbacks(kind, tell_quality, tell_type)
