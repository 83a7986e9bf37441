# SPDX-License-Identifier: Apache-2.0
"""Lets signals end a program quietly from its first moment, while it still imports what it needs.

A program calls ``end_quietly`` before any other import: until ``run_node`` knows better, there is nothing to clean up.
Without it, Python would raise KeyboardInterrupt in the middle of whatever is being imported. The installed programs
start with the signals blocked, so that one which comes while Python itself starts waits until then.
"""

from __future__ import annotations

import os
import signal


def end_quietly() -> None:
    """Makes SIGINT and SIGTERM end the process at once, with exit code 0, from now on or because one waits already."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        signal.signal(number, lambda *_: os._exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
