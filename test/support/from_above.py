# SPDX-License-Identifier: Apache-2.0
"""A table on which a camera looks straight down, and on which a cup stands on a box."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import CameraPose, Scene, sample_scene, shape_set

ABOVE_M, ASIDE_M = 0.75, 0.02
TILT = float(np.arctan2(ASIDE_M, ABOVE_M))
"""The angle between the view and the vertical, radians."""


def with_a_cup_on_the_box(seed: int) -> tuple[Scene, int]:
    """A table with two cups or more, and the index of one that was put onto the box."""
    scene = sample_scene(seed, required=[(None, "cup"), (None, "cup"), (None, "box")], objects=(3, 3))
    kinds = [item.kind for item in scene.objects]
    cup, box = kinds.index("cup"), scene.objects[kinds.index("box")]
    x, y, z = box.position
    top = z + shape_set(scene.shape_seed)["box"][box.slot].height
    objects = list(scene.objects)
    objects[cup] = replace(objects[cup], position=(x, y, top))
    return replace(scene, objects=tuple(objects)), cup


def seen_from_above(renderer: SceneRenderer, scene: Scene) -> RenderedView:
    x, y, z = scene.camera.target
    return renderer.render(scene, CameraPose((x, y - ASIDE_M, z + ABOVE_M), (x, y, z), 55.0))


def gravity() -> tuple[float, float, float]:
    """Up in the optical frame of the camera above, whose image's lower edge is nearer to its own side."""
    return 0.0, -float(np.sin(TILT)), -float(np.cos(TILT))
