# SPDX-License-Identifier: Apache-2.0
"""Reads ``sensor_msgs`` messages as arrays: colours, depth and intrinsics.

The functions use only the fields of a message, so that they work with any object that has the fields of
``sensor_msgs/Image``, ``sensor_msgs/CompressedImage`` or ``sensor_msgs/CameraInfo``, whether it came from a topic or a
bag.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Collection
from typing import Any

import cv2
import numpy as np

from clip_seg_ros.sources.image_decoding import (
    LIBRARY_ENCODINGS,
    PLANAR_ENCODINGS,
    ConversionError,
    pixel_rows,
    planar_to_rgb,
    require_size,
    samples,
    samples_to_rgb,
    to_8_bits,
    with_library,
)
from clip_seg_ros.sources.picture_size import JPEG, PNG, SCAN_END, SCAN_START, picture_size
from clip_seg_ros.types import CameraIntrinsics

# encoding -> (channels, OpenCV's conversion to RGB); encodings that name no colours have OpenCV's order
_PLAIN_ENCODINGS: dict[str, tuple[int, int | None]] = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
    "8UC1": (1, cv2.COLOR_GRAY2RGB),
    "8UC3": (3, cv2.COLOR_BGR2RGB),
    "8UC4": (4, cv2.COLOR_BGRA2RGB),
}
COLOR_ENCODINGS = (*_PLAIN_ENCODINGS, *LIBRARY_ENCODINGS, *PLANAR_ENCODINGS)
# encoding -> (numpy type without byte order, metres per unit)
DEPTH_ENCODINGS: dict[str, tuple[str, float]] = {"16UC1": ("u2", 0.001), "32FC1": ("f4", 1.0)}

# The header that compressed_depth_image_transport puts before the PNG: a format, and A and B of the quantisation.
_DEPTH_HEADER = struct.Struct("<iff")

# The distortion models whose coefficients have OpenCV's order, and the possible numbers of coefficients.
_DISTORTION_MODELS = ("plumb_bob", "rational_polynomial")
_DISTORTION_COUNTS = (4, 5, 8)
_RECTIFY = "Positions need a rectified image then, and the parameter rectified"


def image_to_rgb(message: Any) -> np.ndarray:
    """Reads a colour or grey image as (H, W, 3) uint8 RGB, contiguous; it may share the message's memory.

    16 bits are scaled to 8 by value * 255 / 65535, rounded. 16UC1 is therefore read as grey over the full range, and a
    depth image in millimetres looks almost black. YUV is that of BT.601 with Y in 16..235; Bayer mosaics are
    interpolated bilinearly.

    Raises:
        ConversionError: The encoding is not one of ``COLOR_ENCODINGS``, the image is empty, the encoding does not allow
            its size, its rows do not fit the data, or a library is missing.
    """
    encoding = message.encoding
    _require_known(COLOR_ENCODINGS, encoding)
    if encoding in PLANAR_ENCODINGS:
        return planar_to_rgb(message)
    if encoding in LIBRARY_ENCODINGS:
        return with_library(message)
    channels, conversion = _PLAIN_ENCODINGS[encoding]
    pixels = pixel_rows(message, channels).reshape(message.height, message.width, channels)
    # OpenCV skips the padding itself, and is 20 times as fast as NumPy, which copies byte by byte.
    return np.ascontiguousarray(pixels) if conversion is None else cv2.cvtColor(pixels, conversion)


def compressed_to_rgb(message: Any) -> np.ndarray:
    """Reads a ``sensor_msgs/CompressedImage`` with a JPEG or PNG as (H, W, 3) uint8 RGB.

    16 bits are scaled as in ``image_to_rgb``. ``format`` is "jpeg", "png" or what compressed_image_transport writes,
    such as "rgb8; jpeg compressed bgr8"; only the data decide between JPEG and PNG. If ``format`` says "compressed
    rgb8", red and blue are swapped in the data. If it says "bayer_..." and the data have one channel, they are the
    mosaic. An orientation in EXIF is ignored, so that pixels stay where camera_info expects them.

    Raises:
        ConversionError: It is a depth image, or the data are neither JPEG nor PNG, truncated or broken.
    """
    original, _, compression = message.format.partition(";")
    if "compressedDepth" in compression:
        raise ConversionError(
            f"format {message.format}",
            f"a picture of format {message.format!r} holds depth, not colour: "
            "use the compressed topic of a colour image",
        )
    pixels = _decoded(bytes(message.data), message.format)
    original = original.strip()
    if original.startswith("bayer_") and original in LIBRARY_ENCODINGS and pixels.ndim == 2:
        bits = 8 * pixels.itemsize
        return samples_to_rgb(pixels, f"{original.rstrip('0123456789')}{bits}")
    if pixels.dtype == np.uint16:
        pixels = to_8_bits(pixels)
    if pixels.ndim == 2:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    if "compressed rgb" in compression:
        return np.ascontiguousarray(pixels[:, :, :3])
    return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def depth_to_metres(message: Any) -> np.ndarray:
    """Reads a depth image as (H, W) float32 metres, with NaN for 0, negative and infinite values.

    Raises:
        ConversionError: The encoding is not one of ``DEPTH_ENCODINGS``, the image is empty, or its rows do not fit the
            data.
    """
    _require_known(DEPTH_ENCODINGS, message.encoding)
    kind, metres_per_unit = DEPTH_ENCODINGS[message.encoding]
    # The data may hold signalling NaNs, of which NumPy would warn; like all NaNs they are no distances.
    with np.errstate(invalid="ignore", over="ignore"):
        depth_m = samples(message, kind).astype(np.float32)
        depth_m *= np.float32(metres_per_unit)
    return _without_absent(depth_m)


def metres_to_millimetres(depth_m: np.ndarray) -> np.ndarray:
    """Converts metres to the unit of 16UC1: (H, W) uint16 millimetres, 0 if absent or beyond 65.535 m."""
    millimetres = np.rint(np.nan_to_num(depth_m, nan=0.0, posinf=0.0, neginf=0.0) * 1000.0)
    millimetres[(millimetres < 0) | (millimetres > np.iinfo(np.uint16).max)] = 0
    return millimetres.astype(np.uint16)


def compressed_depth_to_metres(message: Any) -> np.ndarray:
    """Reads an image of compressed_depth_image_transport as (H, W) float32 metres, with NaN where there is no depth.

    ``format`` is "16UC1; compressedDepth" or "32FC1; compressedDepth", with or without " png" at the end. 12 bytes come
    before the PNG: an int32 and the floats A and B. The PNG of 16UC1 holds millimetres; that of 32FC1 holds v = A /
    depth + B, cut to 16 bits, with 0 for no depth.

    Raises:
        ConversionError: The format is another one, such as "compressedDepth rvl", or the data are truncated or broken.
    """
    original, _, compression = (part.strip() for part in message.format.partition(";"))
    if original not in DEPTH_ENCODINGS or compression not in ("compressedDepth", "compressedDepth png"):
        raise ConversionError(
            f"format {message.format}",
            f"unknown format {message.format!r} of compressed depth; accepted: 16UC1; compressedDepth png, "
            "32FC1; compressedDepth png",
        )
    data = bytes(message.data)
    values = _decoded(data[_DEPTH_HEADER.size :], message.format)
    if values.ndim != 2 or values.dtype != np.uint16:
        raise ConversionError(
            "data", f"compressed depth is a PNG of one channel with 16 bits, got {values.shape} {values.dtype}"
        )
    if original == "16UC1":
        return _without_absent(values.astype(np.float32) * np.float32(0.001))
    _, a, b = _DEPTH_HEADER.unpack_from(data)
    if not (math.isfinite(a) and math.isfinite(b) and a > 0):
        raise ConversionError(
            "data", f"the quantisation of compressed depth has A > 0 and a finite B, got A={a}, B={b}"
        )
    with np.errstate(divide="ignore"):
        depth_m = np.float32(a) / (values.astype(np.float32) - np.float32(b))
    depth_m[values == 0] = np.nan
    return _without_absent(depth_m)


def camera_info_to_intrinsics(message: Any, rectified: bool = False) -> CameraIntrinsics:
    """Reads the intrinsics and the distortion of a camera from a ``sensor_msgs/CameraInfo``.

    For a raw image they come from ``k`` and ``d``. For a rectified image they come from the left 3x3 part of ``p``, and
    there is no distortion whatever ``d`` says, because image_proc publishes rectified images beside the camera_info of
    the raw ones.

    ``k`` and ``p`` describe the camera at full resolution. An image of a region of interest begins at ``roi.x_offset``,
    ``roi.y_offset``, which are subtracted from cx and cy. Then ``binning_x`` divides fx, cx and the width, and
    ``binning_y`` divides fy, cy and the height, as in image_geometry. The returned width and height are those of the
    image.

    Args:
        message: The camera_info.
        rectified: Whether the image is rectified.

    Raises:
        ConversionError: The camera is not calibrated (focal lengths of zero), a side is zero, or the distortion of a
            raw image is neither plumb_bob nor rational_polynomial.
    """
    roi = message.roi
    # (fx, cx, fy, cy) from 3 rows of 4 or of 3 columns.
    fx, cx, fy, cy = (message.p[at] for at in (0, 2, 5, 6)) if rectified else (message.k[at] for at in (0, 2, 4, 5))
    # 0 stands for no binning, and for no region of interest.
    binning_x, binning_y = max(1, int(message.binning_x)), max(1, int(message.binning_y))
    distortion = () if rectified else _distortion(message)
    try:
        return CameraIntrinsics(
            fx=fx / binning_x,
            fy=fy / binning_y,
            cx=(cx - roi.x_offset) / binning_x,
            cy=(cy - roi.y_offset) / binning_y,
            width=int(roi.width or message.width) // binning_x,
            height=int(roi.height or message.height) // binning_y,
            distortion=distortion,
        )
    except ValueError as error:
        part = "P" if rectified else "K"
        raise ConversionError("uncalibrated", f"{part} of camera_info describes no camera: {error}") from error


def _require_known(encodings: Collection[str], encoding: str) -> None:
    if encoding not in encodings:
        accepted = ", ".join(encodings)
        raise ConversionError(f"encoding {encoding}", f"unknown encoding {encoding!r}; accepted: {accepted}")


def _without_absent(depth_m: np.ndarray) -> np.ndarray:
    """Replaces values that are no distance with NaN in place, and returns ``depth_m``."""
    depth_m[~(np.isfinite(depth_m) & (depth_m > 0))] = np.nan
    return depth_m


def _decoded(data: bytes, format: str) -> np.ndarray:
    """Decodes a JPEG or PNG to (H, W), (H, W, 3) BGR or (H, W, 4) BGRA, uint8 or uint16."""
    if not data.startswith((JPEG, PNG)):
        raise ConversionError("data", f"the data of a picture of format {format!r} are neither JPEG nor PNG")
    size = picture_size(data)
    if size is not None:
        require_size(*size)
    # Older releases of OpenCV fill missing data with grey. Within a scan, these two bytes can only be the end of the
    # image.
    cut = data.startswith(JPEG) and data.rfind(SCAN_END) < data.rfind(SCAN_START)
    try:
        pixels = None if cut else cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:  # a size beyond all memory
        pixels = None
    if pixels is None:
        raise ConversionError(
            "data", f"the {len(data)} bytes of a picture of format {format!r} are truncated or broken"
        )
    return pixels


def _distortion(message: Any) -> tuple[float, ...]:
    """Returns the coefficients in OpenCV's order; empty if the lens has no distortion."""
    model, coefficients = message.distortion_model, tuple(float(value) for value in message.d)
    known = model in _DISTORTION_MODELS
    if (known or not model) and not any(coefficients):
        return ()
    if not known:
        raise ConversionError(
            f"distortion {model}",
            f"unknown distortion model {model!r}; accepted: {', '.join(_DISTORTION_MODELS)}. {_RECTIFY}",
        )
    # Some drivers send all 12 or 14 coefficients of OpenCV; those of a thin prism and a tilted sensor are then 0.
    most = max(_DISTORTION_COUNTS)
    if not any(coefficients[most:]):
        coefficients = coefficients[:most]
    if len(coefficients) not in _DISTORTION_COUNTS:
        raise ConversionError(
            "distortion size",
            f"a distortion of {model} has {', '.join(map(str, _DISTORTION_COUNTS))} coefficients, "
            f"got {len(coefficients)}. {_RECTIFY}",
        )
    return coefficients
