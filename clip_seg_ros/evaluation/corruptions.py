# SPDX-License-Identifier: Apache-2.0
"""Corrupts images by level, to measure how robust a model is: MaskCLIP's table of robustness.

The corruptions and the strengths of their five levels are those of ImageNet-C (Hendrycks and Dietterich, "Benchmarking
Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019). MaskCLIP's authors use these eight. As
in their configurations, an image is corrupted at its own size, before it is prepared for the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import cv2
import numpy as np

from clip_seg_ros.data.samples import InstanceSample, ReferringSample, SemanticSample
from clip_seg_ros.data.suggestions import did_you_mean
from clip_seg_ros.evaluation.prefetch import Dataset

Sample = TypeVar("Sample", ReferringSample, SemanticSample, InstanceSample)
LEVELS = (1, 2, 3, 4, 5)
"""The levels of every corruption, from the weakest to the strongest."""
_WATER, _MUD = (175, 238, 238), (63, 42, 20)
_Corruption = Callable[[np.ndarray, np.random.Generator, Any], np.ndarray]
"""Takes an image (H, W, 3) float32 of 0..1, a generator of random numbers and the strength of a level; returns an image
of the same size whose values may lie outside of 0..1."""


def _gaussian_noise(x: np.ndarray, rng: np.random.Generator, deviation: float) -> np.ndarray:
    return x + rng.normal(0.0, deviation, x.shape)


def _shot_noise(x: np.ndarray, rng: np.random.Generator, photons: float) -> np.ndarray:
    """Counts photons, of which a white pixel has so many in the mean."""
    return rng.poisson(x * photons) / photons


def _impulse_noise(x: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Replaces a share of the values by 0 or 1."""
    extremes = (rng.random(x.shape) < 0.5).astype(x.dtype)
    return np.where(rng.random(x.shape) < share, extremes, x)


def _speckle_noise(x: np.ndarray, rng: np.random.Generator, deviation: float) -> np.ndarray:
    return x + x * rng.normal(0.0, deviation, x.shape)


def _gaussian_blur(x: np.ndarray, _: np.random.Generator, deviation_px: float) -> np.ndarray:
    return _blurred(x, deviation_px)


def _defocus_blur(x: np.ndarray, _: np.random.Generator, strength: tuple[int, float]) -> np.ndarray:
    """Replaces every pixel by the mean over a disk, whose edge is smoothed."""
    radius_px, smoothing_px = strength
    reach = np.arange(-max(8, radius_px), max(8, radius_px) + 1)
    disk = (reach[:, None] ** 2 + reach**2 <= radius_px**2).astype(np.float32)
    side = 3 if radius_px <= 8 else 5
    return cv2.filter2D(x, -1, cv2.GaussianBlur(disk / disk.sum(), (side, side), smoothing_px))


def _jpeg_compression(x: np.ndarray, _: np.random.Generator, quality: int) -> np.ndarray:
    bgr = np.round(x[..., ::-1] * 255).astype(np.uint8)
    encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1] / 255.0


@dataclass(frozen=True)
class _Splashes:
    """The strength of spatter. A blurred field of noise makes the drops: they are where it is above a limit."""

    mean: float
    deviation: float
    blur_px: float
    limit: float
    strength: float
    """Of water: its highest opacity. Of mud: the blur of its edges in pixels."""
    is_mud: bool


def _spatter(x: np.ndarray, rng: np.random.Generator, splashes: _Splashes) -> np.ndarray:
    field = _blurred(rng.normal(splashes.mean, splashes.deviation, x.shape[:2]).astype(np.float32), splashes.blur_px)
    if splashes.is_mud:
        opacity = _blurred((field > splashes.limit).astype(np.float32), splashes.strength)
        opacity[opacity < 0.8] = 0.0
        return x * (1 - opacity[..., None]) + opacity[..., None] * np.array(_MUD, np.float32) / 255
    drops = (np.where(field < splashes.limit, 0.0, field) * 255).clip(0, 255).astype(np.uint8)
    shine = drops * _relief(drops)
    if (highest := shine.max()) > 0:
        shine *= splashes.strength / highest
    return x + shine[..., None] * np.array(_WATER, np.float32) / 255


def _relief(drops: np.ndarray) -> np.ndarray:
    """Returns how bright drops (H, W) uint8 are, (H, W) float32: most near their edges, and lit from one side."""
    edges = cv2.Canny(drops, 50, 150)
    distance_px = cv2.distanceTransform(255 - edges, cv2.DIST_L2, 5).clip(max=20)
    even = cv2.equalizeHist(cv2.blur(distance_px, (3, 3)).astype(np.uint8))
    lit = cv2.filter2D(even, cv2.CV_8U, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]))
    return cv2.blur(lit, (3, 3)).astype(np.float32)


def _blurred(values: np.ndarray, deviation_px: float) -> np.ndarray:
    """Blurs with a Gaussian that is cut off at four deviations; the border's values go on outside."""
    side = 2 * int(4 * deviation_px + 0.5) + 1
    return cv2.GaussianBlur(values, (side, side), deviation_px, borderType=cv2.BORDER_REPLICATE)


_CORRUPTIONS: dict[str, tuple[_Corruption, tuple[Any, ...]]] = {
    "gaussian_noise": (_gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": (_shot_noise, (60.0, 25.0, 12.0, 5.0, 3.0)),
    "impulse_noise": (_impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),
    "speckle_noise": (_speckle_noise, (0.15, 0.2, 0.35, 0.45, 0.6)),
    "gaussian_blur": (_gaussian_blur, (1.0, 2.0, 3.0, 4.0, 6.0)),
    "defocus_blur": (_defocus_blur, ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))),
    "spatter": (
        _spatter,
        (
            _Splashes(0.65, 0.3, 4.0, 0.69, 0.6, is_mud=False),
            _Splashes(0.65, 0.3, 3.0, 0.68, 0.6, is_mud=False),
            _Splashes(0.65, 0.3, 2.0, 0.68, 0.5, is_mud=False),
            _Splashes(0.65, 0.3, 1.0, 0.65, 1.5, is_mud=True),
            _Splashes(0.67, 0.4, 1.0, 0.65, 1.5, is_mud=True),
        ),
    ),
    "jpeg_compression": (_jpeg_compression, (25, 18, 15, 10, 7)),
}
CORRUPTIONS = tuple(_CORRUPTIONS)
"""The names of the corruptions, in the order of MaskCLIP's table."""


@dataclass(frozen=True)
class Corruption:
    """One corruption at one level."""

    name: str
    """One of ``CORRUPTIONS``."""
    level: int
    """One of ``LEVELS``."""

    def __post_init__(self) -> None:
        if self.name not in CORRUPTIONS:
            hint = did_you_mean(self.name, CORRUPTIONS)
            raise ValueError(f'there is no corruption "{self.name}": use {", ".join(CORRUPTIONS)}{hint}')
        if self.level not in LEVELS:
            raise ValueError(f"the level of {self.name} must lie in {LEVELS[0]}..{LEVELS[-1]}, got {self.level}")

    def __call__(self, rgb: np.ndarray, seed: int) -> np.ndarray:
        """Corrupts an image (H, W, 3) uint8; the same seed gives the same result, of the same shape and type."""
        corrupt, strengths = _CORRUPTIONS[self.name]
        values = corrupt(rgb.astype(np.float32) / 255, np.random.default_rng(seed), strengths[self.level - 1])
        return np.round(values.clip(0, 1) * 255).astype(np.uint8)


class CorruptedImages(Generic[Sample]):
    """A data set whose images are corrupted and whose truth is as it was. Each image has random numbers of its own.

    Args:
        dataset: Any data set of this package.
        corruption: The corruption.
    """

    def __init__(self, dataset: Dataset[Sample], corruption: Corruption) -> None:
        self._dataset: Dataset[Sample] = dataset
        self._corruption = corruption

    def __getattr__(self, name: str) -> Any:
        # What a data set has beside its samples, such as the names of its classes, stays as it is.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        """Reads a sample; raises what the data set raises."""
        sample = self._dataset[index]
        return replace(sample, rgb=self._corruption(sample.rgb, seed=index))


def parse_corruptions(texts: list[str]) -> tuple[Corruption, ...]:
    """Reads corruptions as they are written: ``NAME:LEVEL``, ``NAME`` for all levels, or ``all``.

    Raises:
        ValueError: There is no such corruption or level.
    """
    found: list[Corruption] = []
    for text in texts:
        name, colon, level = text.partition(":")
        if colon and not level.isdecimal():
            raise ValueError(f'a corruption is written NAME:LEVEL, such as gaussian_noise:3, and not "{text}"')
        names = CORRUPTIONS if name == "all" else (name,)
        levels = (int(level),) if colon else LEVELS
        found += [Corruption(each, one) for each in names for one in levels]
    return tuple(dict.fromkeys(found))
