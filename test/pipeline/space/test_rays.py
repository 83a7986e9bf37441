# SPDX-License-Identifier: Apache-2.0
import cv2
import numpy as np
import pytest

from clip_seg_ros.pipeline.space.rays import ray_table
from clip_seg_ros.types import CameraIntrinsics
from nearness import assert_near

WIDTH, HEIGHT = 64, 48
LENSES = {
    "barrel": (60.0, (-0.28, 0.07, 0.001, -0.002)),
    "pincushion": (60.0, (0.1, -0.02, 0.0, 0.0, 0.003)),
    "wide": (30.0, (-0.28, 0.07, 0.0, 0.0, 0.0)),
    "rational": (60.0, (0.5, -2.6, 0.0005, -0.0002, 1.5, 0.38, -2.4, 1.4)),
}


def camera(f=60.0, distortion=()):
    return CameraIntrinsics(f, 1.1 * f, 30.0, 25.5, WIDTH, HEIGHT, distortion)


def pixel_of(ray, intrinsics):
    """OpenCV's own way from a point to a pixel."""
    matrix = np.array([[intrinsics.fx, 0, intrinsics.cx], [0, intrinsics.fy, intrinsics.cy], [0, 0, 1.0]])
    point = np.array([[*ray, 1.0]], np.float64)
    return cv2.projectPoints(point, np.zeros(3), np.zeros(3), matrix, np.array(intrinsics.distortion))[0].ravel()


def test_a_pinhole_camera_looks_straight():
    rays = ray_table(camera())
    assert rays.shape == (HEIGHT, WIDTH, 2)
    assert rays.dtype == np.float32
    for x, y in [(0, 0), (63, 47), (30, 25), (63, 0)]:
        assert rays[y, x] == pytest.approx(((x - 30.0) / 60.0, (y - 25.5) / 66.0))


@pytest.mark.parametrize("lens", LENSES)
def test_a_ray_comes_back_to_its_pixel(lens):
    intrinsics = camera(*LENSES[lens])
    rays = ray_table(intrinsics)
    straight = ray_table(camera(LENSES[lens][0]))
    assert np.isfinite(rays).all()
    assert np.abs(rays - straight).max() * intrinsics.fx > 0.5  # there is something to undo
    for y in range(0, HEIGHT, 5):
        for x in [*range(0, WIDTH, 7), WIDTH - 1]:
            assert pixel_of(rays[y, x], intrinsics) == pytest.approx((x, y), abs=0.02)


def test_where_no_ray_leads_to_a_pixel_there_is_none():
    # x * (1 - 0.4 x^2) is at most 0.61: this lens shows nothing further out.
    intrinsics = camera(30.0, (-0.4, 0.0, 0.0, 0.0))
    rays = ray_table(intrinsics)
    columns, rows = np.meshgrid((np.arange(WIDTH) - 30.0) / 30.0, (np.arange(HEIGHT) - 25.5) / 33.0)
    radius = np.hypot(columns, rows)
    assert np.isfinite(rays[radius < 0.55]).all()
    assert np.isnan(rays[radius > 0.62]).all()


def test_coefficients_of_zero_are_no_distortion():
    assert_near(ray_table(camera(distortion=(0.0,) * 5)), ray_table(camera()))


def test_a_camera_is_computed_once_and_its_table_stays_as_it_is():
    first = ray_table(camera(60.0, LENSES["barrel"][1]))
    assert ray_table(camera(60.0, LENSES["barrel"][1])) is first
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 0.0
