# SPDX-License-Identifier: Apache-2.0
"""Encodings beyond plain 8 bits against per-pixel loops: the formulas of BT.601 and of bilinear interpolation."""

import array
import importlib.util
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from rosbags.image import message_to_cvimage
from sensor_msgs.msg import Image

from clip_seg_ros.nodes.camera.conversions import COLOR_ENCODINGS, ConversionError, image_to_rgb
from clip_seg_ros.sources import image_decoding

PATTERNS = ["rggb", "bggr", "gbrg", "grbg"]
DEEP_NAMES = {"rgb16": "rgb", "bgr16": "bgr", "rgba16": "rgba", "bgra16": "bgra", "mono16": "y", "16UC1": "y"}
PACKED_ORDERS = {"yuv422": "uyvy", "uyvy": "uyvy", "yuv422_yuy2": "yuyv", "yuyv": "yuyv"}
WITHOUT_LIBRARIES = """
import importlib.abc, sys
from types import SimpleNamespace

class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("cv_bridge", "rosbags"):
            raise ModuleNotFoundError(f"{name} is hidden", name=name)

sys.meta_path.insert(0, Hide())
from clip_seg_ros.nodes.camera.conversions import ConversionError, image_to_rgb

def image(encoding):
    return SimpleNamespace(height=1, width=2, encoding=encoding, step=6, is_bigendian=0, data=bytes(6))

assert image_to_rgb(image("bgr8")).shape == (1, 2, 3)
try:
    image_to_rgb(image("yuyv"))
except ConversionError as error:
    print(error.fault, error)
"""


def message_of(encoding: str, size: tuple[int, int], rows: list[bytes], step: int, is_bigendian: int = 0) -> Image:
    """An image of ``size`` (H, W); each row is filled up to ``step`` bytes with what must not be read."""
    padded = b"".join(row + b"\xa5" * (step - len(row)) for row in rows)
    return Image(
        height=size[0],
        width=size[1],
        encoding=encoding,
        step=step,
        is_bigendian=is_bigendian,
        data=array.array("B", padded),
    )


def packed_samples(values: np.ndarray, is_bigendian: int = 0) -> list[bytes]:
    """The rows of (H, N) samples, uint8 or uint16, as bytes."""
    kind = "B" if values.dtype == np.uint8 else "H"
    return [struct.pack(f"{'<>'[is_bigendian]}{len(row)}{kind}", *row.tolist()) for row in values]


def random_bytes(shape: tuple[int, ...], dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(5).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def bt601(y: int, u: int, v: int) -> list[float]:
    luma = 255 / 219 * max(0, y - 16)
    red = luma + 255 / 224 * 1.402 * (v - 128)
    blue = luma + 255 / 224 * 1.772 * (u - 128)
    green = luma - 255 / 224 * (1.402 * 0.299 / 0.587 * (v - 128) + 1.772 * 0.114 / 0.587 * (u - 128))
    return [min(max(channel, 0.0), 255.0) for channel in (red, green, blue)]


def bilinear(mosaic: np.ndarray, pattern: str, y: int, x: int, color: str) -> float:
    """The pixel itself where it has the colour, else the mean of those of its 8 neighbours that have it."""

    def color_at(row: int, column: int) -> str:
        return pattern[2 * (row % 2) + column % 2]

    if color_at(y, x) == color:
        return float(mosaic[y, x])
    near = [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    return float(np.mean([float(mosaic[place]) for place in near if color_at(*place) == color]))


@pytest.mark.parametrize("padding", [0, 1, 6])
@pytest.mark.parametrize("is_bigendian", [0, 1])
@pytest.mark.parametrize("encoding", DEEP_NAMES)
def test_16_bits_against_a_loop(encoding, is_bigendian, padding):
    names = DEEP_NAMES[encoding]
    values = random_bytes((3, 5, len(names)), np.uint16)
    rows = packed_samples(values.reshape(3, -1), is_bigendian)

    rgb = image_to_rgb(message_of(encoding, (3, 5), rows, len(rows[0]) + padding, is_bigendian))

    assert rgb.shape == (3, 5, 3)
    assert rgb.dtype == np.uint8
    assert rgb.flags.c_contiguous
    for y in range(3):
        for x in range(5):
            pixel = dict(zip(names, values[y, x].tolist()))
            expected = [pixel["y" if names == "y" else color] * 255 / 65535 for color in "rgb"]
            assert rgb[y, x].tolist() == [round(value) for value in expected]


def test_every_16_bit_value_is_rounded():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    message = message_of("mono16", (256, 256), packed_samples(values), 512)

    rgb = image_to_rgb(message)

    np.testing.assert_array_equal(rgb[:, :, 1], (values.astype(np.int64) + 128) // 257)
    # Its own scaling is a level lower at most.
    assert set(np.unique(rgb.astype(int) - message_to_cvimage(message, "rgb8"))) == {0, 1}


@pytest.mark.parametrize("size", [(7, 9), (6, 8), (3, 3)])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(("bits", "is_bigendian"), [(8, 0), (16, 0), (16, 1)])
def test_mosaics_against_a_loop(pattern, bits, is_bigendian, size):
    mosaic = random_bytes(size, np.uint8 if bits == 8 else np.uint16)
    rows = packed_samples(mosaic, is_bigendian)

    rgb = image_to_rgb(message_of(f"bayer_{pattern}{bits}", size, rows, len(rows[0]) + 3, is_bigendian))

    scale = 1 if bits == 8 else 255 / 65535
    for y in range(1, size[0] - 1):
        for x in range(1, size[1] - 1):
            expected = [scale * bilinear(mosaic, pattern, y, x, color) for color in "rgb"]
            np.testing.assert_allclose(rgb[y, x], expected, atol=0.51)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_one_color_through_a_mosaic_is_that_color_up_to_the_border(pattern):
    color = {"r": 200, "g": 100, "b": 40}
    mosaic = np.array([[color[pattern[2 * (y % 2) + x % 2]] for x in range(9)] for y in range(7)], np.uint8)

    rgb = image_to_rgb(message_of(f"bayer_{pattern}8", (7, 9), packed_samples(mosaic), 9))

    assert np.unique(rgb.reshape(-1, 3), axis=0).tolist() == [[200, 100, 40]]


@pytest.mark.parametrize("padding", [0, 1, 6])
@pytest.mark.parametrize("encoding", PACKED_ORDERS)
def test_packed_yuv_against_the_formula(encoding, padding):
    values = random_bytes((5, 6, 2))

    rgb = image_to_rgb(message_of(encoding, (5, 6), packed_samples(values.reshape(5, 12)), 12 + padding))

    assert rgb.shape == (5, 6, 3)
    assert rgb.dtype == np.uint8
    for y in range(5):
        for x in range(6):
            pair = values[y, x - x % 2 : x - x % 2 + 2].ravel().tolist()
            order = PACKED_ORDERS[encoding]
            luma = [value for name, value in zip(order, pair) if name == "y"][x % 2]
            expected = bt601(luma, pair[order.index("u")], pair[order.index("v")])
            np.testing.assert_allclose(rgb[y, x], expected, atol=1.01)


@pytest.mark.parametrize("padding", [0, 2, 10])
def test_nv21_against_the_formula(padding):
    luma, pairs = random_bytes((4, 6)), random_bytes((2, 3, 2))
    rows = packed_samples(np.concatenate([luma, pairs.reshape(2, 6)]))

    rgb = image_to_rgb(message_of("nv21", (4, 6), rows, 6 + padding))

    assert rgb.shape == (4, 6, 3)
    assert rgb.dtype == np.uint8
    for y in range(4):
        for x in range(6):
            v, u = pairs[y // 2, x // 2].tolist()
            np.testing.assert_allclose(rgb[y, x], bt601(int(luma[y, x]), u, v), atol=1.01)


@pytest.mark.parametrize("padding", [0, 1, 10])
@pytest.mark.parametrize("size", [(3, 5), (1, 1), (4, 6)])
def test_nv24_against_the_formula(size, padding):
    height, width = size
    luma, pairs = random_bytes(size), random_bytes((height, width, 2))
    step = width + padding
    first = message_of("nv24", size, packed_samples(luma), step)
    second = message_of("nv24", size, packed_samples(pairs.reshape(height, -1)), 2 * step)
    first.data.extend(second.data)

    rgb = image_to_rgb(first)

    assert rgb.shape == (height, width, 3)
    assert rgb.flags.c_contiguous
    for y in range(height):
        for x in range(width):
            u, v = pairs[y, x].tolist()
            np.testing.assert_allclose(rgb[y, x], bt601(int(luma[y, x]), u, v), atol=1.01)


@pytest.mark.parametrize(
    ("encoding", "size", "step", "count", "fault", "words"),
    [
        ("uyvy", (2, 3), 6, 12, "size", ["uyvy", "even width", "3x2"]),
        ("nv21", (3, 4), 4, 16, "size", ["nv21", "even width and height", "4x3"]),
        ("nv21", (4, 3), 3, 18, "size", ["3x4"]),
        ("bayer_rggb8", (2, 8), 8, 16, "size", ["3x3", "8x2"]),
        ("bayer_rggb16", (8, 2), 4, 32, "size", ["2x8"]),
        ("rgb16", (2, 3), 17, 99, "step", ["18 bytes", "17"]),
        ("yuyv", (2, 4), 7, 99, "step", ["8 bytes", "7"]),
        ("mono16", (2, 3), 6, 11, "truncated", ["12 bytes", "got 11"]),
        ("nv21", (2, 4), 4, 11, "truncated", ["12 bytes", "got 11"]),
        ("nv24", (2, 4), 4, 23, "truncated", ["24 bytes", "got 23"]),
        ("nv24", (0, 4), 4, 0, "empty", ["4x0"]),
    ],
)
def test_unreadable_images_say_why(encoding, size, step, count, fault, words):
    message = message_of(encoding, size, [bytes(count)], step)

    with pytest.raises(ConversionError) as error:
        image_to_rgb(message)

    assert error.value.fault == fault
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize("encoding", COLOR_ENCODINGS)
def test_a_message_is_not_changed(encoding):
    message = message_of(encoding, (4, 4), [bytes(range(32))] * 12, 32, is_bigendian=1)
    before = bytes(message.data)
    image_to_rgb(message)
    assert bytes(message.data) == before


@pytest.mark.skipif(importlib.util.find_spec("cv_bridge") is not None, reason="cv_bridge comes first where it is")
def test_rosbags_image_stands_in_for_an_absent_cv_bridge():
    assert image_decoding.library() == (message_to_cvimage, "")


BROKEN_CV_BRIDGE = """
class CvBridge:
    def imgmsg_to_cv2(self, message, encoding):
        raise ImportError("numpy.core.multiarray failed to import\\nand much more")
"""
READ_BAYER = """
from types import SimpleNamespace
from clip_seg_ros.sources.image_decoding import ConversionError, library, with_library
image = SimpleNamespace(height=4, width=4, encoding="bayer_rggb8", step=4, is_bigendian=0, data=bytes([200] * 16))
print(library()[1])
print(with_library(image).mean())
"""


@pytest.mark.parametrize("when", ["used", "imported"])
def test_a_cv_bridge_that_does_not_work_is_replaced_and_named(tmp_path, when):
    """Its compiled half may have been built for another NumPy; that shows with the first image that needs it."""
    (tmp_path / "cv_bridge").mkdir()
    body = BROKEN_CV_BRIDGE if when == "used" else "raise ImportError('numpy.core.multiarray failed to import')"
    (tmp_path / "cv_bridge" / "__init__.py").write_text(body)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [sys.executable, "-c", READ_BAYER], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}
    )
    assert result.returncode == 0, result.stderr
    note, mean = result.stdout.splitlines()
    assert note == (
        "cv_bridge does not work here (ImportError: numpy.core.multiarray failed to import): "
        "rosbags-image reads 16-bit, Bayer and YUV images instead"
    )
    assert float(mean) == 200.0


def test_without_both_libraries_the_message_says_what_to_install():
    result = subprocess.run([sys.executable, "-c", WITHOUT_LIBRARIES], capture_output=True, text=True)

    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("library images of yuv422_yuy2 need")
    assert "ros-$ROS_DISTRO-cv-bridge" in result.stdout
    assert "pip install rosbags-image" in result.stdout
