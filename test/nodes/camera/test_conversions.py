# SPDX-License-Identifier: Apache-2.0
"""Message conversions against per-pixel loops that read the bytes as the ROS documentation describes them."""

import array
import math
import struct
from dataclasses import replace

import cv2
import numpy as np
import pytest
from rosbags.image import message_to_cvimage
from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest

from clip_seg_ros.nodes.camera.conversions import (
    COLOR_ENCODINGS,
    ConversionError,
    camera_info_to_intrinsics,
    depth_to_metres,
    fill_image,
    image_to_rgb,
    metres_to_millimetres,
)
from clip_seg_ros.pipeline.space.localization import measure
from clip_seg_ros.types import CameraFrame, ObjectRegion

HEIGHT, WIDTH = 4, 5
CHANNEL_NAMES = {
    "rgb8": "rgb",
    "bgr8": "bgr",
    "rgba8": "rgba",
    "bgra8": "bgra",
    "mono8": "y",
    "8UC1": "y",
    "8UC3": "bgr",
    "8UC4": "bgra",
}
K = [500.0, 0.0, 319.5, 0.0, 510.0, 239.5, 0.0, 0.0, 1.0]


def random_image(encoding: str, bytes_per_pixel: int, padding: int, is_bigendian: int = 0) -> Image:
    step = WIDTH * bytes_per_pixel + padding
    data = np.random.default_rng(0).integers(0, 256, HEIGHT * step, dtype=np.uint8)
    return Image(
        height=HEIGHT,
        width=WIDTH,
        encoding=encoding,
        step=step,
        is_bigendian=is_bigendian,
        data=array.array("B", data.tobytes()),
    )


@pytest.mark.parametrize("padding", [0, 1, 7])
@pytest.mark.parametrize("is_bigendian", [0, 1])
@pytest.mark.parametrize("encoding", CHANNEL_NAMES)
def test_color_against_a_loop(encoding, padding, is_bigendian):
    names = CHANNEL_NAMES[encoding]
    message = random_image(encoding, len(names), padding, is_bigendian)

    rgb = image_to_rgb(message)

    assert rgb.shape == (HEIGHT, WIDTH, 3)
    assert rgb.dtype == np.uint8
    assert rgb.flags.c_contiguous
    for y in range(HEIGHT):
        for x in range(WIDTH):
            start = y * message.step + x * len(names)
            pixel = dict(zip(names, message.data[start : start + len(names)]))
            expected = [pixel["y"]] * 3 if names == "y" else [pixel[c] for c in "rgb"]
            assert rgb[y, x].tolist() == expected


@pytest.mark.parametrize("encoding", CHANNEL_NAMES)
def test_color_equals_that_of_rosbags_image(encoding):
    message = random_image(encoding, len(CHANNEL_NAMES[encoding]), padding=0)
    rgb = image_to_rgb(message)
    message.encoding = {"8UC1": "mono8", "8UC3": "bgr8", "8UC4": "bgra8"}.get(encoding, encoding)
    np.testing.assert_array_equal(rgb, message_to_cvimage(message, "rgb8"))


@pytest.mark.parametrize("padding", [0, 1, 6])
@pytest.mark.parametrize("is_bigendian", [0, 1])
def test_millimetres_against_a_loop(padding, is_bigendian):
    message = random_image("16UC1", 2, padding, is_bigendian)
    message.data[0:2] = array.array("B", [0, 0])

    depth_m = depth_to_metres(message)

    assert depth_m.dtype == np.float32
    assert math.isnan(depth_m[0, 0])
    for y in range(HEIGHT):
        for x in range(WIDTH):
            start = y * message.step + x * 2
            (millimetres,) = struct.unpack(">H" if is_bigendian else "<H", bytes(message.data[start : start + 2]))
            if millimetres:
                assert depth_m[y, x] == pytest.approx(millimetres / 1000, rel=1e-6)
            else:
                assert math.isnan(depth_m[y, x])


@pytest.mark.parametrize("is_bigendian", [0, 1])
def test_metres_with_everything_that_is_no_depth(is_bigendian):
    values = [1.25, 0.0, -1.0, math.nan, math.inf, -math.inf, 0.001, 65.0, 3.0, 2.0]
    step = 5 * 4 + 3
    rows = [struct.pack(("<", ">")[is_bigendian] + "5f", *values[i : i + 5]) + b"\xff\xff\xff" for i in (0, 5)]
    message = Image(height=2, width=5, encoding="32FC1", step=step, is_bigendian=is_bigendian)
    message.data = array.array("B", b"".join(rows))

    depth_m = depth_to_metres(message)

    for value, got in zip(values, depth_m.ravel()):
        if math.isfinite(value) and value > 0:
            assert got == pytest.approx(value)
        else:
            assert math.isnan(got)


@pytest.mark.filterwarnings("error")
def test_depth_of_any_bits_is_read_without_a_warning():
    # NumPy warns of a signalling NaN.
    bits = np.array([[0x7F800001, 0xFF800001, 0x7F800000, 0x3F800000]], "<u4")
    message = Image(height=1, width=4, encoding="32FC1", step=16, data=array.array("B", bits.tobytes()))
    np.testing.assert_array_equal(depth_to_metres(message), [[np.nan, np.nan, np.nan, 1.0]])


def test_the_message_is_not_changed():
    message = random_image("32FC1", 4, 0)
    before = bytes(message.data)
    depth_to_metres(message)
    assert bytes(message.data) == before


@pytest.mark.parametrize(
    ("change", "fault", "words"),
    [
        ({"encoding": "yuv420"}, "encoding yuv420", ["'yuv420'", *COLOR_ENCODINGS]),
        ({"height": 0}, "empty", ["5x0"]),
        ({"width": 0}, "empty", ["0x4"]),
        ({"step": 14}, "step", ["15 bytes", "14"]),
        ({"height": 2**16, "width": 2**16, "step": 2**31}, "size", ["65536x65536", "33,554,432"]),
        ({"height": 5}, "truncated", ["75 bytes", "got 60"]),
        ({"data": array.array("B")}, "truncated", ["got 0"]),
    ],
)
def test_unreadable_images_say_why(change, fault, words):
    message = random_image("rgb8", 3, 0)
    for name, value in change.items():
        setattr(message, name, value)

    with pytest.raises(ConversionError) as error:
        image_to_rgb(message)

    assert error.value.fault == fault
    assert all(word in str(error.value) for word in words), str(error.value)


def test_unknown_depth_encoding_names_the_accepted_ones():
    with pytest.raises(ConversionError, match="'rgb8'; accepted: 16UC1, 32FC1"):
        depth_to_metres(random_image("rgb8", 3, 0))


@pytest.mark.parametrize(
    ("shape", "dtype", "encoding"),
    [
        ((3, 4, 3), np.uint8, "rgb8"),
        ((3, 4), np.uint8, "mono8"),
        ((3, 4), np.uint8, "8UC1"),
        ((3, 4), np.float32, "32FC1"),
        ((3, 4), np.uint16, "16UC1"),
    ],
)
def test_filled_images_read_back(shape, dtype, encoding):
    pixels = (np.random.default_rng(1).random(shape) * 200 + 1).astype(dtype)

    message = fill_image(Image(), pixels, encoding)

    if dtype == np.uint8:
        np.testing.assert_array_equal(image_to_rgb(message), np.broadcast_to(pixels.reshape(3, 4, -1), (3, 4, 3)))
    else:
        scale = 0.001 if encoding == "16UC1" else 1.0
        np.testing.assert_allclose(depth_to_metres(message), pixels * scale, rtol=1e-6)


def test_pixels_that_do_not_lie_in_order_are_filled_in_order():
    pixels = np.random.default_rng(2).integers(0, 256, (6, 8, 3), dtype=np.uint8)[::2, ::-1]

    message = fill_image(Image(), pixels, "rgb8")

    assert (message.height, message.width, message.step) == (3, 8, 24)
    assert bytes(message.data) == pixels.tobytes()


def test_an_encoding_refuses_the_wrong_type():
    with pytest.raises(ValueError, match="8UC1 cannot hold int64"):
        fill_image(Image(), np.zeros((2, 2), np.int64), "8UC1")


def test_millimetres_of_what_has_no_millimetres():
    depth_m = np.array([[0.0014, 1.0006, np.nan, np.inf, -1.0, 65.535, 65.6]], np.float32)
    assert metres_to_millimetres(depth_m).tolist() == [[1, 1001, 0, 0, 0, 65535, 0]]


def test_intrinsics():
    intrinsics = camera_info_to_intrinsics(CameraInfo(width=640, height=480, k=K))
    assert (intrinsics.fx, intrinsics.fy, intrinsics.cx, intrinsics.cy) == (500.0, 510.0, 319.5, 239.5)
    assert (intrinsics.width, intrinsics.height) == (640, 480)
    assert intrinsics.distortion == ()


def test_a_region_and_binning_move_the_intrinsics():
    full = camera_info_to_intrinsics(CameraInfo(width=640, height=480, k=K))
    region = RegionOfInterest(x_offset=100, y_offset=40, width=320, height=240)

    part = camera_info_to_intrinsics(CameraInfo(width=640, height=480, k=K, roi=region))
    binned = camera_info_to_intrinsics(CameraInfo(width=640, height=480, k=K, binning_x=2, binning_y=4))
    both = camera_info_to_intrinsics(CameraInfo(width=640, height=480, k=K, roi=region, binning_x=2, binning_y=4))

    assert part == replace(full, cx=219.5, cy=199.5, width=320, height=240)
    assert binned == replace(full, fx=250.0, cx=159.75, fy=127.5, cy=59.875, width=320, height=120)
    assert both == replace(full, fx=250.0, cx=109.75, fy=127.5, cy=49.875, width=160, height=60)


def test_a_region_of_the_whole_image_and_binning_of_one_change_nothing():
    full = camera_info_to_intrinsics(CameraInfo(width=640, height=480, k=K))
    info = CameraInfo(width=640, height=480, k=K, binning_x=1, binning_y=1)
    info.roi = RegionOfInterest(width=640, height=480)
    assert camera_info_to_intrinsics(info) == full


@pytest.mark.parametrize(
    ("model", "d", "expected"),
    [
        ("plumb_bob", [0.1, -0.2, 0.001, 0.002, 0.05], (0.1, -0.2, 0.001, 0.002, 0.05)),
        ("plumb_bob", [0.1, -0.2, 0.001, 0.002], (0.1, -0.2, 0.001, 0.002)),
        ("plumb_bob", [0.0] * 5, ()),
        ("plumb_bob", [], ()),
        ("rational_polynomial", [float(i) for i in range(8)], tuple(float(i) for i in range(8))),
        ("rational_polynomial", [float(i) for i in range(8)] + [0.0] * 6, tuple(float(i) for i in range(8))),
        ("rational_polynomial", [0.0] * 8, ()),
        ("", [], ()),
        ("", [0.0] * 5, ()),
    ],
)
def test_distortion(model, d, expected):
    info = CameraInfo(width=640, height=480, k=K, distortion_model=model, d=d)
    assert camera_info_to_intrinsics(info).distortion == expected


@pytest.mark.parametrize(
    ("model", "d", "fault"),
    [
        ("equidistant", [0.1, 0.0, 0.0, 0.0], "distortion equidistant"),
        # Even without coefficients, such a lens is no pinhole.
        ("equidistant", [0.0] * 4, "distortion equidistant"),
        ("fisheye", [], "distortion fisheye"),
        ("", [0.1, 0.0, 0.0, 0.0, 0.0], "distortion "),
        ("plumb_bob", [0.1, 0.2], "distortion size"),
        ("rational_polynomial", [0.1] * 14, "distortion size"),
    ],
)
def test_distortion_that_cannot_be_undone_asks_for_a_rectified_image(model, d, fault):
    info = CameraInfo(width=640, height=480, k=K, distortion_model=model, d=d)
    with pytest.raises(ConversionError, match="ositions need a rectified image") as error:
        camera_info_to_intrinsics(info)
    assert error.value.fault == fault


def test_an_uncalibrated_camera_is_refused():
    for rectified, part in ((False, "K"), (True, "P")):
        with pytest.raises(ConversionError, match=f"{part} of camera_info describes no camera: focal lengths") as error:
            camera_info_to_intrinsics(CameraInfo(width=640, height=480), rectified)
        assert error.value.fault == "uncalibrated"


LENS = CameraInfo(
    width=160,
    height=120,
    distortion_model="plumb_bob",
    d=[-0.3, 0.1, 0.002, -0.001, 0.02],
    k=[120.0, 0.0, 79.0, 0.0, 125.0, 61.0, 0.0, 0.0, 1.0],
    # The fourth column tells where the other camera of a pair is, which does not move what this one sees.
    p=[108.0, 0.0, 86.0, -9.0, 0.0, 112.0, 56.0, 0.0, 0.0, 0.0, 1.0, 0.0],
)
DISC_M = (0.45, -0.3, 0.9)


def position_of_disc(pixels: np.ndarray, rectified: bool) -> np.ndarray:
    """The position (3,) of a disc facing the camera at ``DISC_M``, from its pixels (N, 2) in an image of ``LENS``."""
    mask = np.zeros((120, 160), bool)
    x, y = np.rint(pixels).astype(int).T
    mask[y, x] = True
    region = ObjectRegion.of_mask("disc", 1, 1.0, mask)
    intrinsics = camera_info_to_intrinsics(LENS, rectified)
    depth_m = np.full(mask.shape, DISC_M[2], np.float32)
    frame = CameraFrame(np.zeros((*mask.shape, 3), np.uint8), 0, "camera", depth_m, intrinsics)
    return np.array(measure(region, frame).region.position_m)


def test_a_raw_and_a_rectified_image_give_the_same_position():
    steps = np.linspace(-0.06, 0.06, 101)
    within = [(u, v) for u in steps for v in steps if math.hypot(u, v) < 0.06]
    disc = np.array([[DISC_M[0] + u, DISC_M[1] + v, DISC_M[2]] for u, v in within])
    matrix = np.array(LENS.k).reshape(3, 3)
    raw = cv2.projectPoints(disc, np.zeros(3), np.zeros(3), matrix, np.array(LENS.d))[0][:, 0]
    projection = np.array(LENS.p).reshape(3, 4)[:, :3]
    rectified = np.array([(projection @ point)[:2] / point[2] for point in disc])

    # A pixel is 9 mm wide at that distance, and the position is that of one.
    assert position_of_disc(raw, False) == pytest.approx(DISC_M, abs=0.0045)
    assert position_of_disc(rectified, True) == pytest.approx(DISC_M, abs=0.0045)
    for wrong in (position_of_disc(raw, True), position_of_disc(rectified, False)):
        assert np.linalg.norm(wrong - DISC_M) > 0.02


def test_of_a_rectified_image_the_distortion_does_not_matter():
    known = camera_info_to_intrinsics(LENS, rectified=True)
    fisheye = CameraInfo(width=160, height=120, distortion_model="equidistant", d=[0.1] * 4, k=LENS.k, p=LENS.p)
    assert camera_info_to_intrinsics(fisheye, rectified=True) == known
    assert known.distortion == ()


def test_a_region_and_binning_move_the_rectified_intrinsics_alike():
    info = CameraInfo(width=160, height=120, p=LENS.p, binning_x=2, binning_y=4)
    info.roi = RegionOfInterest(x_offset=10, y_offset=8, width=80, height=60)
    intrinsics = camera_info_to_intrinsics(info, rectified=True)
    assert (intrinsics.fx, intrinsics.fy, intrinsics.cx, intrinsics.cy) == (54.0, 28.0, 38.0, 12.0)
    assert (intrinsics.width, intrinsics.height) == (40, 15)
