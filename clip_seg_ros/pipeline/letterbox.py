# SPDX-License-Identifier: Apache-2.0
"""Fits an image into a square, keeping its aspect ratio, and maps the results back to the image.

This is the preparation of CRIS (Wang et al., CVPR 2022), done by one affine map from the image to the square. The
results equal those of CRIS's authors, with their cubic resampling and ``align_corners``, because their weights were
trained on such images.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F


def letterbox_affine(source_size: tuple[int, int], size: int) -> np.ndarray:
    """Returns the (2, 3) float64 affine map from pixels (x, y) of an image of ``source_size`` (H, W) to the square."""
    height, width = source_size
    scale = min(size / height, size / width)
    x, y = (size - width * scale) / 2, (size - height * scale) / 2
    corners = np.float32([[0, 0], [width, 0], [0, height]])
    images = np.float32([[x, y], [width * scale + x, y], [x, height * scale + y]])
    return cv2.getAffineTransform(corners, images)


def to_square(rgb: np.ndarray, size: int, mean: Sequence[float]) -> np.ndarray:
    """Scales an RGB image (H, W, 3) uint8 into a square (size, size, 3) whose rest has the colour ``mean``, 0..1."""
    affine = letterbox_affine(rgb.shape[:2], size)
    border = [255 * channel for channel in mean]
    return cv2.warpAffine(rgb, affine, (size, size), flags=cv2.INTER_CUBIC, borderValue=border)


def mask_to_square(mask: np.ndarray, size: int) -> np.ndarray:
    """Scales a mask (H, W) bool bilinearly into a square (size, size) float32, 0..1 in steps of 1/255; outside is 0."""
    affine = letterbox_affine(mask.shape, size)
    levels = mask.astype(np.uint8) * 255
    return cv2.warpAffine(levels, affine, (size, size), flags=cv2.INTER_LINEAR, borderValue=0) / np.float32(255)


def from_square(maps: np.ndarray, size: int, source_size: tuple[int, int]) -> np.ndarray:
    """Maps probability maps of the square back to the image.

    Args:
        maps: (P, h, w) float32 over the whole square, at any resolution.
        size: Side of the square in pixels.
        source_size: (H, W) of the image.

    Returns:
        (P, H, W) float32. Both steps are cubic, so that values may lie a little outside the range of ``maps``.
    """
    square = F.interpolate(torch.from_numpy(maps)[None], size=(size, size), mode="bicubic", align_corners=True)[0]
    back = cv2.invertAffineTransform(letterbox_affine(source_size, size))
    height, width = source_size
    restored = np.empty((len(maps), height, width), np.float32)
    for source, target in zip(square.numpy(), restored):
        cv2.warpAffine(source, back, (width, height), dst=target, flags=cv2.INTER_CUBIC, borderValue=0.0)
    return restored


def to_image(maps: np.ndarray, size: int, source_size: tuple[int, int]) -> np.ndarray:
    """Maps probability maps of the square to the image, at about the resolution of the square, in one cubic step.

    Args:
        maps: (P, h, w) float32 over the whole square, at any resolution; its outermost cells are its corners.
        size: Side of the square in pixels.
        source_size: (H, W) of the image.

    Returns:
        (P, h', w') float32 within the range of ``maps``, whose places are the middles of equal parts of the image.
    """
    affine = letterbox_affine(source_size, size)
    down, across = (
        _cubic(cells, size, pixels, float(affine[axis, axis]), float(affine[axis, 2]))
        for axis, cells, pixels in zip((1, 0), maps.shape[1:], source_size)
    )
    wide = torch.from_numpy(maps) @ across.t()
    fine = wide.new_empty(len(maps), len(down), len(across))
    # Every place is mixed of four cells in a row, so that most of the matrix is zeros: it is applied in bands.
    bands = [(rows, _span(down[rows])) for rows in map(_band, range(0, len(down), _BAND_ROWS))]
    for source, target in zip(wide, fine):
        for rows, cells in bands:
            torch.mm(down[rows, cells], source[cells], out=target[rows])
    return fine.clamp_(float(maps.min(initial=0.0)), float(maps.max(initial=0.0))).numpy()


_BAND_ROWS = 80


def _band(first: int) -> slice:
    return slice(first, first + _BAND_ROWS)


def _span(rows: torch.Tensor) -> slice:
    """Returns the columns of a matrix (n, cells) from the first to the last that is not all zeros."""
    used = rows.any(dim=0).nonzero()
    return slice(int(used[0]), int(used[-1]) + 1)


@lru_cache(maxsize=32)
def _cubic(cells: int, size: int, pixels: int, scale: float, shift: float) -> torch.Tensor:
    """Returns (n, ``cells``) float32: how n places along an axis of the image are mixed of the cells of the square.

    Args:
        cells: The number of cells along the axis, the outermost of which are the corners of the square.
        size: Side of the square in pixels.
        pixels: Side of the image in pixels.
        scale: Pixels of the square for each pixel of the image; n is the number of those that the image covers.
        shift: The pixel of the square where the image's pixel 0 lies.
    """
    count = max(1, round(pixels * scale))
    pixel = (np.arange(count) + 0.5) * (pixels / count) - 0.5
    coordinate = np.clip((scale * pixel + shift) * (cells - 1) / max(size - 1, 1), 0, cells - 1)
    first = np.floor(coordinate).astype(np.int64)
    matrix = np.zeros((count, cells))
    for tap in range(-1, 3):
        place = first + tap
        np.add.at(matrix, (np.arange(count), np.clip(place, 0, cells - 1)), _kernel(np.abs(coordinate - place)))
    return torch.from_numpy(matrix.astype(np.float32))


def _kernel(distance: np.ndarray) -> np.ndarray:
    """Returns Keys' cubic kernel with a = -0.75, which OpenCV and PyTorch use, at distances 0..2."""
    a, d = -0.75, distance
    return np.where(d <= 1, ((a + 2) * d - (a + 3)) * d**2 + 1, ((a * d - 5 * a) * d + 8 * a) * d - 4 * a)
