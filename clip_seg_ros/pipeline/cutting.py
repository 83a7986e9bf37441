# SPDX-License-Identifier: Apache-2.0
"""Cuts a thing out of its surroundings by colours, with GrabCut (Rother, Kolmogorov and Blake, SIGGRAPH 2004).

GrabCut learns the colours of thing and surroundings from a first guess and cuts along the edges of the image, several
times in turn. OpenCV draws the first Gaussians at random; here the same picture always gives the same mask.
"""

from __future__ import annotations

import cv2
import numpy as np

from clip_seg_ros.types import window_of

Box = tuple[int, int, int, int]
"""(x_min, y_min, x_max, y_max) in pixels; the maxima are exclusive."""

PAD, LEAST_PAD_PX = 0.5, 8
"""How far around a first guess colours are looked at: as a share of its sides, and at least in pixels."""
BOX_SLACK, LEAST_SLACK_PX = 0.1, 2
"""How far a thing may reach beyond its box: as a share of the box's sides, and at least in pixels."""
BOX_PX = 320
"""The longer side of the picture in which the thing in a box is cut out; a larger one is reduced."""
GROWTHS = 3
"""How often at most a mask is the first guess of the next one, while it ends only where the window around it does."""
ROUNDS = 4
"""How often GrabCut learns the colours and cuts."""
RIM_PX = 3
"""A mask is made sharper within this many pixels of the reduced picture around its border."""
SHARP_PX = 480
"""The longer side of the window above which a mask is not made sharper, but only enlarged smoothly."""
_SURE_PX = 2
"""Radius in pixels around a point that surely belongs to the thing."""
_LEAST_PX = 30
"""GrabCut needs this many pixels of either side for its five Gaussians each."""
_SURELY_NOT, _SURELY, _PERHAPS_NOT, _PERHAPS = 0, 1, 2, 3


def part_at(mask: np.ndarray, point_px: tuple[int, int]) -> np.ndarray:
    """Returns the connected part of a mask (H, W) bool at a point (x, y); empty if the point is outside of the mask."""
    if not mask[point_px[1], point_px[0]]:
        return np.zeros_like(mask)
    _, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=4)
    return labels == labels[point_px[1], point_px[0]]


def largest_part(mask: np.ndarray) -> np.ndarray:
    """Returns the largest connected part of a mask (H, W) bool."""
    count, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    return mask if count <= 2 else labels == 1 + int(np.bincount(labels.ravel())[1:].argmax())


def cut_around(rgb: np.ndarray, guess: np.ndarray, surely_not: np.ndarray, point_px: tuple[int, int]) -> np.ndarray:
    """Cuts out the thing at a point.

    Args:
        rgb: (H, W, 3) uint8.
        guess: (H, W) bool, a first guess of the thing; what is right at the point always belongs to it.
        surely_not: (H, W) bool, pixels that are surely none of it.
        point_px: (x, y), a pixel of the thing.

    Returns:
        (H, W) bool, one connected part; the first guess where there are too few pixels of either side.
    """
    for _ in range(GROWTHS):
        states = np.where(guess, _PERHAPS, np.where(surely_not, _SURELY_NOT, _PERHAPS_NOT)).astype(np.uint8)
        cv2.circle(states, point_px, _SURE_PX, _SURELY, -1)
        guess = (states & 1).astype(np.bool_)
        x, y, width, height = cv2.boundingRect(guess.view(np.uint8))
        box = _grown((x, y, x + width, y + height), PAD, LEAST_PAD_PX, guess.shape)
        inside = _cut(rgb[window_of(box)], states[window_of(box)])
        if inside is None:
            return guess
        guess = np.zeros_like(guess)
        guess[window_of(box)] = inside
        guess = part_at(guess, point_px)
        if not _goes_on(guess, box):
            break
    return guess


def cut_in(rgb: np.ndarray, box_px: Box, pad: float) -> np.ndarray:
    """Cuts out the thing in a box.

    Args:
        rgb: (H, W, 3) uint8.
        box_px: The box, in the picture.
        pad: How far around the box the surroundings are looked at, as a share of its sides.

    Returns:
        (H, W) bool, one connected part; empty if nothing stands out.
    """
    size = rgb.shape[:2]
    outer = _grown(box_px, pad, LEAST_PAD_PX, size)
    inner = _grown(box_px, BOX_SLACK, LEAST_SLACK_PX, size)
    states = np.full(size, _SURELY_NOT, np.uint8)
    states[window_of(inner)] = _PERHAPS
    picture, states = rgb[window_of(outer)], states[window_of(outer)]
    shape = states.shape
    scale = min(1.0, BOX_PX / max(shape))
    if scale < 1.0:
        reduced = max(1, round(scale * shape[1])), max(1, round(scale * shape[0]))
        picture = cv2.resize(picture, reduced, interpolation=cv2.INTER_AREA)
        states = cv2.resize(states, reduced, interpolation=cv2.INTER_NEAREST)
    inside = _cut(picture, states)
    mask = np.zeros(size, np.bool_)
    if inside is not None:
        mask[window_of(outer)] = enlarged(inside, shape)
    return largest_part(mask)


def sharpened(rgb: np.ndarray, mask: np.ndarray, rim_px: int) -> np.ndarray:
    """Moves the border of a mask to the edges of the image, within ``rim_px`` pixels of where it was.

    Args:
        rgb: (H, W, 3) uint8.
        mask: (H, W) bool, not empty.
        rim_px: The distance, at least 1.

    Returns:
        (H, W) bool; ``mask`` itself where its window is larger than ``SHARP_PX``.
    """
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    box = _grown((x, y, x + width, y + height), 0.0, 3 * rim_px, mask.shape)
    window = window_of(box)
    if max(mask[window].shape) > SHARP_PX:
        return mask
    square = np.ones((2 * rim_px + 1, 2 * rim_px + 1), np.uint8)
    part = mask[window].astype(np.uint8)
    states = np.where(part > 0, _PERHAPS, _PERHAPS_NOT).astype(np.uint8)
    # Beyond the border of the image, erosion finds more of the same.
    states[cv2.erode(part, square) > 0] = _SURELY
    states[cv2.dilate(part, square) == 0] = _SURELY_NOT
    inside = _cut(rgb[window], states, rounds=1)
    if inside is None or not inside.any():
        return mask
    sharp = np.zeros_like(mask)
    sharp[window] = inside
    return largest_part(sharp)


def enlarged(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a mask (h, w) bool to ``size`` (H, W), with a smooth border."""
    if mask.shape == tuple(size):
        return mask
    return cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR) > 0.5


def _grown(box_px: Box, share: float, least_px: int, size: tuple[int, int]) -> Box:
    """Returns a box grown on each side by a share of its own side, as far as the image (H, W) goes."""
    left, top, right, bottom = box_px
    x, y = max(least_px, round(share * (right - left))), max(least_px, round(share * (bottom - top)))
    return max(0, left - x), max(0, top - y), min(size[1], right + x), min(size[0], bottom + y)


def _goes_on(mask: np.ndarray, box_px: Box) -> bool:
    """Returns whether a mask (H, W) bool ends where a box does and the image does not."""
    left, top, right, bottom = box_px
    rows, columns = window_of(box_px)
    height, width = mask.shape
    return bool(
        (left > 0 and mask[rows, left].any())
        or (top > 0 and mask[top, columns].any())
        or (right < width and mask[rows, right - 1].any())
        or (bottom < height and mask[bottom - 1, columns].any())
    )


def _cut(rgb: np.ndarray, states: np.ndarray, rounds: int = ROUNDS) -> np.ndarray | None:
    """Runs GrabCut on a picture; returns (h, w) bool, or ``None`` where there are too few pixels of either side."""
    belongs = np.count_nonzero(states & 1)
    if belongs < _LEAST_PX or states.size - belongs < _LEAST_PX:
        return None
    states = states.copy()
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(np.ascontiguousarray(rgb), states, None, *models, rounds, cv2.GC_INIT_WITH_MASK)
    return (states & 1).astype(np.bool_)
