# SPDX-License-Identifier: Apache-2.0
"""Remembers which regions hold a single object, so that not every image must be searched for objects that touch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from clip_seg_ros.types import ObjectRegion

IMAGES = 10
"""After this many images a region is looked at again, even if it has not changed."""
LEAST_CHANGE = 0.05
"""A region has changed if its area, or an edge of its box as a share of the longer side, changed by more than this."""


@dataclass(frozen=True)
class _Single:
    """A region that held one object when it was looked at."""

    region: ObjectRegion
    left: int
    """The number of further images in which it need not be looked at."""


class Singles:
    """The regions of a camera's last image that hold a single object each."""

    def __init__(self) -> None:
        self._kept: list[_Single] = []

    def known(self, regions: Sequence[ObjectRegion]) -> set[int]:
        """Returns the places of those ``regions`` of the next image that are as they were, and forgets the others."""
        found: set[int] = set()
        kept = []
        for single in self._kept:
            place = next((place for place, region in enumerate(regions) if _alike(single.region, region)), None)
            if place is not None and place not in found and single.left > 0:
                found.add(place)
                kept.append(replace(single, left=single.left - 1))
        self._kept = kept
        return found

    def remember(self, regions: Iterable[ObjectRegion]) -> None:
        """Remembers regions of the same image that were looked at and hold one object each."""
        self._kept += [_Single(region, IMAGES - 1) for region in regions]


def _alike(before: ObjectRegion, now: ObjectRegion) -> bool:
    if before.prompt != now.prompt or before.image_size != now.image_size:
        return False
    if abs(now.area_px - before.area_px) > LEAST_CHANGE * before.area_px:
        return False
    x_min, y_min, x_max, y_max = before.box_px
    most = LEAST_CHANGE * max(x_max - x_min, y_max - y_min)
    return all(abs(one - other) <= most for one, other in zip(before.box_px, now.box_px))
