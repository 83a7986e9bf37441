"""Runs one node as a process that starts, or says in one line why not, and that ends quietly."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.exceptions import InvalidHandle, NameValidationException, ParameterException
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Task

from clip_seg_ros.models.caution import EmbeddedWeightsWarning
from clip_seg_ros.nodes.rclpy_internals import has_begun

_LONGEST_SLEEP_S = 0.5
_LONGEST_START_S = 0.01
_NAP_S = 2e-5
# What a user can bring about: wrong arguments and parameters, missing files, a device that is not there.
_USER_ERRORS = (ValueError, OSError, RuntimeError, ParameterException, NameValidationException)


class _Executor(MultiThreadedExecutor):
    """Waits where rclpy gives up or does not wait at all.

    It gives up where a callback on another thread destroys what it was about to wait for. And until the thread that a
    callback was handed to has begun it, rclpy hands it over again and again, in a loop that keeps Python's lock from
    that very thread: nine times a message, while it got milliseconds older.
    """

    _handed_over: Task | None = None

    def wait_for_ready_callbacks(self, *args: Any, **kwargs: Any) -> tuple[Task, Any, Node]:
        self._let_begin()
        while True:
            try:
                ready = super().wait_for_ready_callbacks(*args, **kwargs)
                self._handed_over = ready[0]
                return ready
            except InvalidHandle:
                # By now the node does not list it any more; but what the end of rclpy destroyed never comes back.
                if not self.context.ok():
                    raise ExternalShutdownException from None

    def _let_begin(self) -> None:
        """Sleeps until a thread has begun the last callback, but not for long: all of them may be at work."""
        task, deadline_s = self._handed_over, time.monotonic() + _LONGEST_START_S
        while task is not None and not has_begun(task) and time.monotonic() < deadline_s:
            time.sleep(_NAP_S)


def run_node(name: str, create: Callable[[], Node], threads: int = 1) -> int:
    """Creates the node, spins it until SIGINT or SIGTERM and returns the exit code of the process.

    With several ``threads``, callbacks of different groups run beside each other.

    ``create`` is called once rclpy handles signals, so that what is slow to import belongs into it. What it raises for
    the user's mistakes (``ValueError``, ``OSError``, ``RuntimeError`` and rclpy's own) becomes one line on stderr.
    """
    # Nodes say it in their log, and in the answers to commands.
    warnings.simplefilter("ignore", EmbeddedWeightsWarning)
    node, spinning = None, False

    def interrupt(number: int, frame: object) -> None:
        # While the executor spins, rclpy ends it; an exception at any place could leave a thread that is never joined.
        if not spinning:
            raise KeyboardInterrupt

    # rclpy calls the handlers that it finds after its own: both signals then interrupt what is slow to start, too.
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        rclpy.init()
    except RuntimeError as error:
        return _fail(name, error)
    try:
        try:
            node = create()
        except _USER_ERRORS as error:
            # Once a signal has shut rclpy down, everything that is still being created fails.
            return _fail(name, error) if rclpy.ok() else 0
        executor = SingleThreadedExecutor() if threads == 1 else _Executor(threads)
        executor.add_node(node)
        spinning = True
        # Not spin(): a signal wakes it before rclpy has shut down, and a node without timers would sleep on for ever.
        while rclpy.ok():
            executor.spin_once(_LONGEST_SLEEP_S)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RuntimeError:
        # Once a signal has shut rclpy down, the callbacks that were still under way fail.
        if rclpy.ok():
            raise
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    _leave_threads()
    return 0


def _leave_threads() -> None:
    """Ends the process here and now if a thread is still at work, such as on an answer that takes long.

    Python would end by force what that thread does in C++, which then aborts.
    """
    if any(thread.daemon for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _fail(name: str, error: Exception) -> int:
    print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return 1
