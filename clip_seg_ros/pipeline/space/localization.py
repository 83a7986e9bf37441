# SPDX-License-Identifier: Apache-2.0
"""Region, depth and intrinsics -> the position, box and points of an object, in the camera's optical frame."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from clip_seg_ros.pipeline.space.oriented_box import oriented_box
from clip_seg_ros.pipeline.space.rays import ray_table
from clip_seg_ros.types import CameraFrame, CameraIntrinsics, ObjectRegion, vector3

MIN_VALID_SHARE = 0.05
"""Share of the mask's pixels that must have valid depth. With less, the valid pixels are mostly rims of other objects.
"""
RIM_PX = 2
"""Width of the mask's rim in pixels. Its depth often belongs to the background, or lies between it and the object."""
REACH_PX = 8
"""Distance in pixels up to which the depth around the mask is considered."""
MIN_CORE_SHARE = 0.5
"""Share of the mask that must be left without its rim. Otherwise the mask is thin, and its rim is the object."""
EDGE = 0.05
"""A relative difference of depth around a pixel. Where it is larger, there is an edge, with mixed pixels along it."""
MIN_NEAR_SHARE = 0.2
"""Share of the core that a surface must have. A smaller one is noise, or something that reaches into the mask."""
MIN_DENSITY = 0.01
"""Share of the core's depths that a stretch as long as the window must hold to be part of a surface."""
WINDOW = 0.01
"""Length of that window as a share of the depth; depths that are closer together are never separated."""
WINDOW_SPREAD = 0.05
"""Least length of that window as a share of the spread of all depths, because a long floor is sparse everywhere."""
MAX_SAMPLES = 4096
"""The number of depths that the statistics use; more make no measurable difference."""


@dataclass(frozen=True)
class Measurement:
    """What was measured of one region in the depth image."""

    region: ObjectRegion
    """The region with its position and box, or unchanged if there is too little valid depth."""
    points_m: np.ndarray
    """(N, 3) float32: the visible surface in the optical frame, one point for each pixel, row by row; N may be 0."""
    pixels: np.ndarray
    """(N,) int64: the pixel of every point, as an index into the flattened image."""


def measure(region: ObjectRegion, frame: CameraFrame) -> Measurement:
    """Measures the position, box and points of a region.

    It uses those pixels of the mask whose depth is valid (finite, greater than 0) and belongs to the object. A surface
    is a dense stretch of depths; the sparse depths between and around surfaces (mixed pixels at edges, speckle) are
    left out. If the mask reaches beyond the object and there are several surfaces, the nearest one that is large enough
    is the object, together with the surfaces behind it, unless these continue outside the mask: the far wall of a bowl
    ends with the mask, a table does not. The rim of the mask and edges of the depth do not count in this decision; of
    their pixels, only those that continue the surface of the object are kept.

    The position is the median of these points, separately in x, y and z. It lies on or near the visible surface and is
    not the centre of the body: it lies in a flat face, and somewhat below a curved or edged surface (0.3 radii below
    the foremost point of a ball).

    Args:
        region: A region of the frame's image.
        frame: The frame. Without depth or intrinsics nothing is measured.

    Returns:
        The region with its position and box, and its points. There are no position, box and points if less than
        ``MIN_VALID_SHARE`` of the mask has valid depth.

    Raises:
        ValueError: Mask, depth and intrinsics are not of the same size.
    """
    if frame.depth_m is None or frame.intrinsics is None:
        return Measurement(region, *_no_points())
    points, pixels = _surface(region, frame.depth_m, frame.intrinsics)
    if len(points) == 0:
        return Measurement(region, points, pixels)
    return Measurement(replace(region, position_m=_middle(points), box_m=oriented_box(points)), points, pixels)


def with_position(region: ObjectRegion, frame: CameraFrame) -> ObjectRegion:
    """Returns the region with its position and box; ``None`` stays where the frame lacks depth or intrinsics.

    Raises:
        ValueError: The frame's intrinsics are for an image of another size.
    """
    return measure(region, frame).region


def locate(
    region: ObjectRegion, depth_m: np.ndarray, intrinsics: CameraIntrinsics
) -> tuple[float, float, float] | None:
    """Finds where a region is, as ``measure`` does, from a depth image alone.

    Args:
        region: Of the image that the depth belongs to.
        depth_m: (H, W) float32, metres along the optical axis, aligned with that image.
        intrinsics: Of that image.

    Returns:
        (x, y, z) in metres, or ``None`` when less than ``MIN_VALID_SHARE`` of the mask has valid depth.

    Raises:
        ValueError: Mask, depth and intrinsics are not of the same size.
    """
    points, _ = _surface(region, depth_m, intrinsics)
    return _middle(points) if len(points) else None


def _middle(points_m: np.ndarray) -> tuple[float, float, float]:
    return vector3(np.median(points_m, axis=0))


def _no_points() -> tuple[np.ndarray, np.ndarray]:
    return np.empty((0, 3), np.float32), np.empty(0, np.int64)


def _surface(region: ObjectRegion, depth_m: np.ndarray, intrinsics: CameraIntrinsics) -> tuple[np.ndarray, np.ndarray]:
    """Returns the points (N, 3) of a region's visible surface and their pixels (N,), as in ``Measurement``."""
    if not depth_m.shape == region.image_size == (intrinsics.height, intrinsics.width):
        raise ValueError(
            f"sizes (H, W) differ: mask {region.image_size}, depth {depth_m.shape}, "
            f"intrinsics ({intrinsics.height}, {intrinsics.width})"
        )
    rows, columns = _widened(region.box_px, depth_m.shape)
    depth, rays = depth_m[rows, columns], ray_table(intrinsics)[rows, columns]
    x_min, y_min, x_max, y_max = region.box_px
    mask = np.zeros(depth.shape, np.bool_)
    mask[y_min - rows.start : y_max - rows.start, x_min - columns.start : x_max - columns.start] = region.inside
    valid = mask & (depth > 0) & (depth < np.inf) & (rays[..., 0] == rays[..., 0])  # NaN equals nothing
    count = np.count_nonzero(valid)
    if count == 0 or count < MIN_VALID_SHARE * region.area_px:
        return _no_points()
    core = _core(mask, valid, depth)
    nearest, farthest = _depth_range(depth[core])
    behind = core & (depth > farthest)
    much_behind = np.count_nonzero(behind) >= MIN_NEAR_SHARE * np.count_nonzero(core)
    # The far wall of a bowl, seen over its near one, ends with the mask; a table in the background would continue.
    if much_behind and not _goes_on(depth, behind, mask):
        farthest = np.inf
    kept = valid & (depth >= nearest) & (depth <= farthest)
    kept &= core | _continues(depth, kept & core)
    y, x = np.nonzero(kept)
    points = np.empty((3, len(y)), np.float32)  # one row for each coordinate, as the statistics need them
    points[2] = depth[kept]
    np.multiply(rays[kept].T, points[2], out=points[:2])
    return points.T, (y + rows.start) * intrinsics.width + (x + columns.start)


def _widened(box_px: tuple[int, int, int, int], shape: tuple[int, int]) -> tuple[slice, slice]:
    """Returns the region's window, widened by ``REACH_PX`` as far as the image goes."""
    x_min, y_min, x_max, y_max = box_px
    return (
        slice(max(0, y_min - REACH_PX), min(shape[0], y_max + REACH_PX)),
        slice(max(0, x_min - REACH_PX), min(shape[1], x_max + REACH_PX)),
    )


def _core(mask: np.ndarray, valid: np.ndarray, depth_m: np.ndarray) -> np.ndarray:
    """Returns the ``valid`` pixels (h, w) that lie neither in the rim of the mask nor at an edge of the depth.

    The rim is as wide as possible while enough of the mask is left. Edges are kept if most of the region is edges.
    """
    area = np.count_nonzero(mask)
    core = valid
    for rim_px in range(RIM_PX, 0, -1):
        inner = cv2.erode(mask.view(np.uint8), _square(rim_px)).view(np.bool_)
        if np.count_nonzero(inner) >= MIN_CORE_SHARE * area and (inner & valid).any():
            core = inner & valid
            break
    nearest, farthest = _depths_around(depth_m, valid, radius_px=1)
    smooth = core & (farthest - nearest < EDGE * depth_m)
    return smooth if np.count_nonzero(smooth) >= MIN_CORE_SHARE * np.count_nonzero(core) else core


def _continues(depth_m: np.ndarray, surface: np.ndarray) -> np.ndarray:
    """Returns (h, w) bool, True where the depth lies within the depths of the nearby ``surface`` (h, w)."""
    nearest, farthest = _depths_around(depth_m, surface, RIM_PX)
    return (depth_m >= nearest * (1 - WINDOW)) & (depth_m <= farthest * (1 + WINDOW))


def _goes_on(depth_m: np.ndarray, surface: np.ndarray, mask: np.ndarray) -> bool:
    """Returns whether a ``surface`` (h, w) in the ``mask`` (h, w) mostly continues around it; true if unknown."""
    nearest, farthest = _depths_around(depth_m, surface, REACH_PX)
    outside = (farthest > 0) & ~cv2.dilate(mask.view(np.uint8), _square(RIM_PX)).view(np.bool_) & (depth_m > 0)
    continued = outside & (depth_m >= nearest * (1 - EDGE)) & (depth_m <= farthest * (1 + EDGE))
    return bool(np.count_nonzero(continued) >= 0.5 * np.count_nonzero(outside))


def _depths_around(depth_m: np.ndarray, of: np.ndarray, radius_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the least and the greatest depth of the pixels ``of`` (h, w) around each pixel; inf and 0 without any."""
    square = _square(radius_px)
    nearest = cv2.erode(np.where(of, depth_m, np.float32(np.inf)), square)
    farthest = cv2.dilate(np.where(of, depth_m, np.float32(0)), square)
    return nearest, farthest


def _square(radius_px: int) -> np.ndarray:
    return np.ones((2 * radius_px + 1, 2 * radius_px + 1), np.uint8)


def _depth_range(depths_m: np.ndarray) -> tuple[float, float]:
    """Finds the range of depths that belong to the object, from N > 0 valid depths (N,)."""
    stride = -(-len(depths_m) // MAX_SAMPLES)
    # Inverse depths are used because those of a plane are evenly spread, however far it extends.
    inverse = np.sort(1 / depths_m[stride // 2 :: stride])
    count = len(inverse)
    # The standard deviation of normally distributed values, from the median of their absolute deviations.
    spread = 1.4826 * np.median(np.abs(inverse - inverse[count // 2]))
    window = np.maximum(WINDOW * inverse, WINDOW_SPREAD * spread)
    # A stretch of ``members`` + 1 values within a window is dense; dense stretches that overlap are one surface.
    members = max(1, round(MIN_DENSITY * count))
    starts = np.flatnonzero(inverse[members:] - inverse[:-members] <= window[:-members])
    breaks = np.flatnonzero(np.diff(starts) > members)
    first = starts[np.append(0, breaks + 1)] if len(starts) else starts
    last = starts[np.append(breaks, -1)] + members if len(starts) else starts
    large = np.flatnonzero(last - first + 1 >= MIN_NEAR_SHARE * count)
    if len(large) == 0:
        return 0.0, np.inf  # there is no surface to separate from the rest
    first, last = first[large[-1]], last[large[-1]]
    farthest = inverse[first] - window[first] / 2
    return 1 / (inverse[last] + window[last] / 2), 1 / farthest if farthest > 0 else np.inf
