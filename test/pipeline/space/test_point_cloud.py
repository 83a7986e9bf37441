# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from clip_seg_ros.pipeline.space.localization import measure
from clip_seg_ros.pipeline.space.point_cloud import point_cloud
from clip_seg_ros.types import CameraFrame, CameraIntrinsics, ObjectRegion

HEIGHT, WIDTH = 30, 40
INTRINSICS = CameraIntrinsics(50.0, 50.0, 19.5, 14.5, WIDTH, HEIGHT)


def region_at(id, rows, columns):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[rows, columns] = True
    return ObjectRegion.of_mask("cup", id, 0.9, mask)


def frame():
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    depth_m = np.full((HEIGHT, WIDTH), 0.8, np.float32)
    depth_m[:, 20:] = 1.5
    depth_m[7, 7] = np.nan
    return CameraFrame(rgb, 0, "camera", depth_m, INTRINSICS)


REGIONS = [region_at(7, slice(5, 15), slice(4, 14)), region_at(3, slice(10, 30), slice(25, 40))]


def test_every_point_has_the_colour_and_the_id_of_its_pixel():
    seen = frame()
    cloud = point_cloud([measure(region, seen) for region in REGIONS], seen.rgb, max_points=1000)
    expected = []
    for region in REGIONS:
        for y, x in np.argwhere(region.mask):
            z = seen.depth_m[y, x]
            if z > 0:
                expected.append(((x - 19.5) * z / 50.0, (y - 14.5) * z / 50.0, z, *seen.rgb[y, x], region.id))
    expected = np.array(expected)
    assert cloud.points_m.dtype == np.float32
    assert cloud.rgb.dtype == np.uint8
    assert cloud.ids.dtype == np.uint8
    assert len(cloud.points_m) == 10 * 10 - 1 + 20 * 15
    assert cloud.points_m == pytest.approx(expected[:, :3], abs=1e-6)
    assert np.array_equal(cloud.rgb, expected[:, 3:6])
    assert np.array_equal(cloud.ids, expected[:, 6])
    assert cloud.points_m.flags.c_contiguous


def test_a_large_region_is_thinned_evenly():
    seen = frame()
    measurements = [measure(region, seen) for region in REGIONS]
    cloud = point_cloud(measurements, seen.rgb, max_points=99)
    assert np.array_equal(np.unique(cloud.ids, return_counts=True), [[3, 7], [99, 99]])
    assert np.array_equal(cloud.points_m[:99], measurements[0].points_m)  # 99 points: as they are
    chosen = cloud.points_m[cloud.ids == 3]
    assert len(np.unique(chosen, axis=0)) == 99
    rows = np.rint(chosen[:, 1] / chosen[:, 2] * 50.0 + 14.5)
    counts = [(rows == row).sum() for row in range(10, 30)]
    assert min(counts) >= 4
    assert max(counts) <= 6


def test_the_only_point_is_from_the_middle():
    seen = frame()
    measurement = measure(REGIONS[1], seen)
    cloud = point_cloud([measurement], seen.rgb, max_points=1)
    assert np.array_equal(cloud.points_m, measurement.points_m[150:151])


def test_without_depth_the_cloud_is_empty():
    seen = frame()
    blind = CameraFrame(seen.rgb, 0, "camera")
    for measurements in ([], [measure(region, blind) for region in REGIONS]):
        cloud = point_cloud(measurements, seen.rgb, max_points=10)
        assert cloud.points_m.shape == (0, 3)
        assert cloud.rgb.shape == (0, 3)
        assert cloud.ids.shape == (0,)
        assert cloud.points_m.dtype == np.float32
        assert cloud.rgb.dtype == np.uint8
        assert cloud.ids.dtype == np.uint8


def test_at_least_one_point_is_asked_for():
    with pytest.raises(ValueError, match="at least 1"):
        point_cloud([], frame().rgb, max_points=0)
