# SPDX-License-Identifier: Apache-2.0
"""The objects of one image, in the fixed frame, as ``recollection.ObjectMemory`` compares them with what it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clip_seg_ros.commands.meaning import related
from clip_seg_ros.pipeline.postprocess import shared_px
from clip_seg_ros.pipeline.space.fixed_frame import axes, moved_box, moved_points
from clip_seg_ros.pipeline.space.rays import ray_table
from clip_seg_ros.pipeline.stream.tracking import color_histogram
from clip_seg_ros.types import CameraFrame, ObjectRegion, OrientedBox, vector3

SURFACE_POINTS = 64
SAMPLES = 512
"""The number of pixels of a region from which the points of its surface are chosen."""
DISPUTE_SCORE = 0.1
"""By how much the score of another name must be better for a region in the same place to be no sighting."""
_BOX_SLACK_M = 0.005
_SAME_SHARE = 0.5
"""Two regions that share more than this part of the smaller one are one object under two names."""


@dataclass(frozen=True)
class Thing:
    """One object of an image, in the fixed frame."""

    region: ObjectRegion
    phrase: str
    position_m: tuple[float, float, float]
    box_m: OrientedBox | None
    surface_m: np.ndarray
    looks: np.ndarray
    features: np.ndarray | None

    @property
    def size_m(self) -> float:
        return self.box_m.size_m[0] if self.box_m is not None else 0.0


def things_of(
    frame: CameraFrame, to_fixed: np.ndarray, regions: Sequence[ObjectRegion], features: Mapping[int, np.ndarray]
) -> list[Thing]:
    """Returns the objects of an image that have positions, each under its longest name alone."""
    things: list[Thing] = []
    chosen: list[ObjectRegion] = []
    for region in _undisputed(sorted(regions, key=lambda each: (-len(each.prompt.split()), -each.score))):
        if region.image_size != frame.rgb.shape[:2]:
            raise ValueError(
                f"region {region.id} is of an image of {region.image_size}, this has {frame.rgb.shape[:2]}"
            )
        if region.position_m is None or any(is_same(region, other) for other in chosen):
            continue
        chosen.append(region)
        given = features.get(region.id)
        things.append(
            Thing(
                region,
                region.prompt,
                vector3(moved_points(to_fixed, np.array(region.position_m))),
                None if region.box_m is None else moved_box(to_fixed, region.box_m),
                moved_points(to_fixed, _surface(region, frame)).astype(np.float32),
                color_histogram(region, frame.rgb),
                None if given is None else np.asarray(given, np.float32).copy(),
            )
        )
    return things


def _undisputed(regions: Sequence[ObjectRegion]) -> list[ObjectRegion]:
    """Returns the regions without those that mostly lie in one of an unrelated name with a much better score."""

    def is_disputed(region: ObjectRegion) -> bool:
        return any(
            other.score >= region.score + DISPUTE_SCORE
            and shared_px(region, other) > _SAME_SHARE * region.area_px
            and not related(region.prompt, other.prompt)
            for other in regions
        )

    return [region for region in regions if not is_disputed(region)]


def is_same(region: ObjectRegion, other: ObjectRegion) -> bool:
    """Returns whether two regions are one object under names of which one covers the other."""
    least = _SAME_SHARE * min(region.area_px, other.area_px)
    return related(region.prompt, other.prompt) and shared_px(region, other) > least


def is_whole(region: ObjectRegion) -> bool:
    """Returns whether a region does not reach the border of its image."""
    x_min, y_min, x_max, y_max = region.box_px
    height, width = region.image_size
    return min(x_min, y_min, width - x_max, height - y_max) > 0


def _surface(region: ObjectRegion, frame: CameraFrame) -> np.ndarray:
    """Returns points (N, 3) of a region's visible surface in the optical frame; none without depth or a box."""
    if frame.depth_m is None or frame.intrinsics is None or region.box_m is None:
        return np.empty((0, 3), np.float32)
    pixels = evenly(np.argwhere(region.inside), SAMPLES) + np.array(region.box_px[1::-1])  # row, column
    z = frame.depth_m[pixels[:, 0], pixels[:, 1]]
    rays = ray_table(frame.intrinsics)[pixels[:, 0], pixels[:, 1]]
    valid = (z > 0) & np.isfinite(z) & np.isfinite(rays[:, 0])
    points = np.column_stack([rays[valid] * z[valid, None], z[valid]])
    off = np.abs((points - np.array(region.box_m.center_m)) @ axes(region.box_m))
    inside = (off <= np.array(region.box_m.size_m) / 2 + _BOX_SLACK_M).all(axis=1)
    return evenly(points[inside], SURFACE_POINTS)


def evenly(rows: np.ndarray, most: int) -> np.ndarray:
    """Returns at most ``most`` of the rows of an array, evenly spread over their order."""
    count = len(rows)
    return rows if count <= most else rows[(2 * np.arange(most) + 1) * count // (2 * most)]
