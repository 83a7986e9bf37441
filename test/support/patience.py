# SPDX-License-Identifier: Apache-2.0
"""Waits for what happens in other threads and programs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def until(condition: Callable[[], Any], what: str, patience_s: float = 60.0) -> Any:
    """Waits until ``condition`` holds, and returns what it returned.

    Args:
        condition: Asked again and again.
        what: Is waited for, for whoever reads that it did not come.
        patience_s: For so long.
    """
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {patience_s:g} s in vain: {what}")
