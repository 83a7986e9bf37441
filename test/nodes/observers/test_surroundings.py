# SPDX-License-Identifier: Apache-2.0
"""The space around found objects, from the depth of a rendered table."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from clip_seg_ros.nodes.camera.target_frame import Motion
from clip_seg_ros.nodes.observers.surroundings import surroundings_of
from clip_seg_ros.types import CameraFrame
from clip_seg_ros.viewer.space_around import MOST_POINTS

TURN = Motion("left_optical", (0.0, 0.0, math.sin(0.4), math.cos(0.4)), (1.0, -2.0, 0.5))


@pytest.fixture(scope="module")
def frame(view) -> CameraFrame:
    return CameraFrame(view.rgb, 0, "optical", depth_m=view.depth_m, intrinsics=view.intrinsics)


def test_points_have_the_colours_of_their_pixels(frame):
    around = surroundings_of(frame, None)
    points, lens = around.surroundings.points_m, frame.intrinsics
    assert 0.5 * MOST_POINTS < len(points) <= MOST_POINTS
    columns = np.rint(points[:, 0] / points[:, 2] * lens.fx + lens.cx).astype(int)
    rows = np.rint(points[:, 1] / points[:, 2] * lens.fy + lens.cy).astype(int)
    assert np.array_equal(frame.rgb[rows, columns], around.surroundings.rgb)
    assert np.abs(frame.depth_m[rows, columns] - points[:, 2]).max() < 1e-6
    assert not around.surroundings.ids.any()
    assert (around.frame, around.camera_pose) == ("optical", None)


def test_a_small_image_is_taken_whole(frame):
    lens = replace(frame.intrinsics, width=80, height=60, cx=40.0, cy=30.0)
    small = CameraFrame(frame.rgb[:60, :80], 0, "optical", depth_m=frame.depth_m[:60, :80].copy(), intrinsics=lens)
    assert len(surroundings_of(small, None).surroundings.points_m) == np.isfinite(small.depth_m).sum()


def test_everything_moves_to_the_frame_of_positions(frame):
    here, there = surroundings_of(frame, None), surroundings_of(frame, TURN)
    assert there.frame == "left_optical"
    assert np.array_equal(there.camera_pose, TURN.matrix())
    assert np.abs(TURN.points(here.surroundings.points_m) - there.surroundings.points_m).max() < 1e-5
    up, d = np.array(there.table[:3]), there.table[3]
    assert np.linalg.norm(up) == pytest.approx(1.0)
    on_table = np.abs(there.surroundings.points_m @ up + d) < 0.005
    assert on_table.mean() > 0.3


def test_up_is_known_from_the_frame_of_positions(frame):
    plane = np.array(surroundings_of(frame, None).table[:3])
    # A frame in which z is against gravity, as the table knows it: the shortest turn from there to z.
    axis, cos = np.cross(plane, (0.0, 0.0, 1.0)), plane[2]
    angle = math.acos(cos)
    x, y, z = axis / np.linalg.norm(axis) * math.sin(angle / 2)
    table = surroundings_of(frame, Motion("map", (x, y, z, math.cos(angle / 2)), (0.0, 0.0, 0.0))).table
    assert table[:3] == pytest.approx((0.0, 0.0, 1.0), abs=0.01)


def test_without_depth_there_is_no_space(frame):
    assert surroundings_of(replace(frame, depth_m=None), None) is None
    assert surroundings_of(replace(frame, intrinsics=None), None) is None


def test_a_wall_is_no_table(frame):
    wall = replace(frame, depth_m=np.full(frame.depth_m.shape, 2.0, np.float32))
    around = surroundings_of(wall, None)
    assert around.table is None
    assert len(around.surroundings.points_m) > 1000
