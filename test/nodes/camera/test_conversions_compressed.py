# SPDX-License-Identifier: Apache-2.0
"""Compressed images of colour and of depth, as the plugins of image_transport write them."""

import array
import io
import math
import struct

import cv2
import numpy as np
import PIL.Image
import pytest
from sensor_msgs.msg import CompressedImage, Image

from clip_seg_ros.nodes.camera.conversions import (
    ConversionError,
    compressed_depth_to_metres,
    compressed_to_rgb,
    fill_compressed,
    image_to_rgb,
)


def picture(shape: tuple[int, ...], dtype: type = np.uint8) -> np.ndarray:
    """Smooth in every channel and different between them, so that JPEG keeps it nearly as it is."""
    height, width = shape[:2]
    y, x = np.mgrid[0:height, 0:width]
    channels = [x / width, y / height, 1 - x / width, 0.5 + 0 * x][: 1 if len(shape) == 2 else shape[2]]
    return (np.stack(channels, axis=-1) * 0.9 * np.iinfo(dtype).max).astype(dtype).reshape(shape)


def compressed(pixels: np.ndarray, codec: str, format: str) -> CompressedImage:
    """``pixels`` as they are handed to OpenCV, which takes them for BGR."""
    return CompressedImage(format=format, data=array.array("B", cv2.imencode(f".{codec}", pixels)[1].tobytes()))


@pytest.mark.parametrize("codec", ["jpeg", "png"])
@pytest.mark.parametrize(
    ("format", "stored"),
    [
        ("{0}", "bgr"),
        ("", "bgr"),
        ("rgb8; {0} compressed bgr8", "bgr"),
        ("bgr8; {0} compressed bgr8", "bgr"),
        ("bgr8; {0} compressed rgb8", "rgb"),
        ("rgba8; {0} compressed rgb8", "rgb"),
    ],
)
def test_compressed_color(codec, format, stored):
    rgb = picture((24, 32, 3))
    message = compressed(rgb if stored == "rgb" else rgb[:, :, ::-1], codec, format.format(codec))

    got = compressed_to_rgb(message)

    assert got.dtype == np.uint8
    assert got.flags.c_contiguous
    np.testing.assert_allclose(got.astype(int), rgb, atol=0 if codec == "png" else 12)


@pytest.mark.parametrize("codec", ["jpeg", "png"])
def test_compressed_grey(codec):
    grey = picture((24, 32))
    got = compressed_to_rgb(compressed(grey, codec, f"mono8; {codec} compressed "))
    np.testing.assert_allclose(got.astype(int), np.repeat(grey[:, :, None], 3, axis=2), atol=0 if codec == "png" else 4)


@pytest.mark.parametrize("shape", [(24, 32), (24, 32, 3), (24, 32, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_compressed_png_of_any_depth_and_channels(shape, dtype):
    pixels = picture(shape, dtype)

    got = compressed_to_rgb(compressed(pixels, "png", "png"))

    levels = pixels if dtype == np.uint8 else (pixels.astype(int) + 128) // 257
    expected = np.repeat(levels[:, :, None], 3, axis=2) if len(shape) == 2 else levels[:, :, 2::-1]
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_compressed_mosaic_is_read_as_the_raw_one(dtype):
    mosaic = np.random.default_rng(3).integers(0, np.iinfo(dtype).max, (6, 8), dtype=dtype)
    raw = Image(height=6, width=8, encoding=f"bayer_gbrg{8 * mosaic.itemsize}", step=8 * mosaic.itemsize)
    raw.data = array.array("B", mosaic.tobytes())

    got = compressed_to_rgb(compressed(mosaic, "png", f"{raw.encoding}; png compressed "))

    np.testing.assert_array_equal(got, image_to_rgb(raw))


def broken(codec: str, how: str) -> CompressedImage:
    message = compressed(picture((24, 32, 3)), codec, codec)
    length = len(message.data)
    ends = {"half": length // 2, "end": length - 2, "header": 20, "first byte": 1, "empty": 0}
    message.data = message.data[: ends[how]]
    return message


@pytest.mark.parametrize("codec", ["jpeg", "png"])
@pytest.mark.parametrize("how", ["half", "end", "header", "first byte", "empty"])
def test_truncated_pictures_are_refused(codec, how):
    with pytest.raises(ConversionError, match=f"format '{codec}' are") as error:
        compressed_to_rgb(broken(codec, how))
    assert error.value.fault == "data"


def test_a_jpeg_with_bytes_behind_its_end_is_read():
    message = compressed(picture((24, 32, 3)), "jpeg", "jpeg")
    expected = compressed_to_rgb(message)
    message.data.extend(bytes(100))
    np.testing.assert_array_equal(compressed_to_rgb(message), expected)


def test_an_orientation_leaves_the_pixels_where_they_are():
    rgb = picture((24, 32, 3))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    file = io.BytesIO()
    PIL.Image.fromarray(rgb).save(file, "jpeg", exif=exif)

    got = compressed_to_rgb(CompressedImage(format="jpeg", data=array.array("B", file.getvalue())))

    np.testing.assert_allclose(got.astype(int), rgb, atol=20)


def test_other_data_are_refused():
    with pytest.raises(ConversionError, match="'h264' are neither JPEG nor PNG"):
        compressed_to_rgb(CompressedImage(format="h264", data=array.array("B", bytes(1000))))


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_depth_is_no_color(encoding):
    message = compressed(picture((24, 32), np.uint16), "png", f"{encoding}; compressedDepth png")
    with pytest.raises(ConversionError, match="holds depth, not colour"):
        compressed_to_rgb(message)


def compressed_depth(format: str, header: bytes, values: np.ndarray) -> CompressedImage:
    return CompressedImage(format=format, data=array.array("B", header + cv2.imencode(".png", values)[1].tobytes()))


@pytest.mark.parametrize("format", ["16UC1; compressedDepth", "16UC1; compressedDepth png"])
def test_compressed_millimetres(format):
    values = np.random.default_rng(4).integers(0, 65536, (6, 8), dtype=np.uint16)
    values[0, 0] = 0

    # The header's parameters mean nothing here and may be anything.
    depth_m = compressed_depth_to_metres(compressed_depth(format, b"\xff" * 12, values))

    assert depth_m.dtype == np.float32
    assert math.isnan(depth_m[0, 0])
    np.testing.assert_allclose(depth_m, np.where(values == 0, np.nan, values / 1000), rtol=1e-6)


@pytest.mark.parametrize("format", ["32FC1; compressedDepth", "32FC1; compressedDepth png"])
def test_compressed_metres_against_a_loop(format):
    # The plugin's defaults: a quantisation of 100 and 10 m at most.
    a = 100.0 * (100.0 + 1.0)
    b = 1.0 - a / 10.0
    true_m = [0.3, 0.5, 1.0, 2.5, 9.99, math.nan, 10.0, math.inf]
    values = [int(a / depth + b) if depth < 10.0 else 0 for depth in true_m]
    message = compressed_depth(format, struct.pack("<iff", 0, a, b), np.array([values], np.uint16))

    depth_m = compressed_depth_to_metres(message)

    assert depth_m.shape == (1, 8)
    assert depth_m.dtype == np.float32
    for depth, got in zip(true_m, depth_m[0]):
        if depth < 10.0:
            # One step of v is depth² / A.
            assert got >= depth - 1e-5
            assert got - depth <= depth * got / a + 1e-5
        else:
            assert math.isnan(got)


def test_quantised_depth_that_is_no_distance_is_absent():
    values = np.array([[1, 2, 3, 4]], np.uint16)
    message = compressed_depth("32FC1; compressedDepth png", struct.pack("<iff", 0, 6.0, 2.0), values)
    np.testing.assert_allclose(compressed_depth_to_metres(message), [[np.nan, np.nan, 6.0, 3.0]])


@pytest.mark.parametrize(
    ("format", "header", "values", "words"),
    [
        ("16UC1; compressedDepth rvl", bytes(12), np.ones((2, 2), np.uint16), "compressedDepth rvl'.*accepted: 16UC1"),
        ("16UC1; png compressed ", bytes(12), np.ones((2, 2), np.uint16), "unknown format"),
        ("", bytes(12), np.ones((2, 2), np.uint16), "unknown format ''"),
        ("16UC1; compressedDepth", b"", np.ones((2, 2), np.uint16), "neither JPEG nor PNG"),
        ("16UC1; compressedDepth", bytes(12), np.ones((2, 2), np.uint8), "16 bits, got \\(2, 2\\) uint8"),
        ("16UC1; compressedDepth", bytes(12), np.ones((2, 2, 3), np.uint16), "one channel"),
        ("32FC1; compressedDepth", bytes(12), np.ones((2, 2), np.uint16), "A=0.0"),
        ("32FC1; compressedDepth", struct.pack("<iff", 0, math.nan, 1.0), np.ones((2, 2), np.uint16), "A=nan"),
    ],
)
def test_compressed_depth_that_cannot_be_read_says_why(format, header, values, words):
    with pytest.raises(ConversionError, match=words):
        compressed_depth_to_metres(compressed_depth(format, header, values))


@pytest.mark.parametrize("length", [0, 5, 12, 40, -2])
def test_truncated_compressed_depth_is_refused(length):
    message = compressed_depth("16UC1; compressedDepth", bytes(12), picture((24, 32), np.uint16))
    message.data = message.data[:length]
    with pytest.raises(ConversionError):
        compressed_depth_to_metres(message)


@pytest.mark.parametrize("codec", ["jpeg", "png"])
def test_a_picture_that_claims_to_be_huge_is_refused_before_it_is_decoded(codec):
    message = compressed(picture((24, 32)), codec, codec)
    data = bytearray(message.data)
    if codec == "png":
        data[16:24] = (30_000).to_bytes(4, "big") * 2
    else:
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = (30_000).to_bytes(2, "big") * 2
    message.data = array.array("B", bytes(data))
    with pytest.raises(ConversionError, match="30000x30000 pixels are more than"):
        compressed_to_rgb(message)


def test_pictures_for_the_network():
    """A picture becomes a JPEG and a mask a PNG, worded as image_transport words them."""
    rgb = picture((48, 64, 3))
    sent = fill_compressed(CompressedImage(), rgb, "rgb8")
    assert sent.format == "rgb8; jpeg compressed bgr8"
    assert bytes(sent.data[:3]) == b"\xff\xd8\xff"
    np.testing.assert_allclose(compressed_to_rgb(sent).astype(int), rgb, atol=12)
    mask = np.zeros((48, 64), np.uint8)
    mask[10:20, 5:50] = 255
    sent = fill_compressed(CompressedImage(), mask, "mono8")
    assert sent.format == "mono8; png compressed "
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(sent.data, np.uint8), cv2.IMREAD_UNCHANGED), mask)
    with pytest.raises(ValueError, match="no compressed form of 32FC1"):
        fill_compressed(CompressedImage(), mask.astype(np.float32), "32FC1")
