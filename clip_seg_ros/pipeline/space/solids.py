# SPDX-License-Identifier: Apache-2.0
"""Regions -> solids: how far each object reaches over the ground and above it, hidden sides included.

A camera sees the near side of things. What is hidden is guessed as people guess it: things are about as deep as they
are wide, and their far side is like their near side. Without depth, the picture itself is the ground: further up is
further away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from clip_seg_ros.pipeline.space.ground import Plane, fit_ground
from clip_seg_ros.pipeline.space.localization import Measurement
from clip_seg_ros.types import CameraFrame, ObjectRegion, OrientedBox

DIRECTIONS = 24
"""The number of directions over the ground in which the reach of an object is known; a multiple of four."""
MOST_POINTS = 300
"""The number of an object's points that are looked at."""
TRIM = 0.02
"""The share of the points that may lie beyond the reach of an object, so that no single pixel decides."""
DEEPER = 2.0
"""A solid is at most this many times as deep as its visible surface."""
SLANT = 0.6
"""How much shorter things on the ground look away from the camera than across, where no depth tells: the sine of the
angle at which a camera usually looks at a table."""
STEEP = 0.97
"""The least cosine of the angle between the view and the vertical at which things hide their own sides: 14 degrees."""
_ANGLES = 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS
AROUND = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)])
"""(2, DIRECTIONS): the unit vectors of the directions, to the right and away from the camera; the first points to the
right, and the one a quarter further away from the camera."""
_OPPOSITE = (np.arange(DIRECTIONS) + DIRECTIONS // 2) % DIRECTIONS
_AWAY, _NEAR = DIRECTIONS // 4, 3 * DIRECTIONS // 4


@dataclass(frozen=True)
class Person:
    """Where a person stands who speaks, and where they look, in the optical frame."""

    at_m: tuple[float, float, float]
    ahead: tuple[float, float, float]
    """The unit vector that points forward from them."""
    left: tuple[float, float, float]
    """The one that points to their left."""


Speaker = Person | Literal["camera", "unknown"]
"""Whose left "my left" is: the camera's, a person's, or that of a person of whom nothing is known."""


@dataclass(frozen=True)
class SpaceFrame:
    """What is known of the space that a camera sees."""

    up: tuple[float, float, float] | None = None
    """The direction against gravity, a unit vector of the optical frame; ``None`` stands for the plane's, and without
    one for the direction that is up in the image."""
    ground: Plane | None = None
    """The plane that things stand on."""
    points_m: Mapping[int, np.ndarray] = field(default_factory=dict)
    """The visible surfaces (N, 3) of regions in the optical frame, by the ids of the regions. Boxes stand for those
    that are missing, which is less exact."""
    speaker: Speaker = "camera"
    """Who says "on my left"."""

    @classmethod
    def of(
        cls,
        frame: CameraFrame,
        measurements: Sequence[Measurement] = (),
        up: tuple[float, float, float] | None = None,
        speaker: Speaker = "camera",
    ) -> SpaceFrame:
        """Finds the ground in an image with depth, and keeps some points of what was measured in it."""
        points = {each.region.id: _some(each.points_m) for each in measurements if len(each.points_m)}
        return cls(up, fit_ground(frame, up), points, speaker)


@dataclass(frozen=True, eq=False)
class Solid:
    """The space that an object takes: metres, or shares of the picture's width where there is no depth."""

    region: ObjectRegion
    middle: np.ndarray
    """(2,): the middle of its footprint, to the camera's right and away from the camera along the ground."""
    reach: np.ndarray
    """(DIRECTIONS,): how far the footprint reaches in each of ``AROUND``, measured from the camera's foot."""
    low: float
    """The lowest visible point: its height above the ground, or along ``up`` above the camera without a ground."""
    high: float
    """The highest visible point."""
    bearing: float
    """Where it is seen from left to right, as a share of its distance, or of the picture's width."""
    foot: float
    """Where it may begin, as far as can be seen: whoever looks straight down on a thing sees its top alone."""
    tall: float
    """Its own height, hidden parts included."""
    in_metres: bool
    own: np.ndarray | None
    """(2,): how far ahead of the person who speaks its middle is, and how far to their left; ``None`` if unknown."""
    far: float
    """How far away it is from the person who speaks; from the camera along its view if nobody else is known."""

    @property
    def sizes(self) -> np.ndarray:
        """(DIRECTIONS,): the width of the footprint along each direction."""
        return self.reach + self.reach[_OPPOSITE]

    @property
    def breadth(self) -> float:
        """The mean width of the footprint."""
        return float(self.sizes.mean())

    @property
    def size(self) -> float:
        """The length of an edge of the cube that has the object's volume; without depth, of its square in the image."""
        if not self.in_metres:
            return float(np.sqrt(self.region.area_px)) / self.region.image_size[1]
        sizes = self.sizes
        return float(np.cbrt(max(sizes.max() * sizes.min() * max(self.tall, 0.01), 0.0)))


def solids_of(regions: Sequence[ObjectRegion], space: SpaceFrame) -> list[Solid]:
    """Makes the solids of regions of one image: in metres if all have positions, else in the picture."""
    if not regions or any(region.position_m is None for region in regions):
        return [_pictured(region, space.speaker == "camera") for region in regions]
    axes = _axes(space)
    return [_measured(region, space, axes) for region in regions]


def _axes(space: SpaceFrame) -> np.ndarray:
    """Returns the unit vectors (3, 3) to the right, away along the ground, and up, as rows in the optical frame."""
    up = np.asarray(space.up or (space.ground.up if space.ground else (0.0, -1.0, 0.0)), np.float64)
    up = up / np.linalg.norm(up)
    # What a camera that looks straight down sees further up in its image is further away.
    seen = np.array([0.0, -1.0, 0.0]) if abs(up[2]) > 0.99 else np.array([0.0, 0.0, 1.0])
    away = seen - (seen @ up) * up
    away /= np.linalg.norm(away)
    return np.stack([np.cross(away, up), away, up])


def _measured(region: ObjectRegion, space: SpaceFrame, axes: np.ndarray) -> Solid:
    position = axes @ np.asarray(region.position_m)
    points = space.points_m.get(region.id)
    if points is not None:
        seen = _some(points) @ axes.T.astype(np.float32)
        along = (seen[:, :2] @ AROUND.astype(np.float32)).T  # (DIRECTIONS, N)
        rank = len(seen) - 1 - int(TRIM * (len(seen) - 1))
        reach = np.partition(along, rank, axis=1)[:, rank].astype(np.float64)
        heights = np.sort(seen[:, 2])
        low, high = float(heights[len(seen) - 1 - rank]), float(heights[rank])
    elif region.box_m is not None:
        center = axes @ np.asarray(region.box_m.center_m)
        half = _half(region.box_m, np.vstack([AROUND.T @ axes[:2], axes[2:]]))
        reach = center[:2] @ AROUND + half[:-1]
        low, high = float(center[2] - half[-1]), float(center[2] + half[-1])
    else:
        reach, low, high = position[:2] @ AROUND, position[2], position[2]
    lift = space.ground.camera_m if space.ground else 0.0
    low, high = low + lift, high + lift
    middle = _middle_of(reach)
    reach = np.maximum(reach, 2 * (middle @ AROUND) + reach[_OPPOSITE])
    x, _, z = region.position_m or (0.0, 0.0, 1.0)
    foot = low
    if -float(position[2]) > STEEP * float(np.linalg.norm(position)):
        foot = 0.0 if space.ground else low - float((reach + reach[_OPPOSITE]).mean())
    # What is seen of a thing whose foot is hidden begins high above the ground that it stands on.
    tall = high if space.ground and 0 < low < high / 2 else high - foot
    own = _seen_by(space.speaker, middle, axes.T @ np.array([*middle, position[2]]))
    far = float(middle[1]) if own is None or space.speaker == "camera" else float(np.hypot(*own))
    return Solid(region, middle, reach, low, high, x / max(z, 1e-6), foot, tall, True, own, far)


def _seen_by(speaker: Speaker, middle: np.ndarray, middle_m: np.ndarray) -> np.ndarray | None:
    """Returns where something is for the person who speaks: (2,) ahead and to the left.

    Args:
        speaker: The person.
        middle: (2,): to the camera's right and away from it.
        middle_m: (3,): the same point in the optical frame.
    """
    if isinstance(speaker, Person):
        return np.array([speaker.ahead, speaker.left]) @ (middle_m - speaker.at_m)
    return np.array([middle[1], -middle[0]]) if speaker == "camera" else None


def _half(box: OrientedBox, ways: np.ndarray) -> np.ndarray:
    """Returns how far a box reaches from its centre along unit vectors (N, 3), (N,) metres; as ``reach_m`` for each."""
    x, y, z, w = box.orientation_xyzw
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    return np.abs(ways @ turn) @ np.asarray(box.size_m) / 2


def _middle_of(reach: np.ndarray) -> np.ndarray:
    """Returns the middle (2,) of a footprint whose visible part reaches as far as ``reach``."""
    right, left = reach[0], -reach[DIRECTIONS // 2]
    near, far = -reach[_NEAR], reach[_AWAY]
    seen_deep, wide = far - near, right - left
    deep = max(seen_deep, min(wide, DEEPER * seen_deep))
    return np.array([(left + right) / 2, near + deep / 2])


def _pictured(region: ObjectRegion, camera_speaks: bool) -> Solid:
    """Makes the solid of a region without depth; its unit is the picture's width."""
    height, width = region.image_size
    x_min, y_min, x_max, y_max = (value / width for value in region.box_px)
    wide, tall_seen = x_max - x_min, y_max - y_min
    deep_seen = min(SLANT * wide, tall_seen)
    foot = height / width - y_max
    middle = np.array([(x_min + x_max) / 2, (foot + deep_seen / 2) / SLANT])
    half = np.array([wide / 2, deep_seen / SLANT / 2])
    reach = middle @ AROUND + np.linalg.norm(AROUND * half[:, None], axis=0)
    # Everything stands on the ground as far as a picture tells; what stands on another thing is decided from boxes.
    tall = tall_seen - deep_seen
    bearing = region.centroid_px[0] / width
    own = np.array([middle[1], 0.5 - bearing]) if camera_speaks else None
    return Solid(region, middle, reach, 0.0, tall, bearing, 0.0, tall, False, own, float(middle[1]))


def _some(points_m: np.ndarray) -> np.ndarray:
    """Returns at most ``MOST_POINTS`` of the points (N, 3), evenly spread over the region's pixels."""
    return points_m[:: -(-len(points_m) // MOST_POINTS)] if len(points_m) else points_m
