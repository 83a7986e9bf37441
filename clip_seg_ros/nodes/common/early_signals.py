# SPDX-License-Identifier: Apache-2.0
"""Makes signals end a program quietly from its first moment, while it is still importing modules.

A program calls ``end_quietly`` before any other import: until ``run_node`` takes over, there is nothing to clean up.
Without it, Python would raise KeyboardInterrupt in the middle of an import. The installed programs start with the
signals blocked, so that a signal that arrives while Python itself starts is handled here.
"""

from __future__ import annotations

import os
import signal


def end_quietly() -> None:
    """Makes SIGINT and SIGTERM end the process at once with exit code 0, including one that is already pending."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        signal.signal(number, lambda *_: os._exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
