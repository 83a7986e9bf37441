"""Region + depth + intrinsics -> a point in metres in the camera's optical frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from clip_seg_ros.pipeline.postprocess import window_of
from clip_seg_ros.types import CameraFrame, CameraIntrinsics, ObjectRegion

MIN_VALID_SHARE = 0.05
"""Of the mask's pixels; with less valid depth, what is left are mostly the rims of other things."""


def locate(
    region: ObjectRegion, depth_m: np.ndarray, intrinsics: CameraIntrinsics
) -> tuple[float, float, float] | None:
    """Finds where a region is.

    z is the median of the valid depths over the mask, which neither a stray background pixel nor a hole moves; x and
    y lie on the ray through the mask's centroid at that z. Depth is valid where it is finite and greater than 0.

    Args:
        region: Of the image that the depth belongs to.
        depth_m: (H, W) float32, metres along the optical axis, aligned with that image.
        intrinsics: Of that image.

    Returns:
        (x, y, z) in metres, or ``None`` when less than ``MIN_VALID_SHARE`` of the mask has valid depth.

    Raises:
        ValueError: Mask, depth and intrinsics are not of the same size.
    """
    if not depth_m.shape == region.mask.shape == (intrinsics.height, intrinsics.width):
        raise ValueError(
            f"sizes (H, W) differ: mask {region.mask.shape}, depth {depth_m.shape}, "
            f"intrinsics ({intrinsics.height}, {intrinsics.width})"
        )
    window = window_of(region.box_px)
    depths = depth_m[window][region.mask[window]]
    depths = depths[np.isfinite(depths) & (depths > 0)]
    if len(depths) == 0 or len(depths) < MIN_VALID_SHARE * region.area_px:
        return None
    z = float(np.median(depths))
    column, row = region.centroid_px
    return (column - intrinsics.cx) * z / intrinsics.fx, (row - intrinsics.cy) * z / intrinsics.fy, z


def with_position(region: ObjectRegion, frame: CameraFrame) -> ObjectRegion:
    """Returns the region with its position; ``None`` stays where the frame lacks depth or intrinsics.

    Raises:
        ValueError: The frame's intrinsics are for an image of another size.
    """
    if frame.depth_m is None or frame.intrinsics is None:
        return region
    return replace(region, position_m=locate(region, frame.depth_m, frame.intrinsics))
