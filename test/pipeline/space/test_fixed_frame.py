# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from clip_seg_ros.pipeline.space.fixed_frame import axes, inverse, moved_box, moved_points, rigid
from clip_seg_ros.pipeline.space.oriented_box import oriented_box

QUARTER = np.array([[0.0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])
"""A quarter turn about z, and then a move by (1, 2, 3)."""


def test_points_are_turned_and_moved_and_brought_back():
    points = np.array([[1.0, 0, 0], [0, 1, 0]])
    moved = moved_points(QUARTER, points)
    np.testing.assert_allclose(moved, [[1, 3, 3], [0, 2, 3]])
    np.testing.assert_allclose(moved_points(inverse(QUARTER), moved), points, atol=1e-12)


def test_a_moved_box_is_the_box_of_the_moved_points():
    points = np.random.default_rng(1).uniform(-0.5, 0.5, (4000, 3)) * (0.3, 0.12, 0.05)
    box = oriented_box(points.astype(np.float32))
    moved = moved_box(QUARTER, box)
    expected = oriented_box(moved_points(QUARTER, points).astype(np.float32))
    np.testing.assert_allclose(moved.center_m, expected.center_m, atol=1e-5)
    np.testing.assert_allclose(moved.size_m, expected.size_m, atol=1e-5)
    np.testing.assert_allclose(np.abs(axes(moved).T @ axes(expected)), np.eye(3), atol=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        np.eye(3),
        2 * np.eye(4),
        np.diag([1.0, 1, -1, 1]),
        np.full((4, 4), np.nan),
        np.array([[1.0, 0.1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
        np.diag([1.0, 1, 1, 2]),
    ],
)
def test_what_is_no_rigid_transform_is_refused(wrong):
    with pytest.raises(ValueError, match="transform"):
        rigid(wrong)
