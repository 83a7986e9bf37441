# SPDX-License-Identifier: Apache-2.0
"""Metrics of the stability of answers over time: identity switches, flicker of masks, and errors of positions.

Objects are matched as in CLEAR MOT (Bernardin and Stiefelhagen, EURASIP JIVP 2008, section 2.1.3), with the IoU of
masks instead of a distance. A pair of the frame before stays a pair while its IoU is at least 0.5; the other objects
and regions with an IoU of at least 0.5 are paired by decreasing IoU. An identity switch is a match of an object with
another id than at its last match, however long ago that was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clip_seg_ros.evaluation.metrics.masks import mask_iou
from clip_seg_ros.types import ObjectRegion

MIN_IOU = 0.5


@dataclass(frozen=True)
class TrueObject:
    """A true object for one prompt; an object that two prompts name counts as two."""

    prompt: str
    index: int
    """The number of the object, which is the same in every frame."""
    mask: np.ndarray
    """The visible pixels, (H, W) bool."""
    position_m: tuple[float, float, float] | None = None
    """The position of the visible surface in the camera's optical frame, metres; ``None`` if unknown."""


@dataclass(frozen=True)
class TrackingScores:
    """The scores of one or more sequences."""

    object_frames: int
    """The number of frames in which each object is visible, summed over the objects."""
    matches: int
    """The number of those frames in which the object was found, summed likewise."""
    switches: int
    """The number of matches with another id than at the object's match before."""
    flicker: float
    """The share of pixels whose prompts change between frames without motion, 0..1; NaN without such frames."""
    position_error_m: float
    """The median distance of matched objects from their true positions, metres; NaN if none has a position."""

    @property
    def switches_per_1000(self) -> float:
        """The identity switches per 1,000 frames of one object; NaN if no object was visible."""
        return 1000 * self.switches / self.object_frames if self.object_frames else math.nan


class TrackingMeter:
    """Adds up sequences one frame at a time."""

    def __init__(self) -> None:
        self._object_frames = self._matches = self._switches = 0
        self._changed = self._compared = 0
        self._errors_m: list[float] = []
        self.start_sequence()

    def start_sequence(self) -> None:
        """Begins another sequence, whose frames are not compared with those before."""
        self._last_ids: dict[tuple[str, int], int] = {}
        self._pairs: dict[tuple[str, int], int] = {}
        self._masks: np.ndarray | None = None

    def add(self, regions: Sequence[ObjectRegion], masks: np.ndarray, truth: Sequence[TrueObject], still: bool) -> None:
        """Counts one frame.

        Args:
            regions: Regions that were found, with ids that should last; regions of one prompt share no pixel.
            masks: Masks of the prompts, (P, H, W) bool. A frame with another P than the frame before is not compared.
            truth: True objects; those without a visible pixel are left out.
            still: Whether neither the camera nor an object moved since the frame before.

        Raises:
            ValueError: Masks are not bool or differ in shape.
        """
        if masks.ndim != 3 or masks.dtype != np.bool_:
            raise ValueError(f"masks must be (P, H, W) bool, got {masks.shape} {masks.dtype}")
        if still and self._masks is not None and self._masks.shape == masks.shape:
            self._changed += int(np.count_nonzero((masks != self._masks).any(axis=0)))
            self._compared += masks[0].size if len(masks) else 0
        self._masks = masks.copy()
        visible = [item for item in truth if item.mask.any()]
        self._object_frames += len(visible)
        pairs = self._match(regions, visible)
        for item in visible:
            key = (item.prompt, item.index)
            region = pairs.get(key)
            if region is None:
                continue
            self._matches += 1
            self._switches += self._last_ids.get(key, region.id) != region.id
            self._last_ids[key] = region.id
            if region.position_m is not None and item.position_m is not None:
                self._errors_m.append(math.dist(region.position_m, item.position_m))
        self._pairs = {key: region.id for key, region in pairs.items()}

    def scores(self) -> TrackingScores:
        """Returns the scores of all frames so far."""
        return TrackingScores(
            object_frames=self._object_frames,
            matches=self._matches,
            switches=self._switches,
            flicker=self._changed / self._compared if self._compared else math.nan,
            position_error_m=float(np.median(self._errors_m)) if self._errors_m else math.nan,
        )

    def _match(
        self, regions: Sequence[ObjectRegion], truth: Sequence[TrueObject]
    ) -> dict[tuple[str, int], ObjectRegion]:
        """Matches true objects with regions: (prompt, index) -> region."""
        candidates = []
        for item in truth:
            for region in regions:
                if region.prompt == item.prompt and (iou := mask_iou(region.mask, item.mask)) >= MIN_IOU:
                    key = (item.prompt, item.index)
                    candidates.append((self._pairs.get(key) != region.id, -iou, key, region))
        # Pairs of the frame before come first, then those with a higher IoU.
        candidates.sort(key=lambda candidate: candidate[:3])
        pairs: dict[tuple[str, int], ObjectRegion] = {}
        taken: set[int] = set()
        for _, _, key, region in candidates:
            if key not in pairs and region.id not in taken:
                pairs[key] = region
                taken.add(region.id)
        return pairs
