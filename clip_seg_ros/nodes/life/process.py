# SPDX-License-Identifier: Apache-2.0
"""Runs one node as a process: reports in one line why it cannot start, survives errors, and ends without noise."""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import rclpy
from rclpy.exceptions import InvalidHandle, NameValidationException, ParameterException
from rclpy.executors import Executor, ExternalShutdownException, MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Task
from rclpy.utilities import remove_ros_args

from clip_seg_ros import dds
from clip_seg_ros.nodes.common.answering_services import answer_always
from clip_seg_ros.nodes.common.faults import FaultLog
from clip_seg_ros.nodes.common.rclpy_internals import has_begun
from clip_seg_ros.runtime.chosen import EngineWarning
from clip_seg_ros.zoo.caution import EmbeddedWeightsWarning

NodeT = TypeVar("NodeT", bound=Node)

_LONGEST_SLEEP_S = 0.2
"""The longest time until the executor notices a signal."""
_LONGEST_START_S = 0.01
_NAP_S = 2e-5
_LONGEST_INTERRUPT_S = 2.0
"""The time that an interrupted start of the node may take to end."""
_LONGEST_FINISH_S = 20.0
"""The time that ``finish`` may take before the process ends, in case that something hangs."""
_LONGEST_PAUSE_S = 0.1
"""The longest pause between two errors of the executor, because the next one may follow at once."""
# Errors that a user can cause: wrong arguments and parameters, missing files, a missing device.
_USER_ERRORS = (ValueError, OSError, RuntimeError, ParameterException, NameValidationException)


class _Executor(MultiThreadedExecutor):
    """A multi-threaded executor that waits in two cases in which that of rclpy does not.

    rclpy's executor fails if a callback on another thread destroys an entity that it is about to wait for. And until a
    thread has begun a callback, it submits the callback again and again, in a loop that keeps Python's lock from that
    very thread: nine times per message were seen, which delayed the message by milliseconds.
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
                # The node does not list the entity any more, so that waiting again works, unless rclpy has ended.
                if not self.context.ok():
                    raise ExternalShutdownException from None

    def _let_begin(self) -> None:
        """Sleeps until a thread has begun the last callback, but not for long, because all threads may be busy."""
        task, deadline_s = self._handed_over, time.monotonic() + _LONGEST_START_S
        while task is not None and not has_begun(task) and time.monotonic() < deadline_s:
            time.sleep(_NAP_S)


class _Signals:
    """Records SIGINT and SIGTERM, and interrupts the running code as long as ``interrupts`` is true."""

    def __init__(self) -> None:
        self.came, self.interrupts = False, True
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: object) -> None:
        # A terminal sends the signal to all processes, and launch then sends it once more.
        first, self.came = not self.came, True
        if first and self.interrupts:
            # The interrupted code may print errors or go on: neither is of use any more.
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115
            sys.unraisablehook = lambda _: None
            way_out = threading.Timer(_LONGEST_INTERRUPT_S, os._exit, (0,))
            way_out.daemon = True
            way_out.start()
            raise KeyboardInterrupt


def run_node(
    name: str,
    create: Callable[[], NodeT],
    threads: int = 1,
    finish: Callable[[NodeT], None] | None = None,
    about: str = "",
) -> int:
    """Creates the node, spins it until SIGINT or SIGTERM and returns the exit code of the process.

    The exit code is 0 if a signal ends the process, whenever it arrives, and 1 if the node cannot start. "--help"
    prints a description and exits with 0; an argument that is not one of ROS exits with 2. An exception in a callback
    is logged as an error and does not end the process; the caller of a service gets an answer that reports it.

    Args:
        name: Name of the program, for its messages on stderr.
        create: Creates the node. It is called once signals are handled, so slow imports belong in it. Errors that a
            user can cause (``ValueError``, ``OSError``, ``RuntimeError`` and those of rclpy) become one line on stderr.
        threads: Number of threads; with several, callbacks of different groups run in parallel.
        finish: Called after the signal on a thread of its own while callbacks still run; it must not take long.
        about: Description of the node, for "--help".
    """
    _read_arguments(name, about)
    # Nodes give these warnings in their log, in the answers to commands and in their diagnostics.
    for known in (EmbeddedWeightsWarning, EngineWarning):
        warnings.simplefilter("ignore", known)
    dds.free_read_messages(os.environ)
    signals, node, executor = _Signals(), None, None
    try:
        # rclpy's own handlers would first end its context, so that waiting callers would get no answer.
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        node = create()
        signals.interrupts = False
        if not signals.came:
            executor = SingleThreadedExecutor() if threads == 1 else _Executor(threads)
            executor.add_node(node)
            _spin(node, executor, signals, finish)
    except _USER_ERRORS as error:
        if node is not None:
            raise
        if not signals.came:
            return _fail(name, error)
    except BaseException:
        # Libraries convert the interrupt into errors of their own.
        if not signals.came:
            raise
    finally:
        signals.interrupts = False
        rclpy.try_shutdown()
        if node is not None:
            node.destroy_node()
    # What the node was made of goes before the process ends, or else Fast DDS leaves its shared memory behind.
    node = executor = None
    gc.collect()
    _leave_threads()
    return 0


def _read_arguments(name: str, about: str) -> None:
    """Ends the process for "--help" and for arguments that ROS does not know, which rclpy silently ignores."""
    parser = argparse.ArgumentParser(
        name,
        "%(prog)s [--help] [--ros-args [-p NAME:=VALUE] [--params-file FILE] [-r FROM:=TO] ...]",
        " ".join(about.replace("``", "").split()),
        f'Parameters, topics and services: docs/nodes.md, or "ros2 param list" while the node runs. For example:'
        f" {name} --ros-args -p NAME:=VALUE -r __ns:=/my_robot",
        allow_abbrev=False,
    )
    if "--help" in sys.argv:
        parser.parse_args(["--help"])  # behind --ros-args, too
    try:
        words = remove_ros_args(sys.argv)[1:]
    except RuntimeError as error:  # its message names the arguments, some without a reason
        parser.error(f"ROS does not understand its arguments: {error}")
    _, unknown = parser.parse_known_args(words)
    if unknown:
        parser.error(f"unknown argument {unknown[0]}: parameters and remappings follow --ros-args")


def _spin(node: NodeT, executor: Executor, signals: _Signals, finish: Callable[[NodeT], None] | None) -> None:
    """Spins until a signal has arrived and ``finish`` has returned."""
    faults = FaultLog(node.get_logger().error)
    answer_always(node, faults)
    finisher, failed = None, 0
    while rclpy.ok():
        if signals.came and finisher is None:
            if finish is None:
                return
            finisher = threading.Thread(target=finish, args=(node,), name="finish", daemon=True)
            finisher.start()
            deadline_s = time.monotonic() + _LONGEST_FINISH_S
        if finisher is not None and (not finisher.is_alive() or time.monotonic() > deadline_s):
            return
        try:
            executor.spin_once(_LONGEST_SLEEP_S if finisher is None else _LONGEST_SLEEP_S / 10)
        except ExternalShutdownException:
            return
        except Exception as error:  # whatever it is, the next callback must run
            if signals.came:
                continue  # destroyed entities may still be in use for a moment
            failed += 1
            faults.report("callback", repr(error), f"failed: {type(error).__name__}: {error}")
            node.get_logger().debug("".join(traceback.format_exception(error)))
            time.sleep(min(_LONGEST_PAUSE_S, 1e-3 * failed))
        else:
            failed = 0


def _leave_threads() -> None:
    """Ends the process at once if other threads are left, because one may be computing an answer that takes long.

    Python would wait for that thread, or stop it by force inside C++ code, which then aborts.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if threading.active_count() > 1:
        os._exit(0)


def _fail(name: str, error: Exception) -> int:
    print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return 1
