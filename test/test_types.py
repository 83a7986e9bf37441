# SPDX-License-Identifier: Apache-2.0
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from clip_seg_ros.types import CameraFrame, CameraIntrinsics, MaskSet, ObjectRegion, OrientedBox, ProbabilityMaps

RGB = np.zeros((4, 6, 3), np.uint8)


def test_a_frame_takes_matching_arrays():
    frame = CameraFrame(RGB, stamp_ns=1, frame_id="camera", depth_m=np.zeros((4, 6), np.float32))
    assert frame.intrinsics is None
    with pytest.raises(FrozenInstanceError):
        frame.stamp_ns = 2


@pytest.mark.parametrize(
    "rgb", [RGB[..., 0], RGB[..., :2], RGB.astype(np.float32), np.zeros((0, 6, 3), np.uint8)], ids=str
)
def test_a_frame_refuses_what_is_no_picture(rgb):
    with pytest.raises(ValueError, match="rgb must be"):
        CameraFrame(rgb, stamp_ns=0, frame_id="camera")


@pytest.mark.parametrize("depth_m", [np.zeros((6, 4), np.float32), np.zeros((4, 6)), np.zeros((4, 6), np.uint16)])
def test_a_frame_refuses_depth_of_another_size_or_type(depth_m):
    with pytest.raises(ValueError, match="depth_m must be"):
        CameraFrame(RGB, stamp_ns=0, frame_id="camera", depth_m=depth_m)


@pytest.mark.parametrize(
    ("change", "message"), [({"fx": 0.0}, "focal"), ({"fy": -1.0}, "focal"), ({"width": 0}, "image size")]
)
def test_intrinsics_are_positive(change, message):
    with pytest.raises(ValueError, match=message):
        CameraIntrinsics(**({"fx": 1.0, "fy": 1.0, "cx": 0.0, "cy": 0.0, "width": 2, "height": 2} | change))


@pytest.mark.parametrize("count", [0, 4, 5, 8])
def test_distortion_has_a_known_number_of_coefficients(count):
    intrinsics = CameraIntrinsics(1.0, 1.0, 0.0, 0.0, 2, 2, distortion=(0.1,) * count)
    assert hash(intrinsics) == hash(CameraIntrinsics(1.0, 1.0, 0.0, 0.0, 2, 2, (0.1,) * count))


@pytest.mark.parametrize(
    ("distortion", "message"),
    [
        ((0.1,), "0, 4, 5 or 8"),
        ((0.1,) * 6, "0, 4, 5 or 8"),
        ([0.1] * 5, "must be a tuple"),
        ((0.1, 0.2, float("nan"), 0.0), "finite"),
    ],
)
def test_distortion_is_checked(distortion, message):
    with pytest.raises(ValueError, match=message):
        CameraIntrinsics(1.0, 1.0, 0.0, 0.0, 2, 2, distortion)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size_m": (0.1, 0.2, 0.1)}, "the longest comes first"),
        ({"size_m": (0.2, 0.1, -0.1)}, "must not be negative"),
        ({"size_m": (0.2, 0.1)}, "size of 3"),
        ({"center_m": (0.0, float("nan"), 1.0)}, "finite"),
        ({"orientation_xyzw": (0.0, 0.0, 0.0, 0.5)}, "unit quaternion"),
    ],
)
def test_a_box_is_checked(change, message):
    good = {"center_m": (0.0, 0.0, 1.0), "size_m": (0.2, 0.1, 0.0), "orientation_xyzw": (0.0, 0.0, 0.0, 1.0)}
    OrientedBox(**good)
    with pytest.raises(ValueError, match=message):
        OrientedBox(**(good | change))


@pytest.mark.parametrize("direction", [(0.0, -1.0, 0.0), (0.0, 0.0, 1.0), (0.6, 0.0, -0.8)])
def test_a_box_reaches_as_far_as_its_farthest_corner(direction):
    """Turned by 90 degrees around z, and then by 60 around x; the corners are worked out with matrices."""
    half, turn = np.sqrt(0.5), np.radians(30)
    xyzw = (half * np.sin(turn), -half * np.sin(turn), half * np.cos(turn), half * np.cos(turn))
    box = OrientedBox((0.1, -0.2, 0.9), (0.4, 0.2, 0.1), xyzw)
    around_z = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    around_x = np.array([[1, 0, 0], [0, np.cos(2 * turn), -np.sin(2 * turn)], [0, np.sin(2 * turn), np.cos(2 * turn)]])
    signs = np.array(list(np.ndindex(2, 2, 2))) - 0.5
    corners = signs * box.size_m @ (around_x @ around_z).T
    assert box.reach_m(direction) == pytest.approx(np.max(corners @ direction))


@pytest.mark.parametrize("values", [np.zeros((1, 4, 6), np.float32), np.zeros((2, 4, 6)), np.zeros((2, 4), np.float32)])
def test_probabilities_come_one_map_a_prompt(values):
    ProbabilityMaps(("a", "b"), np.zeros((2, 4, 6), np.float32))
    with pytest.raises(ValueError, match="values must be float32"):
        ProbabilityMaps(("a", "b"), values)


@pytest.mark.parametrize("values", [np.zeros((1, 4, 6), bool), np.zeros((2, 4, 6), np.uint8)])
def test_masks_come_one_a_prompt(values):
    MaskSet(("a", "b"), np.zeros((2, 4, 6), bool), 0.5)
    with pytest.raises(ValueError, match="values must be bool"):
        MaskSet(("a", "b"), values, 0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": 0}, "1..255"),
        ({"id": 256}, "1..255"),
        ({"inside": np.ones((4, 6), np.uint8)}, "inside must be"),
        ({"inside": np.ones((6, 4), bool)}, "inside must be"),
        ({"box_px": (3, 0, 9, 4)}, "must lie in the image of 8x5"),
        ({"box_px": (0, 2, 6, 2)}, "must lie in the image"),
        ({"area_px": 0}, "at least one pixel"),
    ],
)
def test_a_region_is_checked(change, message):
    good = {
        "prompt": "cup",
        "id": 1,
        "score": 0.9,
        "inside": np.ones((4, 6), bool),
        "box_px": (1, 0, 7, 4),
        "centroid_px": (3.5, 1.5),
        "area_px": 24,
        "image_size": (5, 8),
    }
    assert ObjectRegion(**good).position_m is None
    assert ObjectRegion(**good).box_m is None
    with pytest.raises(ValueError, match=message):
        ObjectRegion(**(good | change))


def test_a_region_is_made_of_its_mask_and_gives_it_back():
    mask = np.zeros((5, 8), bool)
    mask[1, 2:6] = mask[3, 4] = True
    region = ObjectRegion.of_mask("cup", 2, 0.7, mask)
    assert (region.box_px, region.area_px, region.image_size) == ((2, 1, 6, 4), 5, (5, 8))
    assert region.centroid_px == pytest.approx((3.6, 1.4))
    assert region.inside.shape == (3, 4)
    np.testing.assert_array_equal(region.mask, mask)
    np.testing.assert_array_equal(mask[region.window], region.inside)
    assert replace(region, id=3).mask.sum() == 5


@pytest.mark.parametrize("mask", [np.zeros((4, 6), bool), np.ones((4, 6), np.uint8), np.ones(4, bool)])
def test_a_region_needs_a_mask(mask):
    with pytest.raises(ValueError, match=r"at least one pixel|mask must be"):
        ObjectRegion.of_mask("cup", 1, 0.9, mask)
