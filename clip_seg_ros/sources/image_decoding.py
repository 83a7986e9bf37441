# SPDX-License-Identifier: Apache-2.0
"""Decodes the bytes of ``sensor_msgs/Image``: removes the padding of rows, and reads encodings that need a library.

16 bits, Bayer mosaics and packed YUV are decoded by cv_bridge if the ROS installation has one that works, else by
rosbags-image. Both get the image without padding and in this machine's byte order, because rosbags-image ignores
``step``, and cv_bridge swaps bytes with a method that NumPy 2 no longer has. Both name the conversions as ROS does;
OpenCV names a Bayer pattern after its second row and column, so that its "BG" is ROS's "rggb".
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

# encoding -> (numpy type of a sample, samples per pixel, the name that every version of the libraries knows)
LIBRARY_ENCODINGS: dict[str, tuple[str, int, str]] = {
    "rgb16": ("u2", 3, "rgb16"),
    "bgr16": ("u2", 3, "bgr16"),
    "rgba16": ("u2", 4, "rgba16"),
    "bgra16": ("u2", 4, "bgra16"),
    "mono16": ("u2", 1, "mono16"),
    "16UC1": ("u2", 1, "mono16"),
    "bayer_rggb8": ("u1", 1, "bayer_rggb8"),
    "bayer_bggr8": ("u1", 1, "bayer_bggr8"),
    "bayer_gbrg8": ("u1", 1, "bayer_gbrg8"),
    "bayer_grbg8": ("u1", 1, "bayer_grbg8"),
    "bayer_rggb16": ("u2", 1, "bayer_rggb16"),
    "bayer_bggr16": ("u2", 1, "bayer_bggr16"),
    "bayer_gbrg16": ("u2", 1, "bayer_gbrg16"),
    "bayer_grbg16": ("u2", 1, "bayer_grbg16"),
    "yuv422": ("u1", 2, "yuv422"),
    "uyvy": ("u1", 2, "yuv422"),
    "yuv422_yuy2": ("u1", 2, "yuv422_yuy2"),
    "yuyv": ("u1", 2, "yuv422_yuy2"),
}
PLANAR_ENCODINGS = ("nv21", "nv24")
MAX_PIXELS = 2**25
"""The largest number of pixels of an image: 8K video. Probabilities take 4 bytes for each pixel and prompt."""
_SMALLEST_MOSAIC = 3
"""The least side of a Bayer mosaic in pixels; of a smaller one, OpenCV makes a black image without an error."""


Convert = Callable[[Any, str], np.ndarray]
"""A function that takes an image message and the wanted encoding, and returns the pixels."""


class ConversionError(ValueError):
    """A message cannot be read. ``fault`` names the kind of fault, which messages with the same problem share."""

    def __init__(self, fault: str, message: str) -> None:
        super().__init__(message)
        self.fault = fault


def pixel_rows(message: Any, bytes_per_pixel: int, count: int | None = None) -> np.ndarray:
    """Returns a view of ``count`` rows, by default all of the image: (count, width * bytes_per_pixel) uint8.

    Raises:
        ConversionError: The image is empty, or its rows do not fit ``step`` or the data.
    """
    return _padded_rows(message, bytes_per_pixel, count)[:, : int(message.width) * bytes_per_pixel]


def samples(message: Any, kind: str, channels: int = 1) -> np.ndarray:
    """Reads samples of the NumPy type ``kind``, such as "u2", in this machine's byte order.

    Returns:
        (H, W, C), or (H, W) for one channel, contiguous; it may share the message's memory.

    Raises:
        ConversionError: The image is empty, or its rows do not fit ``step`` or the data.
    """
    stored = np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<")
    rows = np.ascontiguousarray(pixel_rows(message, stored.itemsize * channels)).view(stored)
    shape = (message.height, message.width, channels)[: 2 if channels == 1 else 3]
    return rows.astype(stored.newbyteorder("="), copy=False).reshape(shape)


def with_library(message: Any) -> np.ndarray:
    """Reads an image of ``LIBRARY_ENCODINGS`` as (H, W, 3) uint8 RGB.

    Raises:
        ConversionError: The image is empty, its rows do not fit ``step`` or the data, the encoding does not allow its
            size, or neither library is installed.
    """
    kind, channels, name = LIBRARY_ENCODINGS[message.encoding]
    pixels = samples(message, kind, channels)
    if name.startswith("yuv"):
        _require_even(message, "width")
    return samples_to_rgb(pixels, name)


def samples_to_rgb(pixels: np.ndarray, encoding: str) -> np.ndarray:
    """Converts samples (H, W) or (H, W, C) to (H, W, 3) uint8 RGB; ``encoding`` is a name that the libraries know.

    Raises:
        ConversionError: The image is too small for its mosaic, or neither library is installed.
    """
    height, width = pixels.shape[:2]
    if encoding.startswith("bayer") and min(height, width) < _SMALLEST_MOSAIC:
        raise ConversionError("size", f"an image of {encoding} needs at least 3x3 pixels, got {width}x{height}")
    convert, fault = library()
    if convert is None:
        raise ConversionError(
            "library",
            f"images of {encoding} need cv_bridge (sudo apt install ros-$ROS_DISTRO-cv-bridge) or "
            f"rosbags-image (pip install rosbags-image){'; ' + fault if fault else ''}",
        )
    return _converted(convert, pixels, encoding)


def _converted(convert: Convert, pixels: np.ndarray, encoding: str) -> np.ndarray:
    height, width = pixels.shape[:2]
    plain = SimpleNamespace(
        height=height,
        width=width,
        encoding=encoding,
        step=pixels.strides[0],
        is_bigendian=int(sys.byteorder == "big"),
        data=pixels,
    )
    if pixels.dtype == np.uint8:
        return convert(plain, "rgb8")
    # By themselves, cv_bridge would round and rosbags-image would truncate.
    return to_8_bits(convert(plain, "rgb16"))


@cache
def library() -> tuple[Convert | None, str]:
    """Returns the library that works here, or ``None``, and what is wrong with an installed one that does not work.

    Each library is tried once on small images. An import alone proves little: cv_bridge loads its compiled part only
    with the first image that needs it, and fails then if that part was built for another NumPy.
    """
    faults = []
    for name, get in (("cv_bridge", _cv_bridge), ("rosbags-image", _rosbags_image)):
        try:
            convert = get()
            fault = _fault_of(convert)
        except ModuleNotFoundError as error:
            if error.name not in ("cv_bridge", "rosbags", "rosbags.image"):
                faults.append(f"{name} does not work here ({error})")
            continue
        except Exception as error:  # an incompatible library may raise anything when it is loaded or used
            fault = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        if fault:
            faults.append(f"{name} does not work here ({fault})")
        else:
            return convert, f"{faults[0]}: {name} reads 16-bit, Bayer and YUV images instead" if faults else ""
    return None, "; ".join(faults)


def _cv_bridge() -> Convert:
    # By its name, because only a ROS installation has it, and nothing here needs ROS.
    return importlib.import_module("cv_bridge").CvBridge().imgmsg_to_cv2


def _rosbags_image() -> Convert:
    from rosbags.image import message_to_cvimage

    return message_to_cvimage


def _fault_of(convert: Convert) -> str:
    """Returns what is wrong with a library's conversion of a tiny image of each kind; empty if nothing is."""
    for kind, channels, encoding in (("u1", 1, "bayer_rggb8"), ("u2", 1, "mono16"), ("u1", 2, "yuv422")):
        shape = (4, 4, channels)[: 2 if channels == 1 else 3]
        got = _converted(convert, np.zeros(shape, kind), encoding)
        if got.shape != (4, 4, 3):
            return f"an image of {encoding} became an array of {got.shape}"
    return ""


def to_8_bits(pixels: np.ndarray) -> np.ndarray:
    """Scales uint16 to uint8: value * 255 / 65535, rounded."""
    return cv2.convertScaleAbs(pixels, alpha=255 / 65535)


def planar_to_rgb(message: Any) -> np.ndarray:
    """Reads an image of ``PLANAR_ENCODINGS`` as (H, W, 3) uint8 RGB; both libraries read only the first plane.

    The planes follow one another: (H, W) of Y with rows of ``step`` bytes; then, in nv21, (H / 2, W / 2) pairs of V, U
    with rows of ``step`` bytes; in nv24, (H, W) pairs of U, V with rows of 2 * ``step`` bytes.

    Raises:
        ConversionError: The image is empty, the size of an nv21 image is odd, or rows do not fit ``step`` or the data.
    """
    height, width = int(message.height), int(message.width)
    if message.encoding == "nv21":
        planes = pixel_rows(message, 1, height * 3 // 2)
        _require_even(message, "width", "height")
        return cv2.cvtColor(planes, cv2.COLOR_YUV2RGB_NV21)
    rows = _padded_rows(message, 1, height * 3)
    pairs = rows[height:].reshape(height, -1)[:, : 2 * width].reshape(height, width, 2)
    # OpenCV has no conversion for nv24. In UYVY each pair belongs to two pixels; here these are twice the same pixel.
    packed = np.empty((height, width, 4), np.uint8)
    packed[:, :, 0::2] = pairs
    packed[:, :, 1::2] = rows[:height, :width, None]
    doubled = cv2.cvtColor(packed.reshape(height, 2 * width, 2), cv2.COLOR_YUV2RGB_UYVY)
    return np.ascontiguousarray(doubled[:, ::2])


def require_size(height: int, width: int) -> None:
    """Raises ConversionError if an image has no pixel or more than ``MAX_PIXELS``, before memory is allocated."""
    if height == 0 or width == 0:
        raise ConversionError("empty", f"the image is empty: {width}x{height} pixels")
    if height * width > MAX_PIXELS:
        raise ConversionError(
            "size", f"the image is too large: {width}x{height} pixels are more than {MAX_PIXELS:,}; send a smaller one"
        )


def _require_even(message: Any, *sides: str) -> None:
    if any(getattr(message, side) % 2 for side in sides):
        raise ConversionError(
            "size",
            f"an image of {message.encoding} has an even {' and '.join(sides)}, got {message.width}x{message.height}",
        )


def _padded_rows(message: Any, bytes_per_pixel: int, count: int | None = None) -> np.ndarray:
    """Returns a (count, step) uint8 view of the message's first rows."""
    height, width, step = int(message.height), int(message.width), int(message.step)
    require_size(height, width)
    if step < width * bytes_per_pixel:
        raise ConversionError(
            "step",
            f"a row of {width} {message.encoding} pixels needs {width * bytes_per_pixel} bytes, but step says {step}",
        )
    count = height if count is None else count
    data = np.frombuffer(message.data, np.uint8)
    if len(data) < count * step:
        raise ConversionError(
            "truncated",
            f"the data is truncated: {count} rows of {step} bytes need {count * step} bytes, got {len(data)}",
        )
    return data[: count * step].reshape(count, step)
