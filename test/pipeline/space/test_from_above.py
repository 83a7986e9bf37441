# SPDX-License-Identifier: Apache-2.0
"""A camera that looks straight down on the table, with the true masks: places follow from where gravity points."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from clip_seg_ros.commands.parser import parse_reference
from clip_seg_ros.pipeline.space.localization import measure
from clip_seg_ros.pipeline.space.relations import Resolution, resolve
from clip_seg_ros.pipeline.space.solids import SpaceFrame
from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import CameraPose, Scene, sample_scene, shape_set
from clip_seg_ros.types import CameraFrame, ObjectRegion

ABOVE_M, ASIDE_M = 0.75, 0.02
SEEDS = (1, 2, 3, 4, 5, 7, 8, 9)


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


@pytest.fixture(scope="module")
def renderer() -> Iterator[SceneRenderer]:
    with SceneRenderer() as renderer:
        yield renderer


def seen_from_above(renderer: SceneRenderer, scene: Scene) -> RenderedView:
    x, y, z = scene.camera.target
    return renderer.render(scene, CameraPose((x, y - ASIDE_M, z + ABOVE_M), (x, y, z), 55.0))


def told(view: RenderedView, phrase: str, up: tuple[float, float, float] | None) -> Resolution:
    """What a phrase means; the regions' ids are the indices of the objects plus 1."""
    frame = CameraFrame(view.rgb, 0, "", view.depth_m, view.intrinsics)
    reference = parse_reference(phrase)
    masks = {number: view.labels == number for number in range(1, len(view.objects) + 1)}
    measured = [
        measure(ObjectRegion.of_mask(view.objects[number - 1].kind, number, 0.9, mask), frame)
        for number, mask in masks.items()
        if view.objects[number - 1].kind in reference.names() and mask.sum() > 200
    ]
    named = {name: [m.region for m in measured if m.region.prompt == name] for name in reference.names()}
    return resolve(reference, named, SpaceFrame.of(frame, measured, up))


def gravity() -> tuple[float, float, float]:
    """Up in the optical frame of the camera above, whose image's lower edge is nearer to its own side."""
    length = float(np.hypot(ABOVE_M, ASIDE_M))
    return 0.0, -ASIDE_M / length, -ABOVE_M / length


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("relation", ["on", "above"])
def test_the_cup_on_the_box_is_found_where_gravity_is_known(renderer, seed, relation) -> None:
    scene, cup = with_a_cup_on_the_box(seed)
    answer = told(seen_from_above(renderer, scene), f"the cup {relation} the box", gravity())
    assert answer.state == "found", answer.sentence
    assert [region.id for region in answer.regions] == [cup + 1]


def test_without_gravity_nothing_is_on_anything(renderer) -> None:
    scene, _ = with_a_cup_on_the_box(4)
    assert told(seen_from_above(renderer, scene), "the cup on the box", None).state == "not found"


@pytest.mark.parametrize("seed", SEEDS)
def test_left_is_left_in_the_image_and_in_front_is_below(renderer, seed) -> None:
    scene, cup = with_a_cup_on_the_box(seed)
    view = seen_from_above(renderer, scene)
    box = [item.kind for item in view.objects].index("box") + 1
    for relation, axis, sign in (("left of", 1, -1), ("right of", 1, 1), ("in front of", 0, 1), ("behind", 0, -1)):
        answer = told(view, f"the cups {relation} the box", gravity())
        middle = np.nonzero(view.labels == box)[axis].mean()
        for region in answer.regions:
            if region.id != cup + 1:
                assert sign * (region.centroid_px[1 - axis] - middle) > 0, relation
