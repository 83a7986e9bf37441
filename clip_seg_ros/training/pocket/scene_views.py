# SPDX-License-Identifier: Apache-2.0
"""Varies rendered scenes for training: crops windows, and changes light, colours and table tops."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch

_STRETCH = 0.25
"""The logarithm of the largest change of a window's aspect ratio, which imitates a camera that is higher or lower."""


@dataclass(frozen=True)
class Window:
    """A part of a scene, resized to (height, width) and perhaps mirrored."""

    part: tuple[slice, slice]
    height: int
    width: int
    mirrored: bool

    def cut(self, picture: np.ndarray) -> np.ndarray:
        """Crops an image (H, W, 3) with interpolation, or labels (H, W) with their nearest pixels."""
        found = picture[self.part]
        interpolation = cv2.INTER_AREA if len(found) > self.height else cv2.INTER_LINEAR
        if picture.ndim == 2:
            interpolation = cv2.INTER_NEAREST
        found = cv2.resize(found, (self.width, self.height), interpolation=interpolation)
        return found[:, ::-1] if self.mirrored else found


def zoom(labels: np.ndarray, rng: np.random.Generator, height: int, width: int) -> Window:
    """Draws a window around one of the objects, enlarged at most about 1.15 times; half of them are mirrored."""
    full_height, full_width = labels.shape
    scale = rng.uniform(max(height / full_height, width / full_width), 1.15)
    stretch = np.exp(rng.uniform(-_STRETCH, _STRETCH) / 2)
    h, w = min(round(height / scale * stretch), full_height), min(round(width / scale / stretch), full_width)
    rows, columns = np.nonzero(labels[::4, ::4])
    pick = int(rng.integers(len(rows))) if len(rows) else None
    center = np.array([rows[pick], columns[pick]]) * 4 if pick is not None else np.array(labels.shape) / 2
    corner = center - np.array([h, w]) * rng.uniform(0.15, 0.85, 2)
    top, left = np.clip(corner, 0, [full_height - h, full_width - w]).astype(int)
    return Window((slice(top, top + h), slice(left, left + w)), height, width, bool(rng.random() < 0.5))


def augment(rgb: np.ndarray, recolored: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """Changes light, noise and, if ``recolored``, colours: (B, H, W, 3) uint8 to (B, 3, H, W) float32 in 0..1."""
    pixels = rgb.astype(np.float32) / 255.0
    size = len(pixels)
    for row in np.flatnonzero(recolored):
        if rng.random() < 0.25:
            pixels[row] = pixels[row].mean(axis=-1, keepdims=True)
        else:
            pixels[row] = np.clip(pixels[row] @ _hue_rotation(rng.uniform(0.15, 0.85)).T, 0, 1)
    pixels = np.clip(pixels * _light(rng, *pixels.shape[:3]), 0, 1)
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    noise = torch.from_numpy(rng.uniform(0.0, 0.03, (size, 1, 1, 1)).astype(np.float32))
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    return (tensor + noise * torch.randn(tensor.shape, generator=generator)).clamp_(0, 1)


def _light(rng: np.random.Generator, size: int, height: int, width: int) -> np.ndarray:
    """Returns factors (size, height, width, 3) float32 of brightness, of colour, and of a gradient across the image."""
    gain = rng.uniform(0.5, 1.3, (size, 1, 1, 1)) * rng.uniform(0.88, 1.12, (size, 1, 1, 3))
    slope, angle = rng.uniform(0, 0.35, size), rng.uniform(0, 2 * np.pi, size)
    rows, columns = np.linspace(-1, 1, height), np.linspace(-1, 1, width)
    side = np.cos(angle)[:, None, None] * columns + np.sin(angle)[:, None, None] * rows[:, None]
    return (gain * (1 + slope[:, None, None] * side)[..., None]).astype(np.float32)


def retextured(rgb: np.ndarray, bare: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws blobs or marks on the bare table, so that a model learns to ignore the texture of table tops.

    Args:
        rgb: Image (H, W, 3) uint8.
        bare: Mask of the table, (H, W) bool.
        rng: Generator of the blobs and marks.
    """
    shade = _blobs(rng, bare.shape) if rng.random() < 0.5 else _marks(rng, bare.shape)
    return np.where(bare[..., None], np.clip(rgb * shade[..., None], 0, 255), rgb).astype(np.uint8)


def _blobs(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Returns factors (H, W) float32 that darken clouds, or patches with sharp edges."""
    cells = int(rng.integers(4, 40))
    blobs = rng.random((cells, int(cells * rng.uniform(0.3, 3)) + 2)).astype(np.float32)
    blobs = cv2.resize(blobs, shape[::-1], interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.5:
        blobs = (blobs > rng.uniform(0.3, 0.7)).astype(np.float32)
    return 1 - rng.uniform(0.2, 0.6) * np.clip(blobs, 0, 1)


def _marks(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Returns factors (H, W) float32 of lines, rings, discs and quadrangles, each darker or lighter than the table."""
    height, width = shape
    shade = np.ones(shape, np.float32)
    for _ in range(int(rng.integers(5, 50))):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        size, factor = rng.uniform(0.02, 0.2) * width, float(rng.uniform(0.4, 1.25))
        outline = int(rng.integers(1, 4))
        form = rng.choice(["line", "ellipse", "flat"])
        if form == "line":
            angle, length = rng.uniform(0, np.pi), rng.uniform(1, 6) * size
            end = (round(x + length * np.cos(angle)), round(y + length * np.sin(angle)))
            cv2.line(shade, (x, y), end, factor, outline, cv2.LINE_AA)
        elif form == "ellipse":
            axes = (round(size / 2), max(1, round(size * rng.uniform(0.15, 0.5))))
            cv2.ellipse(shade, (x, y), axes, 0, 0, 360, factor, outline if rng.random() < 0.5 else -1, cv2.LINE_AA)
        else:
            angles = np.sort(rng.uniform(0, 2 * np.pi, 4))
            corners = np.stack([x + size * np.cos(angles), y + 0.6 * size * np.sin(angles)], axis=1)
            cv2.fillConvexPoly(shade, corners.round().astype(np.int32), factor, cv2.LINE_AA)
    return shade


def _hue_rotation(turn: float) -> np.ndarray:
    """Returns the rotation (3, 3) of RGB about the grey axis by ``turn`` of a full circle (Rodrigues' formula)."""
    c, s = np.cos(2 * np.pi * turn), np.sin(2 * np.pi * turn)
    axis = np.full(3, 1 / np.sqrt(3))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return (c * np.eye(3) + s * cross + (1 - c) * np.outer(axis, axis)).astype(np.float32)
