# SPDX-License-Identifier: Apache-2.0
"""Metrics of masks."""

from __future__ import annotations

import numpy as np

ANSWERED_SHARE = 0.005
"""A phrase counts as answered if its predicted mask covers more than this share of the image."""


def mask_iou(predicted: np.ndarray, true: np.ndarray) -> float:
    """Returns the intersection over union of two bool masks, 0..1; NaN if both are empty.

    Raises:
        ValueError: The shapes differ.
    """
    if predicted.shape != true.shape:
        raise ValueError(f"masks of different shapes: {predicted.shape} and {true.shape}")
    union = np.count_nonzero(predicted | true)
    return np.count_nonzero(predicted & true) / union if union else float("nan")


def require_masks(predicted: np.ndarray, true: np.ndarray) -> None:
    """Raises ValueError unless both are bool masks of one shape."""
    if predicted.shape != true.shape or predicted.dtype != np.bool_ or true.dtype != np.bool_:
        raise ValueError(
            "masks must be bool and of one shape, "
            f"got {predicted.shape} {predicted.dtype} and {true.shape} {true.dtype}"
        )
