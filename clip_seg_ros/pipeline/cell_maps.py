# SPDX-License-Identifier: Apache-2.0
"""Probabilities at the model's own resolution, and the objects that they mean at the size of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from clip_seg_ros.pipeline.runs import Runs, runs_above
from clip_seg_ros.types import ProbabilityMaps

if TYPE_CHECKING:  # torch takes seconds to import, and nodes import this before they can end cleanly
    from clip_seg_ros.pipeline.preprocess import Geometry


@dataclass(frozen=True)
class CellMaps:
    """The probabilities that a model gives at its cells, of which each covers several pixels of the image."""

    prompts: tuple[str, ...]
    values: np.ndarray
    """(P, h, w) float32 in 0..1; P may be 0."""
    geometry: Geometry
    """How the cells cover the image."""

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image."""
        return self.geometry.source_size

    def part(self, prompts: Sequence[str]) -> CellMaps:
        """Returns the maps of some of the prompts, without a copy if they are the first ones in their order."""
        prompts = tuple(prompts)
        if prompts == self.prompts[: len(prompts)]:
            return replace(self, prompts=prompts, values=self.values[: len(prompts)])
        return replace(self, prompts=prompts, values=self.values[[self.prompts.index(prompt) for prompt in prompts]])

    def best_score(self) -> float:
        """Returns the highest probability of any cell for any prompt, 0..1; 0 without prompts."""
        return float(self.values.max(initial=0.0))

    def restored(self) -> ProbabilityMaps:
        """Returns the probabilities at the size of the image, (P, H, W)."""
        return ProbabilityMaps(self.prompts, self.geometry.restore(self.values))

    def confidence(self) -> np.ndarray:
        """Returns (H, W) float32: the highest probability of any prompt at every pixel, 0 without prompts."""
        best = np.zeros(self.size, np.float32)
        for values in self.values:
            np.maximum(best, self.geometry.restore(values[None])[0], out=best)
        return best


def runs_of_cells(maps: CellMaps, decided: np.ndarray, threshold: float) -> Runs:
    """Finds the pixels where ``decided`` exceeds the threshold, as runs with the sums of the probabilities.

    They are the pixels of ``maps.geometry.restore(decided) > threshold``, up to rounding; with a letterbox they follow
    ``Geometry.fine``.

    Args:
        maps: The probabilities.
        decided: (P, h, w) float32 without NaN, what decides; ``maps.values`` itself or what smoothing made of it.
        threshold: A pixel is inside above it, 0..1.
    """
    fine = maps.geometry.fine(decided)
    values = fine if decided is maps.values else maps.geometry.fine(maps.values)
    return runs_above(fine, threshold, values, maps.size)
