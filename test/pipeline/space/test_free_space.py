# SPDX-License-Identifier: Apache-2.0
import numpy as np

from clip_seg_ros.pipeline.space.free_space import look_for
from clip_seg_ros.types import CameraIntrinsics

LENS = CameraIntrinsics(100.0, 100.0, 49.5, 39.5, 100, 80)


def depth_of(metres):
    return np.full((80, 100), metres, np.float32)


def test_a_point_is_there_free_or_hidden():
    point = np.array([[0.0, 0.0, 1.0]])
    for depth_m, free, there in ((1.0, False, True), (1.1, True, False), (0.9, False, False), (np.nan, False, False)):
        seen = look_for(point, depth_of(depth_m), LENS)
        assert seen.inside[0]
        assert seen.free[0] == free
        assert seen.there[0] == there


def test_points_outside_and_behind_the_camera_say_nothing():
    seen = look_for(np.array([[2.0, 0, 1], [0, 0, -1], [0, 0, 0]]), depth_of(5.0), LENS)
    assert not seen.inside.any()
    assert not seen.free.any()


def test_the_pixel_of_a_point_is_where_it_is_seen():
    seen = look_for(np.array([[0.105, -0.205, 1.0]]), depth_of(1.0), LENS)
    assert seen.pixels.tolist() == [[19, 60]]


def test_a_lens_with_distortion_moves_points():
    bent = CameraIntrinsics(100.0, 100.0, 49.5, 39.5, 100, 80, (-0.3, 0.0, 0.0, 0.0))
    plain, moved = (look_for(np.array([[0.4, 0.0, 1.0]]), depth_of(1.0), lens).pixels[0] for lens in (LENS, bent))
    assert moved[1] < plain[1]


def test_shares_are_of_all_points_and_zero_without_any():
    seen = look_for(np.array([[0.0, 0, 1], [2, 0, 1]]), depth_of(2.0), LENS)
    assert seen.share(seen.free) == 0.5
    nothing = look_for(np.empty((0, 3)), depth_of(2.0), LENS)
    assert nothing.share(nothing.free) == 0.0
