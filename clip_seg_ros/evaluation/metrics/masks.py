# SPDX-License-Identifier: Apache-2.0
"""Figures of merit for masks."""

from __future__ import annotations

import numpy as np

ANSWERED_SHARE = 0.005
"""A phrase counts as answered when its mask covers more than this share of the picture."""


def mask_iou(predicted: np.ndarray, true: np.ndarray) -> float:
    """Intersection over union of two bool masks, 0..1; NaN when both are empty, for there is nothing to find.

    Raises:
        ValueError: The shapes differ.
    """
    if predicted.shape != true.shape:
        raise ValueError(f"masks of different shapes: {predicted.shape} and {true.shape}")
    union = np.count_nonzero(predicted | true)
    return np.count_nonzero(predicted & true) / union if union else float("nan")
