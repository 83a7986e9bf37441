# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from clip_seg_ros.pipeline.space.oriented_box import MIN_POINTS, oriented_box

SIZE = np.array([0.3, 0.12, 0.05])
CENTER = np.array([0.1, -0.2, 0.9])


def turn(axis, angle):
    """Rodrigues' formula."""
    x, y, z = np.array(axis, float) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def matrix_of(quaternion):
    """Turns the three unit vectors with the quaternion, q v q*, one after the other."""
    vector, w = np.array(quaternion[:3]), quaternion[3]
    return np.stack(
        [v + 2 * w * np.cross(vector, v) + 2 * np.cross(vector, np.cross(vector, v)) for v in np.eye(3)], axis=1
    )


def cuboid(rotation, count=4000, seed=0):
    """Points that fill a cuboid of ``SIZE``."""
    inside = np.random.default_rng(seed).uniform(-0.5, 0.5, (count, 3)) * SIZE
    return (inside @ rotation.T + CENTER).astype(np.float32)


ROTATIONS = {
    "none": np.eye(3),
    "upright": turn((0, 0, 1), np.pi / 2),
    "along the view": turn((0, 1, 0), np.pi / 2),
    "half a turn": turn((1, 1, 0), np.pi),
    "any": turn((1, -2, 0.5), 1.1),
    "another": turn((-1, 0.3, 2), 2.9),
}


@pytest.mark.parametrize("name", ROTATIONS)
def test_a_box_of_points_is_found(name):
    box = oriented_box(cuboid(ROTATIONS[name]))
    assert box.size_m == pytest.approx(SIZE, rel=0.04)
    assert box.center_m == pytest.approx(CENTER, abs=0.003)
    axes = matrix_of(box.orientation_xyzw)
    assert np.linalg.det(axes) == pytest.approx(1.0)
    assert np.linalg.norm(box.orientation_xyzw) == pytest.approx(1.0)
    assert box.orientation_xyzw[3] >= 0
    # The same three axes, up to their signs.
    assert np.abs(axes.T @ ROTATIONS[name]) == pytest.approx(np.eye(3), abs=0.03)


@pytest.mark.parametrize("name", ROTATIONS)
def test_the_points_lie_inside(name):
    points = cuboid(ROTATIONS[name])
    box = oriented_box(points)
    inside = np.abs((points - box.center_m) @ matrix_of(box.orientation_xyzw)) <= np.array(box.size_m) / 2
    assert (inside.mean(axis=0) >= 0.975).all()
    assert inside.all(axis=1).mean() >= 0.93


def test_the_same_points_give_the_same_box_in_any_order():
    points = cuboid(ROTATIONS["any"])
    box = oriented_box(points)
    assert oriented_box(points.copy()) == box
    shuffled = oriented_box(np.random.default_rng(1).permutation(points))
    assert shuffled.orientation_xyzw == pytest.approx(box.orientation_xyzw, abs=1e-3)


@pytest.mark.parametrize("name", ["none", "upright", "along the view", "any", "another"])
def test_noise_does_not_flip_the_axes(name):
    points = cuboid(ROTATIONS[name])
    first = matrix_of(oriented_box(points).orientation_xyzw)
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(0, 0.002, points.shape).astype(np.float32)
        axes = matrix_of(oriented_box(points + noise).orientation_xyzw)
        assert np.trace(first.T @ axes) > 2.9  # 3 for the same rotation


def test_a_stray_point_does_not_set_the_size():
    points = cuboid(np.eye(3))
    points[:8] += np.float32(0.1)
    assert oriented_box(points).size_m == pytest.approx(SIZE, rel=0.06)


def test_a_few_points_have_no_box():
    points = cuboid(np.eye(3), MIN_POINTS)
    assert oriented_box(points) is not None
    assert oriented_box(points[1:]) is None
    assert oriented_box(points[:0]) is None


@pytest.mark.parametrize("step", [(0.0, 0.0, 0.0), (0.01, 0.0, 0.0), (0.001, 0.002, -0.001)])
def test_points_without_breadth_have_a_flat_box(step):
    points = (CENTER + np.arange(20)[:, None] * step).astype(np.float32)
    box = oriented_box(points)
    assert box.size_m == pytest.approx((np.linalg.norm(step) * 19, 0.0, 0.0), abs=1e-5)
