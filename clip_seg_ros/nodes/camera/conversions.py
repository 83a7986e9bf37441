# SPDX-License-Identifier: Apache-2.0
"""Conversions between ``sensor_msgs`` messages and arrays: those of ``sources.messages``, and the way back.

The functions use only the fields of a message, so that they work with any object that has the fields of
``sensor_msgs/Image``, ``sensor_msgs/CompressedImage`` or ``sensor_msgs/CameraInfo``.
"""

from __future__ import annotations

import array
import sys
from typing import Any

import cv2
import numpy as np

from clip_seg_ros.sources.messages import COLOR_ENCODINGS as COLOR_ENCODINGS
from clip_seg_ros.sources.messages import DEPTH_ENCODINGS as DEPTH_ENCODINGS
from clip_seg_ros.sources.messages import ConversionError as ConversionError
from clip_seg_ros.sources.messages import camera_info_to_intrinsics as camera_info_to_intrinsics
from clip_seg_ros.sources.messages import compressed_depth_to_metres as compressed_depth_to_metres
from clip_seg_ros.sources.messages import compressed_to_rgb as compressed_to_rgb
from clip_seg_ros.sources.messages import depth_to_metres as depth_to_metres
from clip_seg_ros.sources.messages import image_to_rgb as image_to_rgb
from clip_seg_ros.sources.messages import metres_to_millimetres as metres_to_millimetres

# encoding -> numpy type of a channel, for the encodings that are published
_WRITTEN_TYPES = {"rgb8": "u1", "mono8": "u1", "8UC1": "u1", "16UC1": "u2", "32FC1": "f4"}

_JPEG_QUALITY = 90


def fill_image(message: Any, pixels: np.ndarray, encoding: str) -> Any:
    """Writes ``pixels`` (H, W) or (H, W, C) to a ``sensor_msgs/Image`` and returns it; the header does not change.

    Raises:
        ValueError: The type of ``pixels`` is not that of the encoding.
    """
    if pixels.dtype != np.dtype(_WRITTEN_TYPES[encoding]):
        raise ValueError(f"an image of {encoding} cannot hold {pixels.dtype}")
    message.height, message.width = pixels.shape[:2]
    message.encoding = encoding
    message.is_bigendian = sys.byteorder == "big"
    message.step = pixels.nbytes // pixels.shape[0]
    message.data = byte_array(pixels)
    return message


def fill_compressed(message: Any, pixels: np.ndarray, encoding: str) -> Any:
    """Writes ``pixels`` to a ``sensor_msgs/CompressedImage`` and returns it; the header does not change.

    Its format is that of image_transport, whose subscribers read it.

    Args:
        message: The message to fill.
        pixels: (H, W, 3) uint8 RGB, which becomes a JPEG, or (H, W) uint8, which becomes a PNG.
        encoding: "rgb8" or "mono8", respectively.

    Raises:
        ValueError: The encoding is another one.
    """
    if encoding == "rgb8":
        quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        _, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), quality)
        message.format = "rgb8; jpeg compressed bgr8"
    elif encoding == "mono8":
        # A mask has few edges, so that the lowest and fastest level of compression makes it small enough.
        _, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        message.format = "mono8; png compressed "
    else:
        raise ValueError(f"there is no compressed form of {encoding}: use rgb8 or mono8")
    message.data = byte_array(data)
    return message


def byte_array(values: np.ndarray) -> array.array:
    """Returns the bytes of ``values``, of any shape and type, as the data of a message."""
    # rclpy takes an array.array unchanged, while it checks a list or a NumPy array element by element. Filled like
    # this, the values are copied once; array.array("B", values.tobytes()) copies them twice and is twenty times slower.
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(values).reshape(-1).view(np.uint8))
    return data
