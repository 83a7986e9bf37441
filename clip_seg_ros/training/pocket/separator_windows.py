# SPDX-License-Identifier: Apache-2.0
"""Windows of regions with the objects in them, from which the separator learns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from clip_seg_ros.models.separator.model import CELLS, CHANNELS, OFFSET_CELLS, WINDOW_PX
from clip_seg_ros.pipeline.answering import Question, answer
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.pipeline.separation import Window, depth_channels
from clip_seg_ros.sim.renderer import RenderedView
from clip_seg_ros.sim.sequences import noisy_depth
from clip_seg_ros.types import ObjectRegion

STORED_PX = 96
"""The side of a window in memory; it is turned, shifted and resized to ``WINDOW_PX`` anew each time."""
MIN_AREA_FRACTION = 0.002
"""The smallest region, as a share of the image."""
_COLOURED, _THINGS = 3, 2
"""The number of phrases with a colour in a scene: of a colour and a kind, and of a colour alone."""
_MOST_TOGETHER = 5
"""The most objects of different names in one window; a table of things is no object's region."""
_MIDDLE_CELLS = 1.8
"""The radius of the heat around a middle, cells."""
_LEAST_SHARE, _SEVERAL_SHARE = 0.02, 0.03
"""The least share of a mask that an object has to be learnt, and for the mask to count as one of several objects."""
_SINGLE_SHARE = 0.01
"""The largest share of any other object in the mask of a single one."""
_WITH_DEPTH = 0.6
"""The share of lessons with depth."""
_PAINTED = 0.4
"""The share of objects that have a pattern."""
_BEND_PX = 3.0
"""How far places of a stored window are moved when it is bent, the standard deviation in pixels."""
_KNOWN_SHARE = 0.3
"""The least share of a mask that is objects at all."""


@dataclass(frozen=True)
class Windows:
    """N windows of regions."""

    rgb: np.ndarray
    """(N, STORED_PX, STORED_PX, 3) uint8."""
    mask: np.ndarray
    """(N, STORED_PX, STORED_PX) uint8: how much of the pixel the region covers, 255 for all."""
    labels: np.ndarray
    """(N, STORED_PX, STORED_PX) uint8: the objects that the phrase names, 0 for none."""
    depth_m: np.ndarray
    """(N, STORED_PX, STORED_PX) float16 metres with a sensor's noise; NaN where it sees nothing."""
    side_per_m: np.ndarray
    """(N,) float32: the side of the window at a distance of one metre, metres."""
    single: np.ndarray
    """(n,) int64: the windows with one object."""
    several: np.ndarray
    """(m,) int64: the windows with more than one."""

    @classmethod
    def joined(cls, parts: Sequence[tuple[np.ndarray, ...]]) -> Windows:
        """Joins windows, each as ``windows_of`` yields them."""
        rgb, mask, labels, depth_m, side_per_m = (np.stack(each) for each in zip(*parts, strict=True))
        shares = [_shares(one > 127, label) for one, label in zip(mask, labels)]
        known = np.array([share.sum() > _KNOWN_SHARE for share in shares])
        second = np.array([share[1] for share in shares])
        single = np.flatnonzero(known & (second < _SINGLE_SHARE))
        several = np.flatnonzero(known & (second >= _SEVERAL_SHARE))
        return cls(rgb, mask, labels, depth_m, side_per_m, single, several)


def _shares(inside: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the shares of a mask that objects have, the largest first, at least two."""
    areas = np.sort(np.bincount(labels[inside], minlength=3)[1:])[::-1]
    return areas / max(1, np.count_nonzero(inside))


def windows_of(view: RenderedView, predictor: Predictor, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields the windows of the regions of one rendered image: those of phrases, and those of whatever touches.

    Args:
        view: The image, with depth.
        predictor: Predictor of a CLIPSeg that knows the kinds and colours.
        rng: The source of all random numbers.
    """
    depth_m = noisy_depth(view.depth_m, rng)
    names = _phrases(view)
    question = Question(tuple(names), (), None, MIN_AREA_FRACTION)
    for region in answer(predictor, predictor.encode(view.rgb), question).regions:
        yield _window(view, region, depth_m, names[region.prompt])
    for region in _heaps(view, rng):
        yield _window(view, region, depth_m, lambda item: True)


def windows_of_shapes(view: RenderedView, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields the windows of the things of each kind in an image of random shapes, whose masks are made as faulty as a
    model's.

    Args:
        view: The image, with depth.
        rng: The source of all random numbers.
    """
    depth_m = noisy_depth(view.depth_m, rng)
    for kind in sorted({item.kind for item in view.objects}):
        count, parts = cv2.connectedComponents(_faulty(view.mask_of(None, kind), rng).view(np.uint8), connectivity=8)
        for part in range(1, count):
            mask = parts == part
            if np.count_nonzero(mask) >= MIN_AREA_FRACTION * mask.size:
                region = ObjectRegion.of_mask(kind, 1, 1.0, mask)
                yield _window(view, region, depth_m, lambda item, kind=kind: item.kind == kind)
    for region in _heaps(view, rng):
        yield _window(view, region, depth_m, lambda item: True)


def _faulty(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns a mask (H, W) whose border is where a model might see it: smooth, uneven, and a little off."""
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), rng.uniform(0.5, 5.0))
    coarse = rng.standard_normal((int(rng.integers(8, 40)),) * 2).astype(np.float32)
    uneven = cv2.resize(coarse, mask.shape[::-1], interpolation=cv2.INTER_CUBIC)
    return soft + rng.uniform(0.0, 0.25) * uneven > rng.uniform(0.3, 0.7)


def _phrases(view: RenderedView) -> dict[str, Callable]:
    """Returns phrases for what is visible, with functions that say which objects they name."""
    areas = np.bincount(view.labels.ravel(), minlength=len(view.objects) + 1)[1:]
    seen = [item for item, area in zip(view.objects, areas) if area > MIN_AREA_FRACTION * view.labels.size / 2]
    pairs = sorted({(item.color, item.kind) for item in seen})[:_COLOURED]
    colors = sorted({item.color for item in seen})[:_THINGS]
    names: dict[str, Callable] = {kind: lambda item, kind=kind: item.kind == kind for kind in {i.kind for i in seen}}
    names |= {f"{c} {k}": lambda item, c=c, k=k: (item.color, item.kind) == (c, k) for c, k in pairs}
    return names | {f"{color} thing": lambda item, color=color: item.color == color for color in colors}


def _heaps(view: RenderedView, rng: np.random.Generator) -> Iterator[ObjectRegion]:
    """Yields the true masks of objects of any name that touch, a little grown or shrunk."""
    count, heaps = cv2.connectedComponents((view.labels > 0).view(np.uint8))
    for number in range(1, count):
        mask = heaps == number
        together = len(np.unique(view.labels[mask]))
        if not 1 < together <= _MOST_TOGETHER or mask.sum() < 2 * MIN_AREA_FRACTION * mask.size:
            continue
        by = int(rng.integers(-2, 3))
        change = cv2.dilate if by > 0 else cv2.erode
        grown = change(mask.view(np.uint8), np.ones((2 * abs(by) + 1,) * 2, np.uint8)).view(np.bool_)
        if grown.any():
            yield ObjectRegion.of_mask("thing", 1, 1.0, grown)


def _window(
    view: RenderedView, region: ObjectRegion, depth_m: np.ndarray, is_named: Callable
) -> tuple[np.ndarray, ...]:
    """Returns a window as the fields of ``Windows`` keep it."""
    window = Window.around(region.box_px)
    named = np.array([0, *(number for number, item in enumerate(view.objects, start=1) if is_named(item))], np.uint8)
    labels = np.where(np.isin(view.labels, named), view.labels, 0).astype(np.uint8)
    return (
        window.cut(view.rgb, STORED_PX),
        np.round(255 * window.cut(region.mask.astype(np.float32), STORED_PX, cv2.BORDER_CONSTANT)).astype(np.uint8),
        window.cut(labels, STORED_PX, cv2.BORDER_CONSTANT, nearest=True),
        window.cut(depth_m, STORED_PX, nearest=True).astype(np.float16),
        np.float32(window.side / view.intrinsics.fx),
    )


class Lesson(NamedTuple):
    """A window as the network sees it, and what it should say; CELLS x CELLS unless another size is given."""

    seen: np.ndarray
    """(CHANNELS, WINDOW_PX, WINDOW_PX) float32."""
    inside: np.ndarray
    """float32: 1 in the mask, else 0."""
    heat: np.ndarray
    """float32, 0..1."""
    offsets: np.ndarray
    """(2, CELLS, CELLS) float32."""
    known: np.ndarray
    """float32: 1 where the offset is known, else 0."""
    several: np.float32
    """1 if there are several objects, else 0."""


def draw_lesson(windows: Windows, index: int, rng: np.random.Generator) -> Lesson:
    """Draws a lesson from one window: bent, turned, mirrored, in other colours and patterns, with depth or without."""
    x, y = _places(rng)

    def bent(picture: np.ndarray, flags: int, beyond: int = cv2.BORDER_CONSTANT) -> np.ndarray:
        return cv2.remap(picture, x, y, flags, borderMode=beyond)

    seen = np.zeros((CHANNELS, WINDOW_PX, WINDOW_PX), np.float32)
    rgb = bent(windows.rgb[index], cv2.INTER_LINEAR, cv2.BORDER_REPLICATE).astype(np.float32) / 255
    labels = bent(windows.labels[index], cv2.INTER_NEAREST)
    seen[:3] = _other_colors(_painted(rgb, labels, rng), rng).transpose(2, 0, 1)
    seen[3] = bent(windows.mask[index], cv2.INTER_LINEAR).astype(np.float32) / 255
    if rng.random() < _WITH_DEPTH:
        depth_m = bent(windows.depth_m[index].astype(np.float32), cv2.INTER_NEAREST, cv2.BORDER_REPLICATE)
        seen[4:] = depth_channels(depth_m, seen[3] > 0.5, float(windows.side_per_m[index] * rng.uniform(0.7, 1.4)))
    inside = cv2.resize(seen[3], (CELLS, CELLS), interpolation=cv2.INTER_AREA) > 0.5
    return _lesson(seen, inside, labels[::2, ::2])


def _lesson(seen: np.ndarray, inside: np.ndarray, labels: np.ndarray) -> Lesson:
    rows, columns = np.mgrid[:CELLS, :CELLS].astype(np.float32)
    heat, known = np.zeros((CELLS, CELLS), np.float32), np.zeros((CELLS, CELLS), np.float32)
    offsets = np.zeros((2, CELLS, CELLS), np.float32)
    least, count = max(4.0, _LEAST_SHARE * np.count_nonzero(inside)), 0
    for number in np.unique(labels[inside & (labels > 0)]):
        own = inside & (labels == number)
        if np.count_nonzero(own) < least:
            continue
        count += 1
        x, y = columns[own].mean(), rows[own].mean()
        np.maximum(heat, np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * _MIDDLE_CELLS**2)), out=heat)
        offsets[0][own], offsets[1][own] = (x - columns[own]) / OFFSET_CELLS, (y - rows[own]) / OFFSET_CELLS
        known[own] = 1
    return Lesson(seen, inside.astype(np.float32), heat, offsets, known, np.float32(count > 1))


def _places(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws for each pixel that the network sees its place in a stored window: x and y, (WINDOW_PX, WINDOW_PX) float32.

    Things are stretched, sheared and bent, because the simulated world has few shapes.
    """
    angle = rng.uniform(-np.pi, np.pi) if rng.random() < 0.2 else rng.normal(0.0, 0.15)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = np.array([[rng.uniform(0.85, 1.4), rng.normal(0.0, 0.15)], [0.0, rng.uniform(0.85, 1.4)]])
    turn = STORED_PX / WINDOW_PX * turn @ stretch
    if rng.random() < 0.5:
        turn[:, 0] *= -1
    middle = (STORED_PX - 1) / 2 + rng.uniform(-4, 4, 2)
    grid = np.mgrid[:WINDOW_PX, :WINDOW_PX].astype(np.float32)[::-1] - (WINDOW_PX - 1) / 2
    x, y = (turn[axis, 0] * grid[0] + turn[axis, 1] * grid[1] + middle[axis] for axis in (0, 1))
    if rng.random() < 0.5:
        bends = rng.normal(0.0, _BEND_PX, (2, 4, 4)).astype(np.float32)
        size = (WINDOW_PX, WINDOW_PX)
        x, y = (place + cv2.resize(bend, size, interpolation=cv2.INTER_CUBIC) for place, bend in zip((x, y), bends))
    return x.astype(np.float32), y.astype(np.float32)


def _painted(rgb: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Paints patterns on some objects of a window (h, w, 3), so that an edge of colours need not be one of things."""
    painted = rgb.copy()
    for number in np.unique(labels[labels > 0]):
        if rng.random() < _PAINTED:
            on = (labels == number) & _pattern(labels.shape, rng)
            strength = rng.uniform(0.4, 1.0)
            # The paint keeps the shading, as the colours of the simulated world do.
            shade = rgb[on].max(axis=1, keepdims=True)
            painted[on] = (1 - strength) * rgb[on] + strength * shade * rng.random(3).astype(np.float32)
    return painted


def _pattern(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Draws where a pattern has its second colour, (h, w) bool: a side, a band, stripes, or blobs."""
    kind = rng.integers(4)
    if kind == 3:
        coarse = rng.standard_normal((int(rng.integers(3, 9)),) * 2).astype(np.float32)
        return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC) > rng.uniform(-0.3, 0.8)
    angle, (rows, columns) = rng.uniform(0, np.pi), np.mgrid[: shape[0], : shape[1]]
    across = np.cos(angle) * (columns - rng.uniform(0.2, 0.8) * shape[1])
    across = across + np.sin(angle) * (rows - rng.uniform(0.2, 0.8) * shape[0])
    if kind == 0:
        return across > 0
    width = rng.uniform(2.0, 10.0)
    return np.abs(across) < width if kind == 1 else np.mod(across, 2 * width) < width


def _other_colors(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Changes the colours of a window (h, w, 3), so that edges count and not the colours of the simulated world."""
    if rng.random() < 0.3:
        rgb = rgb[..., rng.permutation(3)]
    if rng.random() < 0.15:
        rgb = np.repeat(rgb.mean(axis=-1, keepdims=True), 3, axis=-1)
    rgb = rgb ** rng.uniform(0.6, 1.6) * rng.uniform(0.7, 1.3) + rng.normal(0.0, 0.03, 3)
    if rng.random() < 0.3:
        rgb = cv2.GaussianBlur(rgb, (0, 0), rng.uniform(0.4, 1.2))
    return rgb + rng.uniform(0.0, 0.04) * rng.standard_normal(rgb.shape)
