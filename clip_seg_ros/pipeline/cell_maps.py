# SPDX-License-Identifier: Apache-2.0
"""Probabilities at the model's own resolution, and the objects that they mean at the size of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from clip_seg_ros.pipeline.postprocess import MAX_REGIONS, regions_of
from clip_seg_ros.pipeline.runs import Runs, runs_above
from clip_seg_ros.types import ObjectRegion, ProbabilityMaps

if TYPE_CHECKING:  # torch takes seconds to import, and nodes import this before they can end cleanly
    from clip_seg_ros.pipeline.instances import Instance
    from clip_seg_ros.pipeline.preprocess import Geometry


@dataclass(frozen=True)
class CellMaps:
    """The probabilities that a model gives at its cells, of which each covers several pixels of the image."""

    prompts: tuple[str, ...]
    values: np.ndarray
    """(P, h, w) float32 in 0..1; P may be 0."""
    geometry: Geometry
    """How the cells cover the image."""
    objects: tuple[Instance, ...] | None = None
    """The objects of all prompts, the best first, of a model that finds them one by one; ``None``: they follow from the
    probabilities."""

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image."""
        return self.geometry.source_size

    def part(self, prompts: Sequence[str]) -> CellMaps:
        """Returns the maps of some of the prompts, without a copy if they are the first ones in their order."""
        prompts = tuple(prompts)
        objects = None if self.objects is None else tuple(item for item in self.objects if item.name in prompts)
        if prompts == self.prompts[: len(prompts)]:
            values = self.values[: len(prompts)]
        else:
            values = self.values[[self.prompts.index(prompt) for prompt in prompts]]
        return replace(self, prompts=prompts, values=values, objects=objects)

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


def objects_above(
    maps: CellMaps, threshold: float, min_area_px: int, decided: np.ndarray | None = None
) -> list[ObjectRegion]:
    """Returns the objects of all prompts, the best first, with ids 1, 2, ... in that order.

    They are those that the model found with a score above the threshold, if it finds objects one by one, and else the
    connected parts of the masks, tidied as ``postprocess.regions`` does.

    Args:
        maps: The probabilities.
        threshold: 0..1.
        min_area_px: Smaller objects are left out.
        decided: (P, h, w) float32 without NaN, what decides instead of the probabilities.
    """
    if maps.objects is None:
        runs = runs_of_cells(maps, maps.values if decided is None else decided, threshold)
        return regions_of(runs, maps.prompts, min_area_px, tidy=True)
    sure = [item.region(1) for item in maps.objects if item.score > threshold]
    large = [region for region in sure if region.area_px >= min_area_px][:MAX_REGIONS]
    return [replace(region, id=number) for number, region in enumerate(large, start=1)]
