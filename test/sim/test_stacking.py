# SPDX-License-Identifier: Apache-2.0
"""Scenes in which things stand on others."""

from __future__ import annotations

from clip_seg_ros.sim.scene import sample_scene, shape_set
from clip_seg_ros.sim.stacking import SUPPORTS, stacked_scene


def test_what_is_stacked_stands_above_a_larger_support_and_all_else_stays() -> None:
    stacked = 0
    for seed in range(10_000, 10_030):
        scene = sample_scene(seed)
        moved, on = stacked_scene(scene)
        stacked += len(on)
        for index, (old, new) in enumerate(zip(scene.objects, moved.objects, strict=True)):
            if index not in on:
                assert old == new
                continue
            base = scene.objects[on[index]]
            assert base.kind in SUPPORTS
            assert new.position[:2] == base.position[:2]
            assert 0 < new.position[2] <= shape_set(scene.shape_seed)[base.kind][base.slot].height
        assert stacked_scene(scene) == (moved, on)
    assert stacked > 15
