# SPDX-License-Identifier: Apache-2.0
"""Masks as COCO's run lengths, plain and compressed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """Returns a mask (H, W) bool as a segmentation: run lengths, column by column, that begin with one outside."""
    flat = mask.T.ravel()
    turns = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *turns, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def compress(runs: Sequence[int]) -> str:
    """Returns COCO's string of run lengths, written out bit by bit."""
    text = ""
    for place, run in enumerate(runs):
        value = run - runs[place - 2] if place > 2 else run
        more = True
        while more:
            bits, value = value & 31, value >> 5
            more = value != -1 if bits & 16 else value != 0
            text += chr(48 + bits + 32 * more)
    return text
