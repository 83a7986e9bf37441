# SPDX-License-Identifier: Apache-2.0
import cv2
import numpy as np
import pytest

from clip_seg_ros.pipeline.space.localization import locate, measure, with_position
from clip_seg_ros.pipeline.space.oriented_box import oriented_box
from clip_seg_ros.types import CameraFrame, CameraIntrinsics, ObjectRegion
from nearness import assert_near

INTRINSICS = CameraIntrinsics(fx=50.0, fy=40.0, cx=9.5, cy=7.5, width=20, height=16)


def region_at(rows, columns):
    mask = np.zeros((16, 20), bool)
    mask[rows, columns] = True
    return ObjectRegion.of_mask("cup", 1, 0.9, mask)


REGION = region_at(slice(2, 6), slice(12, 17))


def test_a_point_projects_back_onto_the_centroid():
    x, y, z = locate(REGION, np.full((16, 20), 0.8, np.float32), INTRINSICS)
    assert z == pytest.approx(0.8)
    assert (INTRINSICS.fx * x / z + INTRINSICS.cx, INTRINSICS.fy * y / z + INTRINSICS.cy) == pytest.approx((14.0, 3.5))
    assert x > 0
    assert y < 0


def test_depth_is_the_median_of_the_valid_pixels_of_the_mask():
    rng = np.random.default_rng(0)
    depth_m = rng.uniform(0.7, 0.72, (16, 20)).astype(np.float32)
    depth_m[2, 12:17] = [np.nan, 0.0, np.inf, -1.0, -np.inf]
    valid = [depth_m[row, column] for row in range(3, 6) for column in range(12, 17)]
    assert locate(REGION, depth_m, INTRINSICS)[2] == pytest.approx(sorted(valid)[len(valid) // 2])


def test_depth_outside_the_mask_does_not_count():
    mask_depth = np.where(REGION.mask, 0.7, np.nan).astype(np.float32)
    ring = REGION.mask.copy()
    ring[3, 13] = False  # a hole inside the box
    holed = ObjectRegion.of_mask("cup", 1, 0.9, ring)
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
    with pytest.raises(ValueError, match=r"sizes .* differ"):
        locate(REGION, np.ones(depth_shape, np.float32), intrinsics)


def test_a_region_gets_the_position_of_its_frame():
    rgb, depth_m = np.zeros((16, 20, 3), np.uint8), np.full((16, 20), 0.8, np.float32)
    frame = CameraFrame(rgb, 0, "camera", depth_m, INTRINSICS)
    located = with_position(REGION, frame)
    assert located.position_m == locate(REGION, depth_m, INTRINSICS)
    assert located.box_m is not None
    assert located.inside is REGION.inside
    assert REGION.position_m is None


def test_without_depth_or_intrinsics_the_position_is_absent():
    rgb, depth_m = np.zeros((16, 20, 3), np.uint8), np.full((16, 20), 0.8, np.float32)
    assert with_position(REGION, CameraFrame(rgb, 0, "camera", depth_m, None)).position_m is None
    assert with_position(REGION, CameraFrame(rgb, 0, "camera", None, INTRINSICS)).position_m is None
    measured = measure(REGION, CameraFrame(rgb, 0, "camera", depth_m, None))
    assert measured.region is REGION
    assert measured.points_m.shape == (0, 3)
    assert measured.pixels.shape == (0,)


# What is measured in scenes whose surfaces are known: a thing on a table in front of a wall.

CAMERA = CameraIntrinsics(300.0, 300.0, 159.5, 119.5, width=320, height=240)
BALL_RADIUS_M = 0.05
BRICK_M = np.array([0.06, 0.06, 0.1])


def scene(kind, tilt, distance_m=0.6):
    """Casts a ray a pixel, from a camera that looks down by ``tilt`` (radians): depth (H, W), and where the thing is.

    World: x right, y away from the camera, z up; the table at z = 0, the wall at y = 1.
    """
    c, s = np.cos(tilt), np.sin(tilt)
    axes = np.array([[1, 0, 0], [0, -s, -c], [0, c, -s]])  # the camera's x, y and z in the world
    columns, rows = np.meshgrid(np.arange(CAMERA.width), np.arange(CAMERA.height))
    rays = np.stack([(columns - CAMERA.cx) / CAMERA.fx, (rows - CAMERA.cy) / CAMERA.fy, np.ones(rows.shape)], axis=-1)
    rays = rays @ axes
    eye = np.array([0, 0, 0.05]) - distance_m * axes[2]
    with np.errstate(divide="ignore", invalid="ignore"):
        table, wall = -eye[2] / rays[..., 2], (1 - eye[1]) / rays[..., 1]
        behind = np.minimum(np.where(table > 0, table, np.inf), np.where(wall > 0, wall, np.inf))
        hit = ball_hit(eye, rays) if kind == "ball" else brick_hit(eye, rays)
    return np.minimum(behind, hit).astype(np.float32), hit < behind


def ball_hit(eye, rays):
    from_center = eye - [0, 0, BALL_RADIUS_M]
    a, b, c = (rays**2).sum(-1), rays @ from_center, from_center @ from_center - BALL_RADIUS_M**2
    return np.where(b * b > a * c, (-b - np.sqrt(b * b - a * c)) / a, np.inf)


def brick_hit(eye, rays):
    turned = np.array([[np.cos(0.5), np.sin(0.5), 0], [-np.sin(0.5), np.cos(0.5), 0], [0, 0, 1]])
    start, rays = turned @ (eye - [0, 0, BRICK_M[2] / 2]), rays @ turned.T
    one, other = (-BRICK_M / 2 - start) / rays, (BRICK_M / 2 - start) / rays
    enter, leave = np.minimum(one, other).max(-1), np.maximum(one, other).min(-1)
    return np.where(enter < leave, enter, np.inf)


def as_a_sensor_sees(depth_m, noise=0.003, holes=0.0, mixed=False, speckle=0.0):
    """``noise``: standard deviation at 1 m, growing with the square; ``holes``, ``speckle``: shares of the pixels."""
    rng = np.random.default_rng(0)
    seen = depth_m
    if mixed:
        steps = cv2.dilate(seen, np.ones((3, 3))) - cv2.erode(seen, np.ones((3, 3)))
        seen = np.where(steps > 0.03, cv2.blur(seen, (3, 3)), seen)
    seen = seen + rng.normal(0, noise, seen.shape) * seen**2
    seen[rng.random(seen.shape) < holes] = np.nan
    stray = rng.random(seen.shape) < speckle
    seen[stray] = rng.uniform(0.1, 5.0, stray.sum())
    return seen.astype(np.float32)


def region_of(mask):
    return ObjectRegion.of_mask("thing", 1, 0.9, mask)


def grown(mask, by_px):
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * by_px + 1, 2 * by_px + 1))).astype(bool)


def frame_of(depth_m, intrinsics=CAMERA):
    return CameraFrame(np.zeros((*depth_m.shape, 3), np.uint8), 0, "camera", depth_m, intrinsics)


def true_surface(depth_m, mask):
    """(N, 3), one pixel after the other."""
    return np.array(
        [
            ((x - CAMERA.cx) * depth_m[y, x] / CAMERA.fx, (y - CAMERA.cy) * depth_m[y, x] / CAMERA.fy, depth_m[y, x])
            for y, x in np.argwhere(mask)
        ]
    )


# how the sensor and the mask are wrong -> (sensor, the mask grows by pixels, greatest error of the position in m, and
# of a side of the box). A pixel is 2 mm wide here. The largest errors are those of the brick from above, whose sides
# are seen at 20 degrees.
CONDITIONS = {
    "exact": ({"noise": 0.0}, 0, 0.006, 0.025),
    "noise": ({}, 0, 0.006, 0.025),
    "holes": ({"holes": 0.3}, 0, 0.006, 0.025),
    "mixed edges": ({"mixed": True}, 0, 0.006, 0.028),
    "mask 2 px too large": ({"mixed": True}, 2, 0.006, 0.020),
    "mask 4 px too large": ({"mixed": True, "holes": 0.3}, 4, 0.015, 0.030),
    "all of it": ({"mixed": True, "holes": 0.3, "speckle": 0.05}, 4, 0.015, 0.045),
}


@pytest.mark.parametrize("tilt", [0.15, 0.6, 1.2])
@pytest.mark.parametrize("kind", ["ball", "brick"])
@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_middle_of_the_visible_surface_is_found(condition, kind, tilt):
    sensor, by_px, position_bound_m, size_bound_m = CONDITIONS[condition]
    depth_m, mask = scene(kind, tilt)
    measured = measure(region_of(grown(mask, by_px)), frame_of(as_a_sensor_sees(depth_m, **sensor)))
    surface = true_surface(depth_m, mask)
    error_m = np.linalg.norm(np.median(surface, axis=0) - measured.region.position_m)
    assert error_m < position_bound_m
    # Below the surface by a third of a radius of the ball, about, and as much of the brick's edge.
    assert np.linalg.norm(surface - measured.region.position_m, axis=1).min() < 0.018
    true_size_m = oriented_box(surface.astype(np.float32)).size_m
    assert np.abs(np.subtract(true_size_m, measured.region.box_m.size_m)).max() < size_bound_m


@pytest.mark.parametrize("tilt", [0.15, 0.6])
@pytest.mark.parametrize("kind", ["ball", "brick"])
def test_a_mask_that_spills_over_the_edge_shows_the_thing_in_front(kind, tilt):
    depth_m, mask = scene(kind, tilt)
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    spilled = np.zeros_like(mask)
    spilled[y - height : y + height // 2, x : x + width] = True
    surface = true_surface(depth_m, mask & spilled)
    assert len(surface) < 0.5 * np.count_nonzero(spilled)  # a median over all would be the table's
    position_m = locate(region_of(spilled), as_a_sensor_sees(depth_m, mixed=True, holes=0.2), CAMERA)
    assert np.linalg.norm(np.median(surface, axis=0) - position_m) < 0.01


def two_surfaces(near_share, shape=(40, 50)):
    """A surface at 0.8 m before one at 1.2 m, side by side, each 2 cm deep, and where the near one is."""
    near = np.zeros(shape, bool)
    near[:, : round(near_share * shape[1])] = True
    depth_m = np.where(near, 0.8, 1.2) + np.linspace(0, 0.02, shape[0])[:, None]
    intrinsics = CameraIntrinsics(50.0, 50.0, shape[1] / 2, shape[0] / 2, shape[1], shape[0])
    return depth_m.astype(np.float32), near, intrinsics


@pytest.mark.parametrize(("near_share", "expected_m"), [(0.1, 1.21), (0.4, 0.81), (0.9, 0.81)])
def test_the_near_surface_counts_when_it_is_of_a_good_size(near_share, expected_m):
    depth_m, near, intrinsics = two_surfaces(near_share)
    measured = measure(region_of(np.ones_like(near)), frame_of(depth_m, intrinsics))
    assert measured.region.position_m[2] == pytest.approx(expected_m, abs=0.002)
    chosen = near.ravel()[measured.pixels]
    assert chosen.all() if expected_m < 1 else not chosen.any()
    assert len(chosen) == (near if expected_m < 1 else ~near).sum()


def test_speckle_leaves_no_points():
    depth_m, near, intrinsics = two_surfaces(1.0)
    rng = np.random.default_rng(0)
    stray = rng.random(depth_m.shape) < 0.1
    seen = np.where(stray, rng.uniform(0.1, 5.0, depth_m.shape), depth_m).astype(np.float32)
    measured = measure(region_of(near), frame_of(seen, intrinsics))
    assert np.abs(measured.points_m[:, 2] - 0.81).max() < 0.025
    assert np.count_nonzero(~stray.ravel()[measured.pixels]) == np.count_nonzero(~stray)


def test_a_floor_that_runs_away_is_one_surface():
    rows, width = np.arange(1, 401), 20
    depth_m = np.repeat((200.0 / rows)[:, None], width, axis=1).astype(np.float32)  # 1 m below a level camera
    mask = np.zeros(depth_m.shape, bool)
    mask[60:] = True  # from 0.5 to 3.3 m
    intrinsics = CameraIntrinsics(200.0, 200.0, 10.0, 0.0, width, len(rows))
    z = locate(region_of(mask), depth_m, intrinsics)[2]
    assert z == pytest.approx(np.median(depth_m[mask]), rel=0.02)


def test_a_flat_thing_measured_in_coarse_steps_stays_whole():
    depth_m, near, intrinsics = two_surfaces(1.0)
    seen = np.where(np.indices(depth_m.shape).sum(axis=0) % 2, 0.8, 0.805).astype(np.float32)
    assert len(measure(region_of(near), frame_of(seen, intrinsics)).points_m) == near.sum()


def test_a_thin_thing_is_all_rim_and_is_kept():
    mask = np.zeros((40, 50), bool)
    mask[20:22, 5:45] = True
    intrinsics = CameraIntrinsics(50.0, 50.0, 25.0, 20.0, 50, 40)
    measured = measure(region_of(mask), frame_of(np.where(mask, 0.7, 1.0).astype(np.float32), intrinsics))
    assert np.array_equal(measured.pixels, np.flatnonzero(mask))
    assert measured.region.box_m.size_m == pytest.approx((39 * 0.7 / 50, 0.7 / 50, 0.0), abs=0.001)


@pytest.mark.parametrize(("y", "x"), [(0, 0), (15, 19), (7, 3)])
def test_one_pixel_has_a_position_and_no_box(y, x):
    region = region_at(slice(y, y + 1), slice(x, x + 1))
    measured = measure(region, frame_of(np.full((16, 20), 0.8, np.float32), INTRINSICS))
    assert measured.region.position_m == pytest.approx(((x - 9.5) * 0.8 / 50, (y - 7.5) * 0.8 / 40, 0.8))
    assert measured.region.box_m is None
    assert measured.points_m.shape == (1, 3)
    assert measured.pixels.tolist() == [y * 20 + x]


def test_a_mask_of_the_whole_image_has_no_rim():
    depth_m = np.full((16, 20), 0.8, np.float32)
    depth_m[8:, 10:] = np.nan
    measured = measure(region_at(slice(0, 16), slice(0, 20)), frame_of(depth_m, INTRINSICS))
    assert np.array_equal(measured.pixels, np.flatnonzero(depth_m > 0))


def test_distortion_moves_the_points():
    distorted = CameraIntrinsics(50.0, 40.0, 9.5, 7.5, 20, 16, (-0.3, 0.1, 0.0, 0.0, 0.0))
    depth_m = np.full((16, 20), 0.8, np.float32)
    measured = measure(REGION, frame_of(depth_m, distorted))
    matrix = np.array([[50.0, 0, 9.5], [0, 40.0, 7.5], [0, 0, 1]])
    back = cv2.projectPoints(
        measured.points_m.astype(float), np.zeros(3), np.zeros(3), matrix, np.array(distorted.distortion)
    )[0][:, 0]
    assert back[:, 1] * 20 + back[:, 0] == pytest.approx(measured.pixels, abs=0.3)
    assert measured.region.position_m[0] > locate(REGION, depth_m, INTRINSICS)[0]  # a barrel pulls towards the middle


def test_the_same_frame_gives_the_same_answer():
    depth_m, mask = scene("brick", 0.6)
    frame, region = frame_of(as_a_sensor_sees(depth_m, holes=0.1)), region_of(mask)
    first, second = measure(region, frame), measure(region, frame)
    assert first.region.position_m == pytest.approx(second.region.position_m)
    assert first.region.box_m.size_m == pytest.approx(second.region.box_m.size_m)
    assert first.points_m.dtype == np.float32
    assert_near(first.points_m, second.points_m)


@pytest.mark.parametrize(("outside_m", "is_part"), [(1.4, True), (0.99, False), (np.nan, False)])
def test_what_lies_behind_counts_unless_it_goes_on_outside_the_mask(outside_m: float, is_part: bool):
    """A bowl's far wall over its near one, and a table behind a box, in the same mask."""
    depth_m = np.full((80, 80), outside_m, np.float32)
    mask = np.zeros_like(depth_m, bool)
    mask[20:60, 20:60] = True
    depth_m[20:44, 20:60], depth_m[44:60, 20:60] = 0.98, 0.85
    intrinsics = CameraIntrinsics(80.0, 80.0, 40.0, 40.0, 80, 80)
    measured = measure(region_of(mask), frame_of(depth_m, intrinsics))
    assert measured.region.position_m[2] == pytest.approx(0.98 if is_part else 0.85, abs=1e-3)
    assert np.isclose(measured.points_m[:, 2], 0.98).any() == is_part
