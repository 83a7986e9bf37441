# SPDX-License-Identifier: Apache-2.0
"""What was found in one image for a command or a goal, and what of it is remembered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from clip_seg_ros.nodes.services.memory_keeper import Sight
from clip_seg_ros.pipeline.answering import Answer
from clip_seg_ros.pipeline.cell_maps import CellMaps
from clip_seg_ros.pipeline.postprocess import MAX_REGIONS
from clip_seg_ros.pipeline.space.localization import Measurement, measure
from clip_seg_ros.pipeline.space.solids import Speaker
from clip_seg_ros.pipeline.space.understanding import Asking, Understood, needs_space, understand
from clip_seg_ros.types import CameraFrame, ObjectRegion


@dataclass(frozen=True)
class Seen:
    """What was found for the phrases of a command or a goal."""

    asking: Asking
    maps: CellMaps
    """The probabilities of all names that the model was asked for."""
    measured: tuple[Measurement, ...]
    """The objects of these names."""
    understood: Understood
    """Those that the phrases mean."""

    @classmethod
    def of(
        cls,
        asking: Asking,
        found: Answer,
        frame: CameraFrame,
        up: tuple[float, float, float] | None = None,
        speaker: Speaker = "camera",
    ) -> Seen:
        """Measures what the model found in an image, and chooses what is meant; the last two are ``understand``'s."""
        measured = tuple(measure(region, frame) for region in found.regions)
        return cls(asking, found.maps, measured, understand(asking, measured, found.maps, frame, up, speaker))


def sight_of(seen: Sequence[Seen], frame: CameraFrame, camera: str, to_fixed: np.ndarray, least_score: float) -> Sight:
    """Returns what is remembered of an image, of all questions together.

    Args:
        seen: What was found for a command and for goals. A name that several asked for counts once.
        frame: The image.
        camera: Name of the camera.
        to_fixed: (4, 4), the transform from the image's frame to the fixed one.
        least_score: The threshold that is in force where places do not matter. Where they do, objects with lower scores
            are found, too, and are neither remembered nor missed.
    """
    regions: list[ObjectRegion] = []
    asked: dict[str, None] = {}
    for each in seen:
        asking = each.asking
        # A place says where a thing was, not what it is: a model may find whole phrases, which are no names.
        placed = {p for p, reference in zip(asking.prompts, asking.references, strict=True) if needs_space(reference)}
        names = [name for name in asking.names if name not in asked and name not in placed]
        found = [each.region for each in each.measured if each.region.prompt in names]
        if not asking.is_plain:
            faint = {region.prompt for region in found if region.score <= least_score}
            names = [name for name in names if name not in faint]
            found = [region for region in found if region.score > least_score]
        regions += found
        # What a phrase leaves out was not looked for, and is not missed.
        asked.update(dict.fromkeys(() if asking.negatives else names))
    best = sorted(regions, key=lambda region: -region.score)[:MAX_REGIONS]
    numbered = tuple(replace(region, id=number) for number, region in enumerate(best, start=1))
    return Sight(frame, camera, to_fixed, numbered, tuple(asked))
