# SPDX-License-Identifier: Apache-2.0
"""Which images of a source are kept: near-duplicates of the image before are left out."""

from __future__ import annotations

import cv2
import numpy as np

from clip_seg_ros.annotation.job import Selection

_SMALL = (32, 24)
"""(width, height) of the small grey copies that are compared."""


class Chooser:
    """Chooses among the images of a source, one after the other.

    Args:
        selection: What is asked for; ``every`` is left to the reader, who need not decode what is not wanted.
    """

    def __init__(self, selection: Selection) -> None:
        self._least_change = selection.least_change
        self._kept: np.ndarray | None = None

    def takes(self, rgb: np.ndarray) -> bool:
        """Returns whether the next image is kept: it differs enough from the last one that was.

        Args:
            rgb: (H, W, 3) uint8.
        """
        if self._least_change <= 0.0:
            return True
        small = cv2.resize(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), _SMALL, interpolation=cv2.INTER_AREA)
        if self._kept is not None and difference(small, self._kept) < self._least_change:
            return False
        self._kept = small
        return True


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the mean difference of two grey images of one size, uint8, as a share of white, 0..1."""
    return float(cv2.absdiff(one, other).mean()) / 255.0
