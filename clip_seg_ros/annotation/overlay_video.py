# SPDX-License-Identifier: Apache-2.0
"""Writes pictures with their times as a video that plays at their speed."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from clip_seg_ros.data.samples import DataError

_LOOKED_AT = 12
"""The number of pictures whose times decide the rate of the video."""
_USUAL_RATE_HZ = 10.0
_RATES_HZ = (1.0, 60.0)
_LONGEST_PAUSE_S = 5.0
"""A longer pause between two pictures is shown as one of this length."""


class OverlayVideo:
    """A video file (MPEG-4 in an .mp4) that is there, whole, when it is closed.

    Videos have one rate, and cameras do not: each picture is shown from its own time to that of the next one.

    Args:
        path: The file; one that is there is replaced at the end.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._beside = path.with_name(f".{path.stem}.part{path.suffix}")
        self._first: list[tuple[int, np.ndarray]] = []
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._rate_hz = _USUAL_RATE_HZ
        self._shown: tuple[int, np.ndarray] | None = None
        self._due = 0.0
        self._written = 0

    def add(self, rgb: np.ndarray, stamp_ns: int) -> None:
        """Adds a picture, (H, W, 3) uint8 RGB; those of another size than the first one are fitted into it.

        Raises:
            DataError: Videos cannot be written here.
        """
        if self._writer is not None:
            self._show(rgb, stamp_ns)
            return
        self._first.append((stamp_ns, rgb))
        if len(self._first) == _LOOKED_AT:
            self._begin()

    def close(self) -> Path | None:
        """Ends the video; returns its path, ``None`` if it has no picture. Raises DataError as ``add`` does."""
        if self._writer is None and self._first:
            self._begin()
        if self._writer is None:
            return None
        self._hold(1)
        self._writer.release()
        self._writer = None
        os.replace(self._beside, self._path)
        return self._path

    def _begin(self) -> None:
        gaps_s = np.diff([stamp_ns for stamp_ns, _ in self._first]) / 1e9
        gaps_s = gaps_s[gaps_s > 0]
        rate_hz = 1 / float(np.median(gaps_s)) if len(gaps_s) else _USUAL_RATE_HZ
        self._rate_hz = round(min(max(rate_hz, _RATES_HZ[0]), _RATES_HZ[1]), 2)
        height, width = self._first[0][1].shape[:2]
        # MPEG-4 has even sides alone.
        self._size = width + width % 2, height + height % 2
        self._path.parent.mkdir(parents=True, exist_ok=True)
        code = cv2.VideoWriter_fourcc(*"mp4v")  # the only one that OpenCV from PyPI writes quickly
        self._writer = cv2.VideoWriter(str(self._beside), code, self._rate_hz, self._size)
        if not self._writer.isOpened():
            raise DataError(f"{self._path} cannot be written: this OpenCV writes no MPEG-4 video")
        waiting, self._first = self._first, []
        for stamp_ns, rgb in waiting:
            self._show(rgb, stamp_ns)

    def _show(self, rgb: np.ndarray, stamp_ns: int) -> None:
        if self._shown is not None:
            gap_s = min(max(0.0, (stamp_ns - self._shown[0]) / 1e9), _LONGEST_PAUSE_S)
            self._due += gap_s * self._rate_hz
            # Each picture is shown once at least, so that none is lost; small jitter does not repeat any.
            times = max(1, round(self._due) - self._written)
            self._hold(times)
            self._due = max(self._due, float(self._written) - 0.5)
        self._shown = stamp_ns, self._fitted(rgb)

    def _hold(self, times: int) -> None:
        if self._shown is not None and self._writer is not None:
            for _ in range(times):
                self._writer.write(self._shown[1])
            self._written += times

    def _fitted(self, rgb: np.ndarray) -> np.ndarray:
        """Returns the picture as BGR of the video's size, with black where it has another shape."""
        width, height = self._size
        if abs(rgb.shape[1] - width) > 1 or abs(rgb.shape[0] - height) > 1:
            share = min(width / rgb.shape[1], height / rgb.shape[0])
            size = max(1, round(share * rgb.shape[1])), max(1, round(share * rgb.shape[0]))
            rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
        rgb = rgb[:height, :width]
        below, right = height - rgb.shape[0], width - rgb.shape[1]
        # A single row or column that is missing to an even side looks like its neighbour.
        border = cv2.BORDER_REPLICATE if max(below, right) == 1 else cv2.BORDER_CONSTANT
        top, left = below // 2, right // 2
        bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        return cv2.copyMakeBorder(bgr, top, below - top, left, right - left, border)
