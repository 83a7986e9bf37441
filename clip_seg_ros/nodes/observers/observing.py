# SPDX-License-Identifier: Apache-2.0
"""Processes that observe the nodes for ``clip-seg`` and report to it in lines of JSON."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions


@contextmanager
def observing(create: Callable[[], Node]) -> Iterator[tuple[Any, Callable[[Any], None]]]:
    """Spins a node on a thread of its own until the block is left; SIGINT leaves the block quietly.

    Args:
        create: Makes the node, after rclpy was initialized.

    Yields:
        The node, and a function that writes a value as one line of JSON.
    """
    # Fast DDS writes warnings to the standard output: reports get a copy of it, everything else goes to stderr.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # With Python's own handlers, a signal interrupts the main thread wherever it waits.
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = create()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    spinner = threading.Thread(target=executor.spin, daemon=True)
    spinner.start()
    try:
        yield node, lambda value: print(json.dumps(value), file=answers, flush=True)
    except KeyboardInterrupt:
        pass
    finally:
        # The order matters: a participant that is not destroyed leaves its shared memory behind.
        executor.shutdown()
        spinner.join()
        node.destroy_node()
        rclpy.try_shutdown()
