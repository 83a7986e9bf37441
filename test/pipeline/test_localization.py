import numpy as np
import pytest

from clip_seg_ros.pipeline.localization import locate, with_position
from clip_seg_ros.types import CameraFrame, CameraIntrinsics, ObjectRegion

INTRINSICS = CameraIntrinsics(fx=50.0, fy=40.0, cx=9.5, cy=7.5, width=20, height=16)


def region_at(rows, columns):
    mask = np.zeros((16, 20), bool)
    mask[rows, columns] = True
    box = (columns.start, rows.start, columns.stop, rows.stop)
    centroid = ((columns.start + columns.stop - 1) / 2, (rows.start + rows.stop - 1) / 2)
    return ObjectRegion("cup", 1, 0.9, mask, box, centroid, int(mask.sum()))


REGION = region_at(slice(2, 6), slice(12, 17))


def test_a_point_projects_back_onto_the_centroid():
    x, y, z = locate(REGION, np.full((16, 20), 0.8, np.float32), INTRINSICS)
    assert z == pytest.approx(0.8)
    assert (INTRINSICS.fx * x / z + INTRINSICS.cx, INTRINSICS.fy * y / z + INTRINSICS.cy) == pytest.approx((14.0, 3.5))
    assert x > 0 and y < 0  # right of the optical axis and above it, where y points down


def test_depth_is_the_median_of_the_valid_pixels_of_the_mask():
    rng = np.random.default_rng(0)
    depth_m = rng.uniform(0.5, 2.0, (16, 20)).astype(np.float32)
    depth_m[2, 12:17] = [np.nan, 0.0, np.inf, -1.0, -np.inf]
    valid = [depth_m[row, column] for row in range(3, 6) for column in range(12, 17)]
    assert locate(REGION, depth_m, INTRINSICS)[2] == pytest.approx(sorted(valid)[len(valid) // 2])


def test_depth_outside_the_mask_does_not_count():
    mask_depth = np.where(REGION.mask, 0.7, np.nan).astype(np.float32)
    ring = REGION.mask.copy()
    ring[3, 13] = False  # a hole inside the box
    holed = ObjectRegion("cup", 1, 0.9, ring, REGION.box_px, REGION.centroid_px, 19)
    mask_depth[3, 13] = 100.0
    assert locate(holed, mask_depth, INTRINSICS)[2] == pytest.approx(0.7)


@pytest.mark.parametrize("nothing", [np.nan, 0.0, np.inf, -1.0])
def test_without_valid_depth_there_is_no_position(nothing):
    assert locate(REGION, np.full((16, 20), nothing, np.float32), INTRINSICS) is None


def test_a_few_valid_pixels_are_not_trusted():
    large = region_at(slice(0, 10), slice(0, 10))
    depth_m = np.full((16, 20), np.nan, np.float32)
    depth_m[0, :4] = 0.8
    assert locate(large, depth_m, INTRINSICS) is None
    depth_m[0, 4] = 0.8
    assert locate(large, depth_m, INTRINSICS)[2] == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("depth_shape", "intrinsics"),
    [((20, 16), INTRINSICS), ((16, 20), CameraIntrinsics(50.0, 50.0, 9.5, 7.5, width=40, height=32))],
)
def test_sizes_must_agree(depth_shape, intrinsics):
    with pytest.raises(ValueError, match="sizes .* differ"):
        locate(REGION, np.ones(depth_shape, np.float32), intrinsics)


def test_a_region_gets_the_position_of_its_frame():
    rgb, depth_m = np.zeros((16, 20, 3), np.uint8), np.full((16, 20), 0.8, np.float32)
    frame = CameraFrame(rgb, 0, "camera", depth_m, INTRINSICS)
    located = with_position(REGION, frame)
    assert located.position_m == locate(REGION, depth_m, INTRINSICS)
    assert located.mask is REGION.mask and REGION.position_m is None


def test_without_depth_or_intrinsics_the_position_is_absent():
    rgb, depth_m = np.zeros((16, 20, 3), np.uint8), np.full((16, 20), 0.8, np.float32)
    assert with_position(REGION, CameraFrame(rgb, 0, "camera", depth_m, None)).position_m is None
    assert with_position(REGION, CameraFrame(rgb, 0, "camera", None, INTRINSICS)).position_m is None
