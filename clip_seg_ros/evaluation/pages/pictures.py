# SPDX-License-Identifier: Apache-2.0
"""Collects and draws answers of a model with the ground truth: random ones, and the worst."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

COLUMNS = 4
_CELL = (320, 240)
_ANSWER_RGB, _TRUE_RGB = (230, 60, 160), (255, 255, 255)


class Gallery:
    """Keeps cells during an evaluation: a number of ``chance`` random answers, and the ``worst``.

    Only the answers that are kept at the time are drawn.
    """

    def __init__(self, chance: int, worst: int) -> None:
        self._chance, self._worst = chance, worst
        self._random: list[np.ndarray] = []
        self._bad: list[tuple[float, np.ndarray]] = []
        self._seen = 0
        self._rng = np.random.default_rng(0)

    def add(self, badness: float, draw: Callable[[], np.ndarray]) -> None:
        """Offers one answer.

        Args:
            badness: Measure of how bad the answer is, higher for worse ones.
            draw: Draws the cell of the answer, (240, 320, 3) uint8.
        """
        # This is reservoir sampling: each answer so far is kept with the same probability.
        place = self._seen if self._seen < self._chance else int(self._rng.integers(self._seen + 1))
        self._seen += 1
        if place < self._chance:
            self._random[place : place + 1] = [draw()]
        if len(self._bad) < self._worst or (self._bad and badness > self._bad[-1][0]):
            self._bad = sorted([*self._bad, (badness, draw())], key=lambda item: -item[0])[: self._worst]

    def cells(self) -> list[np.ndarray]:
        """Returns the cells of the random answers, then those of the worst, the worst first."""
        return [*self._random, *(cell for _, cell in self._bad)]


def grid(cells: Sequence[np.ndarray]) -> np.ndarray:
    """Arranges cells of one size in rows of ``COLUMNS``; the last row is filled up with black."""
    cells = [*cells, *[np.zeros_like(cells[0])] * (-len(cells) % COLUMNS)]
    rows = [np.concatenate(cells[i : i + COLUMNS], axis=1) for i in range(0, len(cells), COLUMNS)]
    return np.concatenate(rows)


def answer_cell(rgb: np.ndarray, mask: np.ndarray, true: np.ndarray, caption: str) -> np.ndarray:
    """Draws one answer with tinted pixels, and the ground truth with a white outline.

    Args:
        rgb: Image (H, W, 3) uint8.
        mask, true: Masks of the answer and of the ground truth, (H, W) bool.
        caption: Text above the image.

    Returns:
        The cell, (240, 320, 3) uint8.
    """
    picture = rgb.copy()
    picture[mask] = (0.35 * picture[mask] + 0.65 * np.array(_ANSWER_RGB)).astype(np.uint8)
    contours, _ = cv2.findContours(true.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, _TRUE_RGB, 2, cv2.LINE_AA)
    return captioned(picture, caption)


def captioned(rgb: np.ndarray, caption: str) -> np.ndarray:
    """Resizes an image to a cell, (240, 320, 3) uint8, with a line of text at its top."""
    picture = cv2.resize(rgb, _CELL, interpolation=cv2.INTER_AREA)
    cv2.rectangle(picture, (0, 0), (_CELL[0], 20), (0, 0, 0), -1)
    cv2.putText(picture, caption, (5, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
    return picture


def write_picture(path: Path, rgb: np.ndarray) -> None:
    """Writes an (H, W, 3) uint8 RGB image as JPEG or PNG, as the suffix says; PNG if it has neither suffix.

    Raises:
        OSError: The file cannot be written.
    """
    ending = path.suffix if path.suffix in (".jpg", ".jpeg", ".png") else ".png"
    _, content = cv2.imencode(ending, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    path.write_bytes(content.tobytes())
