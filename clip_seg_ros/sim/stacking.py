# SPDX-License-Identifier: Apache-2.0
"""Scenes in which things stand on books, boxes and plates, or lie in bowls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from clip_seg_ros.sim.scene import Scene, SceneObject, shape_set

SUPPORTS = ("book", "box", "plate", "bowl")
_WELL_M = {"plate": 0.006, "bowl": 0.012}
"""The height of the floor of a vessel, metres."""
_ROOM = {"book": 0.5, "box": 0.62, "plate": 0.62, "bowl": 0.55}
"""The radius of the room on a support, as a share of the radius of the cylinder around it."""
MOST_STACKED = 2


def stacked_scene(scene: Scene) -> tuple[Scene, dict[int, int]]:
    """Moves some objects of a scene onto others that are large enough; the same scene gives the same result.

    Returns:
        The scene, and the index of the support of each object that was moved, by its index; empty if nothing fits.
    """
    rng = np.random.default_rng([scene.seed, 14])
    objects, on = list(scene.objects), dict[int, int]()
    for lower in map(int, rng.permutation(len(objects))):
        base = objects[lower]
        if base.kind not in SUPPORTS or base.lying or lower in on or len(on) == MOST_STACKED:
            continue
        room = _ROOM[base.kind] * _radius(scene, base)
        for upper in map(int, rng.permutation(len(objects))):
            item = objects[upper]
            taken = upper in (lower, *on, *on.values()) or item.kind in SUPPORTS or item.lying
            if taken or _radius(scene, item) > room:
                continue
            x, y, z = base.position
            top = _WELL_M.get(base.kind, shape_set(scene.shape_seed)[base.kind][base.slot].height)
            objects[upper] = replace(item, position=(x, y, z + top))
            on[upper] = lower
            break
    return replace(scene, objects=tuple(objects)), on


def _radius(scene: Scene, item: SceneObject) -> float:
    return shape_set(scene.shape_seed)[item.kind][item.slot].footprint_radius
