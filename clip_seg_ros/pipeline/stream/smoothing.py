# SPDX-License-Identifier: Apache-2.0
"""Smooths probabilities over time: strongly where the image stays the same, not at all where it changed.

The test for a change is that of Aach, Kaup and Mester (Statistical model-based change detection in moving video, Signal
Processing 31, 1993, section 2). With the difference d of two images, the variance s² of its noise, and a window of N
values,

    E = 1 / (N s²) * sum of d² over the window

is about 1 where there is only noise, and far larger where something moved. Here the earlier image is not the last one,
but the average of all images since the last change, with the same weights as the probabilities. An object that moves so
slowly that no two successive images differ will therefore differ from this average in the end.

Where nothing changed, the probabilities of n + 1 images are averaged as a0 = x0, an = an-1 + (xn - an-1) w with the
weight w = max(1 / (n + 1), 1 - strength): a plain mean at first and an exponential one later.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from clip_seg_ros.pipeline.cell_maps import CellMaps
from clip_seg_ros.pipeline.thresholds import Thresholds

REDUCED_SIDE_PX = 160
"""Longest side of the reduced image in which changes are found. The image is halved until no side is longer; a pixel of
the reduced image is called a cell."""
WINDOW_CELLS = 5
"""Side of the test's window in cells. With three colours N = 75, and E of pure noise has a standard deviation of 0.16.
"""
CHANGED_ENERGY = 3.0
"""The value of E above which a place has changed. It is far above pure noise, because the noise of real cameras is
neither the same everywhere nor independent between pixels; where something moves, E is mostly 10 to 1,000."""
QUIET_SHARE = 0.3
"""The noise is estimated as this quantile of the differences over the image, so that up to 0.7 of it may move."""
NOISE_RISE = 1.1
"""The largest factor by which the noise's variance may rise from one image to the next, because the motion of a camera
must not be taken for noise."""
DARK = 8.0
"""The grey level up to which a cell is too dark to measure a change of brightness."""
NOISE_VARIANCE = (0.02, 16.0)
"""The smallest and the largest variance of a cell's noise, in squared grey levels: that of rounding alone, and that of
very poor cameras."""


@dataclass(frozen=True)
class _Answer:
    """The last result for one prompt. Its arrays were returned to the caller, so they are never written to again."""

    probabilities: np.ndarray
    """(h, w) float32."""
    decided: np.ndarray
    """(h, w) float32."""


@dataclass(frozen=True)
class Steadiness:
    """Where an image is the same as the images before it."""

    shape: tuple[int, int]
    """(H, W) of the image."""
    weight: np.ndarray | None = None
    """(h, w) float32, 0..1, of the cells of the image: the weight of the new probabilities in the average, which is 1
    where something changed; ``None`` for the first image."""


class TemporalSmoother:
    """Averages probabilities over time where the camera's image stays the same, and decides with hysteresis.

    Where the image changed by more than its noise, the new probabilities are taken unchanged, so that nothing trails
    behind a moving object. A change of brightness of the whole image does not count as a change.

    ``look`` needs only the image, so that it can run beside the model; ``smooth`` needs the model's probabilities. Each
    may run on a thread of its own, and ``look`` may be images ahead.

    A smoother has state: use one for each camera, with its images in the order of their stamps. Each prompt has a state
    of its own, so that prompts may come and go. The smoother starts anew with an image of another size, with a stamp
    before the last one, and after a gap.

    Args:
        strength: The final weight of the past where nothing moves, 0 to below 1: 0.9 averages about the last 19 images.
            With 0 there is neither smoothing nor hysteresis: the output is exactly the input.
        margin: A mask gains a place above ``threshold + margin`` and loses it below ``threshold - margin``. Where the
            image changed, only the threshold counts.
        max_gap_s: Time between two images in seconds after which the past is forgotten.

    Raises:
        ValueError: An argument is out of range.

    Examples:
        >>> smoother = TemporalSmoother()
        >>> from clip_seg_ros.pipeline.preprocess import Geometry
        >>> geometry = Geometry(source_size=(480, 640), model_size=(352, 352))
        >>> maps = CellMaps(("cup",), np.full((1, 352, 352), 0.7, np.float32), geometry)
        >>> rgb = np.full((480, 640, 3), 127, np.uint8)
        >>> smoothed, decided = smoother.smooth(maps, smoother.look(rgb, stamp_ns=0), threshold=0.5)
        >>> bool((decided > 0.5).all())
        True
    """

    def __init__(self, strength: float = 0.9, margin: float = 0.05, max_gap_s: float = 1.0) -> None:
        if not 0.0 <= strength < 1.0:
            raise ValueError(f"strength must lie in 0..1, without 1, got {strength}")
        if not 0.0 <= margin <= 0.5:
            raise ValueError(f"margin must lie in 0..0.5, got {margin}")
        if not max_gap_s > 0.0:
            raise ValueError(f"max_gap_s must be positive, got {max_gap_s}")
        self.strength, self.margin, self.max_gap_s = strength, margin, max_gap_s
        self.reset()

    def reset(self) -> None:
        """Forgets everything; the next image is the first."""
        self._answers: dict[str, _Answer] = {}
        self._picture: _SteadyPicture | None = None
        self._stamp_ns = 0
        self._thresholds: Thresholds | None = None

    def forget_all(self) -> None:
        """Forgets the past of all prompts, but not the images."""
        self._answers, self._thresholds = {}, None

    def forget(self, prompt: str) -> None:
        """Forgets the past of one prompt; its next probabilities are the first."""
        self._answers.pop(prompt, None)

    def look(self, rgb: np.ndarray, stamp_ns: int) -> Steadiness:
        """Compares the next image with those before it.

        Call ``smooth`` with the result, or ``forget_all`` if this image gets no probabilities, for all images in the
        same order.

        Args:
            rgb: (H, W, 3) uint8, the image.
            stamp_ns: When the image was taken, in nanoseconds.

        Returns:
            Where the image stayed the same.

        Raises:
            ValueError: ``rgb`` is not such an array.
        """
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
            raise ValueError(f"rgb must be a (H, W, 3) uint8 array, got {rgb.shape} {rgb.dtype}")
        if self.strength == 0.0:
            return Steadiness(rgb.shape[:2])
        past_s = (stamp_ns - self._stamp_ns) * 1e-9
        self._stamp_ns, picture = stamp_ns, self._picture
        if picture is None or picture.shape != rgb.shape or not 0.0 <= past_s <= self.max_gap_s:
            self.forget_all()
            self._picture = _SteadyPicture(rgb)
            return Steadiness(rgb.shape[:2])
        picture.compare(rgb, 1.0 - self.strength)
        return picture.steadiness()

    def smooth(self, maps: CellMaps, picture: Steadiness, threshold: float | Thresholds) -> tuple[CellMaps, np.ndarray]:
        """Smooths the probabilities of one image.

        The hysteresis is that of a play: what decides stays as it is while the probability moves by less than the
        margin around it, and is drawn along beyond. At each place, it then crosses the threshold where the probability
        crosses ``threshold + margin`` on its way up, and ``threshold - margin`` on its way down.

        Prompts that are not in ``maps`` are forgotten.

        Args:
            maps: The model's probabilities. NaN counts as 0.
            picture: What ``look`` returned for the same image.
            threshold: The threshold of the masks, 0..1, or those of all prompts. After a change of it, the first image
                has no hysteresis.

        Returns:
            The smoothed probabilities, and (P, h, w) float32 what decides: a mask is where it exceeds the threshold.

        Raises:
            ValueError: The image was not of the size of ``maps``, or the threshold is out of range.
        """
        if picture.shape != maps.size:
            raise ValueError(f"the image is {picture.shape}, its probabilities are of an image of {maps.size}")
        thresholds = threshold if isinstance(threshold, Thresholds) else Thresholds(threshold)
        if self.strength == 0.0:
            return maps, maps.values
        cells = maps.values.shape[1:]
        margin = self.margin if thresholds == self._thresholds else 0.0
        values = np.empty_like(maps.values)
        decided = np.empty_like(values) if margin else values
        weight = changed = None
        if picture.weight is not None:
            weight = maps.geometry.to_cells(picture.weight, cells)
            whole = (picture.weight >= 1.0).view(np.uint8)
            changed = maps.geometry.to_cells(whole, cells, cv2.INTER_NEAREST).view(np.bool_)
        for prompt, new, smoothed, decides in zip(maps.prompts, maps.values, values, decided, strict=True):
            before = self._answers.get(prompt)
            if before is None or weight is None or before.probabilities.shape != cells:
                np.copyto(smoothed, new)
                cv2.patchNaNs(smoothed, 0.0)
                np.copyto(decides, smoothed)
                continue
            _blend(before.probabilities, new, weight, smoothed)
            if margin:
                np.clip(before.decided, smoothed - np.float32(margin), smoothed + np.float32(margin), out=decides)
                np.copyto(decides, smoothed, where=changed)
        self._answers = {prompt: _Answer(*kept) for prompt, *kept in zip(maps.prompts, values, decided, strict=True)}
        self._thresholds = thresholds
        return replace(maps, values=values), decided


class _SteadyPicture:
    """The average of the images since the last change, at each place, and the weight of the next image there."""

    def __init__(self, rgb: np.ndarray) -> None:
        self.shape = rgb.shape
        self._mean = _cells(rgb)
        self._count = np.ones(self._mean.shape[:2], np.float32)
        self._weight = np.ones_like(self._count)
        self._variance: float | None = None

    def compare(self, rgb: np.ndarray, least_weight: float) -> None:
        """Adds the next image to the average; a place that changed starts anew with it."""
        cells = _cells(rgb)
        self._mean *= _gain(cells, self._mean)
        difference = cells - self._mean
        squares = cv2.boxFilter(cv2.multiply(difference, difference), -1, (WINDOW_CELLS, WINDOW_CELLS))
        # The mean of n images has a variance, too: 1 / n of that of one image.
        energy = cv2.transform(squares, np.full((1, 3), 1 / 3, np.float32)) / (1.0 + self._weight)
        self._count[energy > CHANGED_ENERGY * self._noise(energy)] = 0.0
        self._count += 1.0
        self._weight = np.maximum(1.0 / self._count, np.float32(least_weight))
        self._mean += cv2.multiply(difference, cv2.merge([self._weight] * 3))

    def steadiness(self) -> Steadiness:
        """Returns the result of the last comparison."""
        return Steadiness(self.shape[:2], self._weight)

    def _noise(self, energy: np.ndarray) -> float:
        """Returns the variance of a cell's noise, estimated where the images differ least."""
        place = int(QUIET_SHARE * energy.size)
        measured = float(np.partition(energy, place, axis=None)[place])
        # Some drivers repeat images; two equal ones say nothing about the noise.
        if measured > 0.0 or self._variance is None:
            allowed = math.inf if self._variance is None else NOISE_RISE * self._variance
            self._variance = min(max(min(measured, allowed), NOISE_VARIANCE[0]), NOISE_VARIANCE[1])
        return self._variance


def _cells(rgb: np.ndarray) -> np.ndarray:
    """Returns (h, w, 3) float32, the means over square cells whose side is 1, 2, 4 .. pixels."""
    # The image is halved repeatedly, because OpenCV has a path for this that is four times as fast.
    while max(rgb.shape[:2]) > REDUCED_SIDE_PX and min(rgb.shape[:2]) > 1:
        rgb = cv2.resize(rgb, (rgb.shape[1] // 2, rgb.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return rgb.astype(np.float32)


def _gain(cells: np.ndarray, mean: np.ndarray) -> float:
    """Returns the change of brightness of the whole image: the median ratio, on which motion has little influence."""
    new, old = cells[::2, ::2, 1], mean[::2, ::2, 1]
    known = old > DARK
    return float(np.median(new[known] / old[known])) if known.any() else 1.0


def _blend(before: np.ndarray, new: np.ndarray, weight: np.ndarray, out: np.ndarray) -> None:
    """Writes ``before + (new - before) * weight`` to ``out``, all (h, w) float32; NaN becomes 0."""
    # torch is imported here because it takes seconds, and nodes import this module before they can end cleanly.
    import torch

    # torch needs one pass where OpenCV needs three, and gives exactly the new values where their weight is 1.
    start, end, share = (torch.from_numpy(np.ascontiguousarray(array)) for array in (before, new, weight))
    torch.lerp(start, end, share, out=torch.from_numpy(out))
    cv2.patchNaNs(out, 0.0)
