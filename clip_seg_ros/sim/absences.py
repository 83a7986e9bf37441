# SPDX-License-Identifier: Apache-2.0
"""Simulated sequences in which the camera looks at the table, away, and back at it from another side.

In two of three sequences, one or two objects are moved or taken away while the camera looks elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import TABLE_REACH, CameraPose, Scene, sample_scene
from clip_seg_ros.sim.sequences import CLEARANCE_M, RGB_SIGMA, noisy_depth, noisy_rgb, radius_of, visible_positions
from clip_seg_ros.types import vector3

Phase = Literal["before", "away", "back"]
LOOKS: dict[Phase, int] = {"before": 4, "away": 2, "back": 4}
"""The number of images of each phase, in their order."""
INTERVAL_NS = 500_000_000
"""The time between two images."""
ARC_DEG = 8.0
"""The angle by which the camera goes around the table from one image to the next."""
OTHER_SIDE_DEG = (60.0, 180.0)
"""The range of the angle about the table between looking away and coming back."""
MOVE_M = (0.08, 0.30)
"""The range of the distance by which an object is moved."""
_OUT_OF_SIGHT = (0.0, 0.0, -6.0)
"""Where objects go that are taken away: below the floor."""


@dataclass(frozen=True)
class AbsenceFrame:
    """One image with its ground truth. Objects keep their labels; one that was taken away has no pixels."""

    view: RenderedView
    """``rgb`` and ``depth_m`` are noisy, ``labels`` are exact."""
    stamp_ns: int
    phase: Phase
    moved: frozenset[int]
    """The labels of the objects that were moved while the camera looked away; empty before that."""
    taken: frozenset[int]
    """The labels of those that were taken away."""
    positions_m: dict[int, tuple[float, float, float]]
    """The true position of each label's visible surface in the world, metres; hidden objects have none."""


def absence(seed: int, size: tuple[int, int] = (640, 480)) -> Iterator[AbsenceFrame]:
    """Renders the sequence that starts from the scene of ``seed``; the same arguments give the same images.

    Args:
        seed: Seed of the scene, as for ``sample_scene``.
        size: (width, height) of the images in pixels.

    Raises:
        RendererUnavailable: This machine cannot render.
    """
    rng = np.random.default_rng([seed, 11])
    scene = sample_scene(seed)
    after, moved, taken = _rearranged(scene, rng)
    turn = np.radians(rng.uniform(*OTHER_SIDE_DEG)) * rng.choice([-1, 1])
    stamp_ns, nothing = 0, frozenset[int]()
    with SceneRenderer(*size) as renderer:
        for phase, count in LOOKS.items():
            for step in range(count):
                angle = np.radians(ARC_DEG) * (step - (count - 1) / 2)
                camera = _around(scene.camera, turn + angle if phase == "back" else angle)
                if phase == "away":
                    camera = _turned_away(camera)
                view = renderer.render(scene if phase == "before" else after, camera)
                changes = (nothing, nothing) if phase == "before" else (moved, taken)
                yield AbsenceFrame(_noisy(view, rng), stamp_ns, phase, *changes, _in_world(view))
                stamp_ns += INTERVAL_NS


def _noisy(view: RenderedView, rng: np.random.Generator) -> RenderedView:
    return replace(view, rgb=noisy_rgb(view.rgb, rng, RGB_SIGMA), depth_m=noisy_depth(view.depth_m, rng))


def _in_world(view: RenderedView) -> dict[int, tuple[float, float, float]]:
    pose = view.camera_to_world
    return {
        label: vector3(pose[:3, :3] @ np.array(position) + pose[:3, 3])
        for label, position in visible_positions(view).items()
    }


def _around(camera: CameraPose, angle: float) -> CameraPose:
    """Turns a camera by an angle in radians about the vertical through its target."""
    target = np.array(camera.target)
    x, y, z = np.array(camera.eye) - target
    c, s = np.cos(angle), np.sin(angle)
    return replace(camera, eye=vector3(target + np.array([c * x - s * y, s * x + c * y, z])))


def _turned_away(camera: CameraPose) -> CameraPose:
    """Turns a camera on the spot, so that it looks away from the table at the floor."""
    eye, target = np.array(camera.eye), np.array(camera.target)
    out = (eye - target) * (1, 1, 0)
    return replace(camera, target=vector3(eye + out / np.linalg.norm(out) - (0, 0, 0.4)))


def _rearranged(scene: Scene, rng: np.random.Generator) -> tuple[Scene, frozenset[int], frozenset[int]]:
    """Moves or takes away one or two objects, or none; returns the scene and the labels of the moved and the taken."""
    count = int(rng.integers(0, 3))
    items, moved, taken = list(scene.objects), set(), set()
    for index in map(int, rng.permutation(len(items))[:count]):
        spot = None if rng.random() < 0.5 else _free_spot(replace(scene, objects=tuple(items)), index, rng)
        if spot is None:
            items[index] = replace(items[index], position=_OUT_OF_SIGHT)
            taken.add(index + 1)
        else:
            items[index] = replace(items[index], position=(*spot, items[index].position[2]))
            moved.add(index + 1)
    return replace(scene, objects=tuple(items)), frozenset(moved), frozenset(taken)


def _free_spot(scene: Scene, index: int, rng: np.random.Generator) -> tuple[float, float] | None:
    """Finds a place on the table for an object to be moved to, (x, y); ``None`` if there is none."""
    item, radius = scene.objects[index], radius_of(scene, scene.objects[index])
    others = [other for place, other in enumerate(scene.objects) if place != index and other.position[2] >= 0]
    for _ in range(40):
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(*MOVE_M)
        x, y = np.array(item.position[:2]) + length * np.array([np.cos(angle), np.sin(angle)])
        gaps = [
            np.hypot(x - other.position[0], y - other.position[1]) - radius - radius_of(scene, other)
            for other in others
        ]
        if np.hypot(x, y) <= TABLE_REACH and min(gaps, default=1.0) > CLEARANCE_M:
            return float(x), float(y)
    return None
