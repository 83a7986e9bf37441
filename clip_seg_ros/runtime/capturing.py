# SPDX-License-Identifier: Apache-2.0
"""Keeps the memory of a GPU untouched while work on it is being captured. Nothing here needs torch."""

from __future__ import annotations

import threading

CAPTURING = threading.Lock()
"""Held while a CUDA graph is captured: memory of the GPU that was freed must not be returned meanwhile."""
