# SPDX-License-Identifier: Apache-2.0
"""The nouns of the package: plain values, numpy only.

Every class is frozen and checks its own arrays, so that a wrong shape fails where it is made and not three calls later.
Pixel coordinates are (x, y) = (column, row) with the centre of the top-left pixel at (0, 0). Positions are metres in
the camera's optical frame (x right, y down, z forward). What is absent is ``None``, never zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def window_of(box_px: tuple[int, int, int, int]) -> tuple[slice, slice]:
    """Returns the (rows, columns) of a box (x_min, y_min, x_max, y_max) whose maxima are exclusive."""
    x_min, y_min, x_max, y_max = box_px
    return slice(y_min, y_max), slice(x_min, x_max)


def vector3(values: Iterable[float]) -> tuple[float, float, float]:
    """Returns three numbers of any kind as plain floats, for a point, a direction or a colour."""
    x, y, z = values
    return float(x), float(y), float(z)


def quaternion(rotation: np.ndarray) -> tuple[float, float, float, float]:
    """Converts a rotation matrix (3, 3) to a unit quaternion (x, y, z, w) with w >= 0."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation
    # Row i is 4 * q[i] * q for q = (x, y, z, w). The longest row loses no digits at any angle.
    rows = np.array(
        [
            [1 + xx - yy - zz, xy + yx, xz + zx, zy - yz],
            [xy + yx, 1 - xx + yy - zz, yz + zy, xz - zx],
            [xz + zx, yz + zy, 1 - xx - yy + zz, yx - xy],
            [zy - yz, xz - zx, yx - xy, 1 + xx + yy + zz],
        ]
    )
    row = rows[np.argmax(rows.diagonal())]
    row = row / np.linalg.norm(row)
    x, y, z, w = map(float, row if row[3] >= 0 else -row)
    return x, y, z, w


@dataclass(frozen=True)
class CameraIntrinsics:
    """A pinhole camera and the distortion of its lens.

    ``fx, fy`` are focal lengths and ``cx, cy`` the principal point, all in pixels of a ``width`` x ``height`` image.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    distortion: tuple[float, ...] = ()
    """(k1, k2, p1, p2[, k3[, k4, k5, k6]]): radial k, tangential p, as in the models "plumb_bob" and
    "rational_polynomial"; empty for a lens without distortion or a rectified image."""

    def __post_init__(self) -> None:
        values = (self.fx, self.fy, self.cx, self.cy)
        _require(all(math.isfinite(value) for value in values), f"fx, fy, cx, cy must be finite, got {values}")
        _require(self.fx > 0 and self.fy > 0, f"focal lengths must be positive, got fx={self.fx}, fy={self.fy}")
        _require(self.width > 0 and self.height > 0, f"image size must be positive, got {self.width}x{self.height}")
        # A tuple, because a camera is the key under which its table of rays is kept.
        _require(
            isinstance(self.distortion, tuple) and len(self.distortion) in (0, 4, 5, 8),
            f"distortion must be a tuple of 0, 4, 5 or 8 coefficients, got {self.distortion}",
        )
        _require(all(map(math.isfinite, self.distortion)), f"distortion must be finite, got {self.distortion}")


@dataclass(frozen=True)
class CameraFrame:
    """One colour image of a camera, with its depth and its intrinsics where the camera gives them."""

    rgb: np.ndarray
    """(H, W, 3) uint8, RGB."""
    stamp_ns: int
    """Acquisition time, nanoseconds."""
    frame_id: str
    """Name of the camera's optical frame."""
    depth_m: np.ndarray | None = None
    """(H, W) float32 metres along the optical axis, aligned with ``rgb``; NaN where the sensor saw nothing."""
    intrinsics: CameraIntrinsics | None = None

    def __post_init__(self) -> None:
        rgb = self.rgb
        _require(
            rgb.ndim == 3 and rgb.shape[2] == 3 and rgb.dtype == np.uint8 and rgb.size > 0,
            f"rgb must be a non-empty (H, W, 3) uint8 array, got {rgb.shape} {rgb.dtype}",
        )
        if self.depth_m is not None:
            _require(
                self.depth_m.shape == rgb.shape[:2] and self.depth_m.dtype == np.float32,
                f"depth_m must be float32 of shape {rgb.shape[:2]}, got {self.depth_m.shape} {self.depth_m.dtype}",
            )


@dataclass(frozen=True)
class ProbabilityMaps:
    """The probabilities that a model gives: one map for each prompt, at the size of the camera's image."""

    prompts: tuple[str, ...]
    values: np.ndarray
    """(P, H, W) float32 in 0..1."""

    def __post_init__(self) -> None:
        _require(
            self.values.ndim == 3 and len(self.values) == len(self.prompts) and self.values.dtype == np.float32,
            f"values must be float32 ({len(self.prompts)}, H, W), got {self.values.shape} {self.values.dtype}",
        )


@dataclass(frozen=True)
class MaskSet:
    """Masks made from ``ProbabilityMaps``, and the threshold that made them."""

    prompts: tuple[str, ...]
    values: np.ndarray
    """(P, H, W) bool."""
    threshold: float
    """A pixel belongs to a prompt where its probability is strictly greater than this, 0..1."""

    def __post_init__(self) -> None:
        _require(
            self.values.ndim == 3 and len(self.values) == len(self.prompts) and self.values.dtype == np.bool_,
            f"values must be bool ({len(self.prompts)}, H, W), got {self.values.shape} {self.values.dtype}",
        )


@dataclass(frozen=True)
class OrientedBox:
    """A box around the visible part of an object, in the camera's optical frame.

    A camera sees only one side of an object: along the line of sight the box ends at the farthest visible point.
    """

    center_m: tuple[float, float, float]
    size_m: tuple[float, float, float]
    """Full lengths along the box's own x, y and z axes, the longest first; never negative."""
    orientation_xyzw: tuple[float, float, float, float]
    """Unit quaternion that turns the box's axes into the optical frame; w is not negative."""

    def __post_init__(self) -> None:
        values = (*self.center_m, *self.size_m, *self.orientation_xyzw)
        _require(
            len(self.center_m) == len(self.size_m) == 3 and len(self.orientation_xyzw) == 4,
            "a box has a centre of 3, a size of 3 and an orientation of 4 numbers",
        )
        _require(all(map(math.isfinite, values)), f"a box must be finite, got {values}")
        x, y, z = self.size_m
        _require(x >= y >= z >= 0, f"sizes must not be negative and the longest comes first, got {self.size_m}")
        norm = math.hypot(*self.orientation_xyzw)
        _require(abs(norm - 1.0) < 1e-3, f"the orientation must be a unit quaternion, its length is {norm}")

    def reach_m(self, direction: tuple[float, float, float]) -> float:
        """Returns how far the box reaches from its centre along a unit vector of the optical frame, in metres."""
        x, y, z, w = self.orientation_xyzw
        vector, toward = np.array((x, y, z)), np.asarray(direction, np.float64)
        # The direction as the box's own axes see it: turned by the inverse of the box's orientation.
        twice = 2 * np.cross(toward, vector)
        seen = toward + w * twice + np.cross(twice, vector)
        return float(np.abs(seen) @ np.asarray(self.size_m) / 2)


@dataclass(frozen=True)
class ObjectRegion:
    """One object of a prompt in one image: a connected part of its mask, or one of several objects that touch there."""

    prompt: str
    id: int
    """1..255, unique in its image; 0 stands for "no object" in label images."""
    score: float
    """Mean probability over the mask, or how sure a detector is of the object, 0..1."""
    inside: np.ndarray
    """(h, w) bool, the mask in the window of ``box_px``. An image of many objects has room for no full masks."""
    box_px: tuple[int, int, int, int]
    """(x_min, y_min, x_max, y_max); the maxima are exclusive."""
    centroid_px: tuple[float, float]
    """(x, y), mean of the mask's pixel centres."""
    area_px: int
    image_size: tuple[int, int]
    """(H, W) of the image."""
    position_m: tuple[float, float, float] | None = None
    """(x, y, z) of the middle of the visible surface, in the optical frame; ``None`` without depth or intrinsics."""
    box_m: OrientedBox | None = None
    """The box around the visible part; ``None`` without depth or intrinsics, and for parts too small to have axes."""

    def __post_init__(self) -> None:
        # The messages are made only if they are needed, because an image may have hundreds of regions.
        if not 1 <= self.id <= 255:
            raise ValueError(f"an object id lies in 1..255, got {self.id}")
        x_min, y_min, x_max, y_max = self.box_px
        height, width = self.image_size
        if not (0 <= x_min < x_max <= width and 0 <= y_min < y_max <= height):
            raise ValueError(f"box_px must lie in the image of {width}x{height}, got {self.box_px}")
        if self.inside.shape != (y_max - y_min, x_max - x_min) or self.inside.dtype != np.bool_:
            found = f"{self.inside.shape} {self.inside.dtype}"
            raise ValueError(f"inside must be a bool array of the size of its box {self.box_px}, got {found}")
        if self.area_px <= 0:
            raise ValueError("a region holds at least one pixel")

    @property
    def window(self) -> tuple[slice, slice]:
        """The (rows, columns) of ``box_px`` in the image."""
        return window_of(self.box_px)

    @cached_property
    def mask(self) -> np.ndarray:
        """(H, W) bool, the mask in the whole image; it is made when it is first read."""
        mask = np.zeros(self.image_size, np.bool_)
        mask[self.window] = self.inside
        return mask

    @classmethod
    def of_mask(
        cls,
        prompt: str,
        id: int,
        score: float,
        mask: np.ndarray,
        position_m: tuple[float, float, float] | None = None,
        box_m: OrientedBox | None = None,
    ) -> ObjectRegion:
        """Makes a region of its (H, W) bool mask, from which box, centroid and area follow.

        Raises:
            ValueError: The mask is empty or no such array.
        """
        _require(mask.ndim == 2 and mask.dtype == np.bool_, "mask must be a (H, W) bool array")
        rows, columns = np.nonzero(mask)
        _require(len(rows) > 0, "a region holds at least one pixel")
        box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
        centroid = (float(columns.mean()), float(rows.mean()))
        inside = mask[window_of(box)].copy()
        return cls(prompt, id, score, inside, box, centroid, len(rows), mask.shape, position_m, box_m)
