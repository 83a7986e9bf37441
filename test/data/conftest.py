# SPDX-License-Identifier: Apache-2.0
"""Writes pictures and label images as the published data sets store them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

WriteJpeg = Callable[[Path, tuple[int, int]], None]
WriteLabels = Callable[..., None]


@pytest.fixture
def write_jpeg() -> WriteJpeg:
    """Writes a smooth JPEG of a (height, width): red grows downwards, green to the right, blue is 40."""

    def write(path: Path, size: tuple[int, int]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        y, x = np.mgrid[: size[0], : size[1]]
        blue, green, red = np.full(size, 40), 200 * x / size[1], 200 * y / size[0]
        assert cv2.imwrite(str(path), np.stack([blue, green, red], axis=-1).astype(np.uint8))

    return write


@pytest.fixture
def write_labels() -> WriteLabels:
    """Writes (H, W) integers as a PNG: eight bits, with VOC's kind of palette where ``palette`` is set."""

    def write(path: Path, labels: np.ndarray, palette: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(labels.astype(np.uint8))
        if palette:
            # All different, and different from their numbers: a reader that takes colours for labels is found out.
            image.putpalette([value for index in range(256) for value in (255 - index, index * 7 % 256, 128)])
        image.save(path)

    return write
