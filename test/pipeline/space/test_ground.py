# SPDX-License-Identifier: Apache-2.0
"""The plane of a table in depth that is noisy, has holes, and shows other things, too."""

from __future__ import annotations

import numpy as np
import pytest

from clip_seg_ros.pipeline.space.ground import fit_ground
from clip_seg_ros.pipeline.space.rays import ray_table
from clip_seg_ros.types import CameraFrame, CameraIntrinsics

LENS = CameraIntrinsics(500.0, 500.0, 319.5, 239.5, 640, 480)
RGB = np.zeros((480, 640, 3), np.uint8)


def seen(up: np.ndarray, camera_m: float) -> CameraFrame:
    """A table below the camera, half of it hidden behind something, with noise and holes."""
    rng = np.random.default_rng(0)
    rays = np.dstack([ray_table(LENS), np.ones((480, 640))])
    with np.errstate(divide="ignore"):
        depth_m = -camera_m / (rays @ up)
    depth_m[(depth_m < 0) | (depth_m > 5)] = np.nan
    depth_m[100:400, :250] = 0.5
    depth_m *= 1 + 0.002 * rng.standard_normal(depth_m.shape)
    depth_m[rng.random(depth_m.shape) < 0.1] = np.nan
    return CameraFrame(RGB, 0, "camera", depth_m.astype(np.float32), LENS)


@pytest.mark.parametrize("degrees", [30, 50, 70])
def test_the_plane_is_found_to_a_degree_and_a_centimetre(degrees: float) -> None:
    up = np.array([0.0, -np.cos(np.radians(degrees)), -np.sin(np.radians(degrees))])

    plane = fit_ground(seen(up, 0.6))

    assert plane is not None
    assert np.degrees(np.arccos(min(1.0, plane.up @ up))) < 1
    assert plane.camera_m == pytest.approx(0.6, abs=0.01)
    assert plane.heights(np.array([-0.6 * up + 0.1 * up])) == pytest.approx([0.1], abs=0.01)


def test_a_known_direction_of_gravity_rules_other_planes_out() -> None:
    up = np.array([0.0, -1.0, -1.0]) / np.sqrt(2)
    assert fit_ground(seen(up, 0.6), (0.0, -1.0, 0.0)) is None
    known = fit_ground(seen(up, 0.6), (float(up[0]), float(up[1]), float(up[2])))
    assert known is not None
    assert known.camera_m == pytest.approx(0.6, abs=0.01)


def test_without_depth_or_with_a_wall_alone_there_is_no_ground() -> None:
    assert fit_ground(CameraFrame(RGB, 0, "camera")) is None
    wall = np.full((480, 640), 1.0, np.float32)
    assert fit_ground(CameraFrame(RGB, 0, "camera", wall, LENS)) is None
    assert fit_ground(CameraFrame(RGB, 0, "camera", np.full_like(wall, np.nan), LENS)) is None
