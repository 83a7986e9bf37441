# SPDX-License-Identifier: Apache-2.0
"""Sequences: what moves and what does not, the sensor's noise, and positions against a loop."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from clip_seg_ros.sim import sequences
from clip_seg_ros.sim.renderer import RenderedView, camera_to_world
from clip_seg_ros.sim.scene import shape_set
from clip_seg_ros.sim.sequences import noisy_depth, noisy_rgb, scenes, sequence, visible_positions
from clip_seg_ros.types import CameraIntrinsics

SEEDS = (0, 3, 31, 10_007)


def moved_parts(before, after):
    """(whether the camera moved, indices of the objects that did)."""
    pairs = enumerate(zip(before.objects, after.objects, strict=True))
    return before.camera != after.camera, {index for index, (old, new) in pairs if old != new}


@pytest.mark.parametrize("seed", SEEDS)
def test_every_kind_of_motion_occurs_and_lasts(seed):
    path = list(scenes(seed, 120))
    assert len(path) == 120
    kinds = [(camera, bool(things)) for camera, things in itertools.starmap(moved_parts, itertools.pairwise(path))]
    assert set(kinds) == {(False, False), (False, True), (True, False), (True, True)}
    runs = [len(list(group)) for _, group in itertools.groupby(kinds)]
    assert min(runs[:-1]) >= sequences.STRETCH_FRAMES[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_objects_slide_on_the_table_and_not_into_each_other(seed):
    path = list(scenes(seed, 120))
    for scene in path:
        for old, new in zip(path[0].objects, scene.objects, strict=True):
            assert (old.kind, old.color, old.position[2], old.yaw) == (new.kind, new.color, new.position[2], new.yaw)
        standing = [item for item in scene.objects if not item.lying]
        for a, b in itertools.combinations(standing, 2):
            reach = sum(shape_set(scene.shape_seed)[item.kind][item.slot].footprint_radius for item in (a, b))
            assert np.hypot(*np.subtract(a.position, b.position)[:2]) > reach
        assert all(np.hypot(*item.position[:2]) < 0.45 for item in scene.objects)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_camera_moves_smoothly_and_keeps_looking_at_the_table(seed):
    poses = [camera_to_world(scene.camera) for scene in scenes(seed, 120)]
    steps = np.diff([pose[:3, 3] for pose in poses], axis=0)
    assert np.linalg.norm(steps, axis=1).max() < 0.06
    assert np.linalg.norm(np.diff(steps, axis=0), axis=1).max() < 0.025, "no jerk"
    for pose in poses:
        middle = np.linalg.inv(pose) @ [0.0, 0.0, 0.0, 1.0]
        assert middle[2] > 0.5
        assert np.abs(middle[:2] / middle[2]).max() < 0.15


def test_a_seed_gives_one_sequence_and_a_shorter_one_is_its_beginning():
    assert list(scenes(3, 40)) == list(scenes(3, 60))[:40]
    assert list(scenes(3, 40)) != list(scenes(4, 40))


@pytest.fixture(scope="module")
def frames():
    return list(sequence(3, frames=15, size=(96, 72), rate_hz=5.0))


def test_frames_say_what_moved(frames):
    path = list(scenes(3, 15))
    assert len(frames) == 15
    assert frames[0].still
    assert [frame.stamp_ns for frame in frames] == [index * 200_000_000 for index in range(15)]
    for (before, after), frame in zip(itertools.pairwise(path), frames[1:], strict=True):
        camera, things = moved_parts(before, after)
        assert (frame.camera_moved, frame.moved) == (camera, {index + 1 for index in things})
        assert frame.still == (not camera and not things)
        assert frame.view.objects == after.objects
    assert 2 < sum(frame.still for frame in frames) < 15


def test_still_pictures_differ_by_noise_alone(frames):
    still = [index for index in range(1, 15) if frames[index].still]
    for index in still:
        before, after = frames[index - 1].view, frames[index].view
        assert (before.labels == after.labels).all()
        difference = after.rgb.astype(float) - before.rgb
        assert difference.std() == pytest.approx(sequences.RGB_SIGMA * np.sqrt(2), rel=0.1)
        assert np.isnan(after.depth_m).any()
        assert not np.array_equal(before.depth_m, after.depth_m, equal_nan=True)


def test_true_positions_have_no_noise_and_follow_what_moves(frames):
    for before, after in itertools.pairwise(frames):
        if after.still:
            assert before.positions_m == after.positions_m
        elif after.camera_moved:
            assert before.positions_m != after.positions_m
    for label, position in frames[0].positions_m.items():
        near = np.linalg.inv(frames[0].view.camera_to_world) @ [*frames[0].view.objects[label - 1].position, 1.0]
        assert np.linalg.norm(near[:3] - position) < 0.2


def looped_position(view, label):
    points, lens = [], view.intrinsics
    for row, column in zip(*np.nonzero(view.labels == label), strict=True):
        z = float(view.depth_m[row, column])
        if np.isfinite(z):
            points.append(((column - lens.cx) * z / lens.fx, (row - lens.cy) * z / lens.fy, z))
    ordered = [sorted(point[axis] for point in points) for axis in range(3)]
    return tuple((values[(len(points) - 1) // 2] + values[len(points) // 2]) / 2 for values in ordered)


def test_positions_equal_a_loop_over_pixels():
    rng = np.random.default_rng(0)
    depth_m = rng.uniform(0.5, 1.0, (30, 40)).astype(np.float32)
    depth_m[rng.random((30, 40)) < 0.1] = np.nan
    labels = np.kron(rng.integers(0, 3, (6, 8)), np.ones((5, 5))).astype(np.uint8)
    objects = next(scenes(3, 1)).objects[:3]
    lens = CameraIntrinsics(45.0, 44.0, 19.5, 14.5, 40, 30)
    view = RenderedView(np.zeros((30, 40, 3), np.uint8), depth_m, labels, objects, lens, np.eye(4))
    positions = visible_positions(view)
    assert set(positions) == {1, 2}, "the third is hidden"
    for label, position in positions.items():
        assert position == pytest.approx(looped_position(view, label))


def test_colour_noise_has_the_deviation_asked_for():
    rng = np.random.default_rng(0)
    grey = np.full((100, 120, 3), 128, np.uint8)
    for sigma in (2.0, 6.0):
        noise = noisy_rgb(grey, rng, sigma).astype(float) - 128
        # Rounding adds the variance 1/12.
        assert noise.std() == pytest.approx(np.sqrt(sigma**2 + 1 / 12), rel=0.03)
        assert abs(noise.mean()) < 0.1
    assert noisy_rgb(grey, rng, 0.0) is grey
    assert noisy_rgb(np.full((9, 9, 3), 255, np.uint8), rng, 9.0).max() == 255


def test_depth_noise_grows_with_the_square_of_the_distance():
    rng = np.random.default_rng(0)
    for z in (0.5, 1.0, 2.0):
        measured = noisy_depth(np.full((120, 160), z, np.float32), rng)
        assert measured.dtype == np.float32
        assert np.nanstd(measured) == pytest.approx(sequences.DEPTH_SIGMA_PER_M2 * z**2, rel=0.03)
        assert np.nanmean(measured) == pytest.approx(z, abs=1e-3)


def test_depth_has_holes_at_rims_and_in_blobs():
    rng = np.random.default_rng(1)
    step = np.full((240, 320), 0.6, np.float32)
    step[:, 160:] = 0.9
    holes = np.mean([np.isnan(noisy_depth(step, rng)) for _ in range(20)], axis=0)
    assert holes[:, 159:161].mean() == pytest.approx(sequences.RIM_HOLE_SHARE, abs=0.05)
    elsewhere = np.delete(holes, [159, 160], axis=1)
    assert 0.001 < elsewhere.mean() < 0.02
    nothing = np.full((240, 320), np.nan, np.float32)
    assert np.isnan(noisy_depth(nothing, rng)).all()


@pytest.mark.parametrize("arguments", [{"frames": 0}, {"rate_hz": 0.0}, {"rgb_sigma": -1.0}])
def test_wrong_arguments_are_refused_at_once(arguments):
    with pytest.raises(ValueError, match="a sequence needs"):
        sequence(3, **arguments)
