"""Between ``sensor_msgs`` fields and arrays, with numpy alone: no cv_bridge, one copy at most.

The functions read messages by their fields, so that they work on anything shaped like ``sensor_msgs/Image`` and
``sensor_msgs/CameraInfo``.
"""

from __future__ import annotations

import array
import sys
from typing import Any

import numpy as np

from clip_seg_ros.types import CameraIntrinsics

# encoding -> (channels, which of them are red, green and blue)
COLOR_ENCODINGS: dict[str, tuple[int, tuple[int, int, int]]] = {
    "rgb8": (3, (0, 1, 2)),
    "bgr8": (3, (2, 1, 0)),
    "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)),
    "mono8": (1, (0, 0, 0)),
}
# encoding -> (numpy type without byte order, metres per unit)
DEPTH_ENCODINGS: dict[str, tuple[str, float]] = {"16UC1": ("u2", 0.001), "32FC1": ("f4", 1.0)}


# encoding -> numpy type of a channel, for what we publish
_WRITTEN_TYPES = {"rgb8": "u1", "mono8": "u1", "8UC1": "u1", "16UC1": "u2", "32FC1": "f4"}


class ConversionError(ValueError):
    """A message that cannot be read. ``fault`` names the kind of fault; messages with the same fault share it."""

    def __init__(self, fault: str, message: str) -> None:
        super().__init__(message)
        self.fault = fault


def image_to_rgb(message: Any) -> np.ndarray:
    """Reads a colour or grey image as (H, W, 3) uint8 RGB, contiguous; it may share the message's memory.

    Raises:
        ConversionError: an encoding other than ``COLOR_ENCODINGS``, an empty image, or rows that do not fit the data.
    """
    channels, order = _lookup(COLOR_ENCODINGS, message.encoding)
    rows = _rows(message, channels)
    pixels = rows.reshape(message.height, message.width, channels)
    if channels == 1:
        return np.repeat(pixels, 3, axis=2)
    # A slice of the channels is a view where fancy indexing would copy before the copy that follows.
    first, last = order[0], order[2]
    colors = pixels[:, :, first : last + 1] if first < last else pixels[:, :, first::-1]
    return np.ascontiguousarray(colors)


def depth_to_metres(message: Any) -> np.ndarray:
    """Reads a depth image as (H, W) float32 metres, NaN where the sensor saw nothing (0, negative or not finite).

    Raises:
        ConversionError: an encoding other than ``DEPTH_ENCODINGS``, an empty image, or rows that do not fit the data.
    """
    kind, metres_per_unit = _lookup(DEPTH_ENCODINGS, message.encoding)
    dtype = np.dtype((">" if message.is_bigendian else "<") + kind)
    rows = np.ascontiguousarray(_rows(message, dtype.itemsize)).view(dtype)
    depth_m = rows.astype(np.float32)
    depth_m *= np.float32(metres_per_unit)
    depth_m[~(np.isfinite(depth_m) & (depth_m > 0))] = np.nan
    return depth_m


def camera_info_to_intrinsics(message: Any) -> CameraIntrinsics:
    """Reads the pinhole part (``k``) of a ``sensor_msgs/CameraInfo``; lens distortion is not applied.

    Raises:
        ConversionError: an uncalibrated camera (focal lengths of zero) or a size of zero.
    """
    k = message.k
    try:
        return CameraIntrinsics(k[0], k[4], k[2], k[5], int(message.width), int(message.height))
    except ValueError as error:
        raise ConversionError("uncalibrated", f"camera_info does not describe a camera: {error}") from error


def fill_image(message: Any, pixels: np.ndarray, encoding: str) -> Any:
    """Writes ``pixels`` (H, W) or (H, W, C) into a ``sensor_msgs/Image`` and returns it; the header is left alone.

    Raises:
        ValueError: the type of ``pixels`` is not that of the encoding.
    """
    if pixels.dtype != np.dtype(_WRITTEN_TYPES[encoding]):
        raise ValueError(f"an image of {encoding} cannot hold {pixels.dtype}")
    message.height, message.width = pixels.shape[:2]
    message.encoding = encoding
    message.is_bigendian = sys.byteorder == "big"
    message.step = pixels.nbytes // pixels.shape[0]
    # rclpy takes an array.array as it is, while it checks a list or a numpy array element by element.
    message.data = array.array("B", pixels.tobytes())
    return message


def metres_to_millimetres(depth_m: np.ndarray) -> np.ndarray:
    """Turns metres into the units of 16UC1: (H, W) uint16 millimetres, 0 where absent or beyond 65.535 m."""
    millimetres = np.rint(np.nan_to_num(depth_m, nan=0.0, posinf=0.0, neginf=0.0) * 1000.0)
    millimetres[(millimetres < 0) | (millimetres > np.iinfo(np.uint16).max)] = 0
    return millimetres.astype(np.uint16)


def _lookup(encodings: dict[str, Any], encoding: str) -> Any:
    if encoding not in encodings:
        accepted = ", ".join(encodings)
        raise ConversionError(f"encoding {encoding}", f"unknown encoding {encoding!r}; accepted: {accepted}")
    return encodings[encoding]


def _rows(message: Any, bytes_per_pixel: int) -> np.ndarray:
    """(height, width * bytes_per_pixel) uint8 view of the message's rows without their padding."""
    height, width, step = int(message.height), int(message.width), int(message.step)
    if height == 0 or width == 0:
        raise ConversionError("empty", f"the image is empty: {width}x{height} pixels")
    if step < width * bytes_per_pixel:
        raise ConversionError(
            "step",
            f"a row of {width} {message.encoding} pixels needs {width * bytes_per_pixel} bytes, "
            f"but step says {step}",
        )
    data = np.frombuffer(message.data, np.uint8)
    if len(data) < height * step:
        raise ConversionError(
            "truncated",
            f"the data is truncated: {height} rows of {step} bytes need {height * step} bytes, got {len(data)}",
        )
    return data[: height * step].reshape(height, step)[:, : width * bytes_per_pixel]
