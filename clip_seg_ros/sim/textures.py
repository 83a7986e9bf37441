# SPDX-License-Identifier: Apache-2.0
"""Textures of the table top: grey patterns (H, W, 3) uint8 from a generator, which the table's colour tints."""

from __future__ import annotations

import cv2
import numpy as np

SIZE = 256


def _smooth_noise(rng: np.random.Generator, cells: tuple[int, int]) -> np.ndarray:
    """Returns noise (SIZE, SIZE) float in 0..1 with ``cells`` = (rows, columns) blobs."""
    coarse = rng.random(cells).astype(np.float32)
    return np.clip(cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC), 0, 1)


def table_texture(name: str, rng: np.random.Generator) -> np.ndarray:
    """Draws the texture of a table top, (SIZE, SIZE, 3) uint8.

    Args:
        name: ``plain``, ``wood``, ``checks``, ``stripes``, ``speckle``, ``cloth``, ``tiles``, ``dots`` or ``waves``.
        rng: Generator of the details.

    Raises:
        ValueError: The name is unknown.
    """
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    if name == "plain":
        shade = 0.94 + 0.06 * _smooth_noise(rng, (4, 4))
    elif name == "wood":
        grain = _smooth_noise(rng, (6, 48)) * 0.5 + _smooth_noise(rng, (3, 96)) * 0.5
        plank = (columns // (SIZE // int(rng.integers(3, 6)))) % 2
        shade = 0.62 + 0.3 * grain + 0.08 * plank
    elif name == "checks":
        cell = SIZE // int(rng.choice([4, 8, 16]))
        shade = np.where((rows // cell + columns // cell) % 2 == 0, 1.0, rng.uniform(0.45, 0.85))
    elif name == "stripes":
        cell = SIZE // int(rng.choice([8, 16, 32]))
        shade = np.where((columns // cell) % 2 == 0, 1.0, rng.uniform(0.45, 0.85))
    elif name == "speckle":
        shade = 1.0 - 0.5 * (_smooth_noise(rng, (128, 128)) > 0.72)
    elif name == "cloth":
        shade = 0.8 + 0.1 * np.sin(rows * 0.8) * np.sin(columns * 0.8) + 0.1 * _smooth_noise(rng, (12, 12))
    elif name == "tiles":
        cell = SIZE // int(rng.choice([4, 6]))
        joint = (rows % cell < 5) | (columns % cell < 5)
        shade = np.where(joint, rng.uniform(0.3, 0.6), 0.85 + 0.15 * _smooth_noise(rng, (5, 5)))
    elif name == "dots":
        cell = SIZE // int(rng.choice([6, 10]))
        distance = np.hypot(rows % cell - cell / 2, columns % cell - cell / 2)
        shade = np.where(distance < 0.28 * cell, rng.uniform(0.4, 0.7), 1.0)
    elif name == "waves":
        bend = 9.0 * np.sin(columns * 2 * np.pi / SIZE * int(rng.integers(2, 5)))
        shade = 0.75 + 0.25 * np.sin((rows + bend) * 2 * np.pi / SIZE * int(rng.integers(8, 16)))
    else:
        raise ValueError(f"unknown table texture {name!r}")
    grey = np.clip(np.asarray(shade, dtype=np.float32) * 255, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.repeat(grey[..., None], 3, axis=2))
