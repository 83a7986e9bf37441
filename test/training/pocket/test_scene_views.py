# SPDX-License-Identifier: Apache-2.0
import numpy as np

from clip_seg_ros.training.pocket import scene_views


def test_light_is_brighter_towards_one_side_and_the_same_in_all_of_a_line():
    factors = scene_views._light(np.random.default_rng(0), 50, 20, 30)
    assert factors.shape == (50, 20, 30, 3)
    assert factors.dtype == np.float32
    assert factors.min() > 0
    steps = [np.diff(factors, axis=axis) for axis in (1, 2)]
    for step in steps:
        assert np.ptp(step, axis=(1, 2)).max() < 1e-4, "a plane"
    middles = factors.mean(axis=(1, 2))
    assert 0.5 * 0.88 <= middles.min() < 0.6
    assert 1.15 < middles.max() <= 1.3 * 1.12


def test_other_textures_change_the_shade_of_the_bare_table_and_nothing_else():
    rgb = np.random.default_rng(0).integers(60, 200, (40, 60, 3)).astype(np.uint8)
    bare = np.zeros((40, 60), bool)
    bare[20:] = True
    for seed in range(12):
        changed = scene_views.retextured(rgb, bare, np.random.default_rng(seed))
        assert (changed[:20] == rgb[:20]).all()
        assert (changed[20:] != rgb[20:]).any()
        assert changed.dtype == np.uint8
        shade = changed[20:].mean(axis=(0, 1)) / rgb[20:].mean(axis=(0, 1))
        assert shade.min() > 0.35, "the hue stays"
        assert shade.max() < 1.25, "the hue stays"
        assert np.ptp(shade) < 0.05, "the hue stays"


def test_windows_are_stretched_both_ways_within_the_scene():
    labels = np.zeros((240, 320), np.uint8)
    labels[100:140, 150:200] = 1
    ratios = []
    for seed in range(200):
        rows, columns = scene_views.zoom(labels, np.random.default_rng(seed), 160, 160).part
        assert 0 <= rows.start < rows.stop <= 240
        assert 0 <= columns.start < columns.stop <= 320
        ratios.append((rows.stop - rows.start) / (columns.stop - columns.start))
    low, high = np.exp(-scene_views._STRETCH), np.exp(scene_views._STRETCH)
    assert low * 0.98 < min(ratios) < 0.9
    assert 1.1 < max(ratios) < high * 1.02
