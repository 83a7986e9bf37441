# SPDX-License-Identifier: Apache-2.0
"""What a node's program does in its first moment, before it imports anything else."""

from __future__ import annotations

import os
import signal

from clip_seg_ros.pipeline.memory import set_up_heap


def begin() -> None:
    """Prepares the process of a node, before imports start threads and take seconds."""
    # Libraries start threads when they are imported, and each of those would have a heap of its own.
    set_up_heap()
    _end_quietly()


def _end_quietly() -> None:
    """Makes SIGINT and SIGTERM end the process at once with exit code 0, including one that is already pending.

    Until ``run_node`` takes over, there is nothing to clean up, and Python would raise KeyboardInterrupt in the middle
    of an import. The installed programs start with the signals blocked, so that a signal that arrives while Python
    itself starts is handled here.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        signal.signal(number, lambda *_: os._exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
