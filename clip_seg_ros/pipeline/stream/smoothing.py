# SPDX-License-Identifier: Apache-2.0
"""Steadies a model's answers over time: strongly where the picture stands still, not at all where it changed.

Whether a place changed is tested as in Aach, Kaup and Mester (Statistical model-based change detection in moving
video, Signal Processing 31, 1993, section 2). With the difference d of two pictures, the noise's variance s² in it and
a window of N values,

    E = 1 / (N s²) * sum of d² over the window

is about 1 where there is only noise, and far more where anything moved. The earlier picture is here not the last
one but the average of all since the last change, weighted as the answers are: what moves so slowly that no two pictures
differ still leaves that average behind in the end.

Where nothing changed, the answers of n + 1 pictures are averaged as a0 = x0, an = an-1 + (xn - an-1) w with the weight
w = max(1 / (n + 1), 1 - strength): a plain mean at first and an exponential one later.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from clip_seg_ros.pipeline import postprocess
from clip_seg_ros.types import MaskSet, ProbabilityMaps

REDUCED_SIDE_PX = 160
"""Changes are looked for in a picture that is halved until no side is longer; its pixels are cells of the full one."""
WINDOW_CELLS = 5
"""Side of the test's window; with three colours N = 75, and E of pure noise has a standard deviation of 0.16."""
CHANGED_ENERGY = 3.0
"""E above which a place has changed. Far beyond the noise, for that of real cameras is neither the same everywhere nor
independent from pixel to pixel; what moves mostly reaches 10 to 1,000."""
QUIET_SHARE = 0.3
"""The noise is what this share of the places shows at most, so that up to 0.7 of the picture may move."""
NOISE_RISE = 1.1
"""How fast the noise's variance may rise from one picture to the next; a moving camera must not pass for noise."""
DARK = 8.0
"""Grey levels up to which a cell says nothing about brightness."""
NOISE_VARIANCE = (0.02, 16.0)
"""Smallest and largest of one cell's values, in squared grey levels: rounding alone, and the worst of cameras."""


@dataclass(frozen=True)
class _Answer:
    """The last answer to one prompt."""

    probabilities: np.ndarray
    """(H, W) float32; handed out, so never written to again."""
    mask: np.ndarray
    """(H, W) bool, the same."""


@dataclass(frozen=True)
class Steadiness:
    """How far one picture is as those before it were."""

    shape: tuple[int, int]
    """(H, W) of the picture."""
    weight: np.ndarray | None = None
    """(H, W) float32, 0..1, of the new answer in the average; ``None`` where there was no picture before."""
    steady: np.ndarray | None = None
    """(H, W) bool, where nothing changed; the same."""


class TemporalSmoother:
    """Averages probabilities over time where the camera's picture stands still, and decides with hysteresis.

    Where the picture changed by more than its noise, the new answer is taken as it is, so that nothing trails behind a
    moving object. A change of brightness of the whole picture is no change.

    ``look`` needs the image alone, so that it can go on beside the model, and ``smooth`` what the model answered.

    It holds a state: one smoother a camera, frames in the order of their stamps. The state of each prompt is its own,
    so that prompts may come and go. It starts anew with another size of image, a stamp before the last one, and a gap.

    Args:
        strength: 0 to below 1, the weight that the past comes to have where nothing moves: 0.9 averages the last 19
            frames or so. 0 switches everything off, hysteresis included: the output is exactly the input.
        margin: A pixel enters a mask above ``threshold + margin`` and leaves it below ``threshold - margin``. Where
            the picture changed, the threshold alone decides.
        max_gap_s: Seconds between two frames after which the past is forgotten.

    Raises:
        ValueError: An argument is out of range.

    Examples:
        >>> smoother = TemporalSmoother()
        >>> maps = ProbabilityMaps(("cup",), np.full((1, 480, 640), 0.7, np.float32))
        >>> rgb = np.full((480, 640, 3), 127, np.uint8)
        >>> smoothed, mask_set = smoother.smooth(maps, smoother.look(rgb, stamp_ns=0), threshold=0.5)
        >>> bool(mask_set.values.all())
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
        """Forgets everything; the next frame is the first."""
        self._answers: dict[str, _Answer] = {}
        self._picture: _SteadyPicture | None = None
        self._stamp_ns = 0
        self._threshold = math.nan

    def forget(self, prompt: str) -> None:
        """Forgets the answers to one prompt; its next one is the first."""
        self._answers.pop(prompt, None)

    def look(self, rgb: np.ndarray, stamp_ns: int) -> Steadiness:
        """Compares the next frame's picture with those before.

        Args:
            rgb: (H, W, 3) uint8, the image.
            stamp_ns: When it was taken.

        Returns:
            For ``smooth``, which must come before the next look; after a frame without an answer, ``reset``.

        Raises:
            ValueError: ``rgb`` is no such image.
        """
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
            raise ValueError(f"rgb must be a (H, W, 3) uint8 array, got {rgb.shape} {rgb.dtype}")
        if self.strength == 0.0:
            return Steadiness(rgb.shape[:2])
        past_s = (stamp_ns - self._stamp_ns) * 1e-9
        self._stamp_ns, picture = stamp_ns, self._picture
        if picture is None or picture.shape != rgb.shape or not 0.0 <= past_s <= self.max_gap_s:
            self._answers, self._threshold = {}, math.nan
            self._picture = _SteadyPicture(rgb)
            return Steadiness(rgb.shape[:2])
        picture.compare(rgb, 1.0 - self.strength)
        return picture.at_full_size()

    def smooth(self, maps: ProbabilityMaps, picture: Steadiness, threshold: float) -> tuple[ProbabilityMaps, MaskSet]:
        """Takes one frame's answers and returns steadier ones, and the masks that they give.

        Prompts that are not in ``maps`` are forgotten.

        Args:
            maps: (P, H, W), the model's answers. NaN counts as 0.
            picture: What ``look`` made of the image that they are about.
            threshold: 0..1, as of ``postprocess.masks``. After a change of it the first masks have no hysteresis.

        Raises:
            ValueError: The image was not of the size of ``maps``, or the threshold is out of range.
        """
        if picture.shape != maps.values.shape[1:]:
            raise ValueError(f"the image is {picture.shape}, its probabilities {maps.values.shape[1:]}")
        if self.strength == 0.0:
            return maps, postprocess.masks(maps, threshold)
        if not 0.0 <= threshold <= 1.0:
            raise ValueError(f"threshold must lie in 0..1, got {threshold}")
        margin = self.margin if threshold == self._threshold else 0.0
        values, decided = np.empty_like(maps.values), np.empty(maps.values.shape, np.bool_)
        for prompt, new, smoothed, mask in zip(maps.prompts, maps.values, values, decided, strict=True):
            before = self._answers.get(prompt)
            if before is None:
                np.copyto(smoothed, new)
                cv2.patchNaNs(smoothed, 0.0)
                np.greater(smoothed, threshold, out=mask)
            else:
                _blend(before.probabilities, new, picture.weight, smoothed)
                _decide(smoothed, before.mask, picture.steady, threshold, margin, mask)
        self._answers = {
            prompt: _Answer(smoothed, mask)
            for prompt, smoothed, mask in zip(maps.prompts, values, decided, strict=True)
        }
        self._threshold = threshold
        return ProbabilityMaps(maps.prompts, values), MaskSet(maps.prompts, decided, threshold)


class _SteadyPicture:
    """What the camera saw since the last change, at each place, and how much the next picture counts there."""

    def __init__(self, rgb: np.ndarray) -> None:
        self.shape = rgb.shape
        self._mean = _cells(rgb)
        self._count = np.ones(self._mean.shape[:2], np.float32)
        self._weight = np.ones_like(self._count)
        self._variance: float | None = None

    def compare(self, rgb: np.ndarray, least_weight: float) -> None:
        """Takes the next picture in; a place that changed starts anew with it."""
        cells = _cells(rgb)
        self._mean *= _gain(cells, self._mean)
        difference = cells - self._mean
        squares = cv2.boxFilter(cv2.multiply(difference, difference), -1, (WINDOW_CELLS, WINDOW_CELLS))
        # The mean of n pictures has a variance too, 1 / n of one picture's.
        energy = cv2.transform(squares, np.full((1, 3), 1 / 3, np.float32)) / (1.0 + self._weight)
        self._count[energy > CHANGED_ENERGY * self._noise(energy)] = 0.0
        self._count += 1.0
        self._weight = np.maximum(1.0 / self._count, np.float32(least_weight))
        self._mean += cv2.multiply(difference, cv2.merge([self._weight] * 3))

    def at_full_size(self) -> Steadiness:
        """What the last comparison came to, for every pixel."""
        size = (self.shape[1], self.shape[0])
        steady = (self._weight < 1.0).view(np.uint8)
        return Steadiness(
            self.shape[:2],
            cv2.resize(self._weight, size, interpolation=cv2.INTER_LINEAR),
            cv2.resize(steady, size, interpolation=cv2.INTER_NEAREST).view(np.bool_),
        )

    def _noise(self, energy: np.ndarray) -> float:
        """The variance of one value of a cell, from that of the places that differ least."""
        place = int(QUIET_SHARE * energy.size)
        measured = float(np.partition(energy, place, axis=None)[place])
        # Drivers repeat pictures; two equal ones say nothing about the noise.
        if measured > 0.0 or self._variance is None:
            allowed = math.inf if self._variance is None else NOISE_RISE * self._variance
            self._variance = min(max(min(measured, allowed), NOISE_VARIANCE[0]), NOISE_VARIANCE[1])
        return self._variance


def _cells(rgb: np.ndarray) -> np.ndarray:
    """(h, w, 3) float32, means over cells of 1, 2, 4 .. pixels' side."""
    # By halves, for which OpenCV has a path that is four times as fast.
    while max(rgb.shape[:2]) > REDUCED_SIDE_PX and min(rgb.shape[:2]) > 1:
        rgb = cv2.resize(rgb, (rgb.shape[1] // 2, rgb.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return rgb.astype(np.float32)


def _gain(cells: np.ndarray, mean: np.ndarray) -> float:
    """How much brighter the picture became as a whole: the median ratio, which what moves hardly shifts."""
    new, old = cells[::2, ::2, 1], mean[::2, ::2, 1]
    known = old > DARK
    return float(np.median(new[known] / old[known])) if known.any() else 1.0


def _decide(
    values: np.ndarray, before: np.ndarray, steady: np.ndarray, threshold: float, margin: float, out: np.ndarray
) -> None:
    """Writes the mask (H, W) bool to ``out``: with hysteresis about the last one where the picture was steady."""
    level, width = np.float32(threshold), np.float32(margin)
    np.greater(values, level, out=out)
    if margin == 0.0:
        return
    # Few pixels lie between the levels: where none does, the threshold has decided.
    undecided = values > level - width
    undecided &= values <= level + width
    undecided &= steady
    np.copyto(out, before, where=undecided)


def _blend(before: np.ndarray, new: np.ndarray, weight: np.ndarray, out: np.ndarray) -> None:
    """Writes ``before + (new - before) * weight`` to ``out``, all (H, W) float32; 0 where that is NaN."""
    # Here and not above: it takes seconds to import, and nodes import this before they can end cleanly.
    import torch

    # One pass where OpenCV needs three, and exactly the new answer where its weight is 1.
    start, end, share = (torch.from_numpy(np.ascontiguousarray(array)) for array in (before, new, weight))
    torch.lerp(start, end, share, out=torch.from_numpy(out))
    cv2.patchNaNs(out, 0.0)
