# SPDX-License-Identifier: Apache-2.0
"""A camera that looks straight down on the table, with the true masks: places follow from where gravity points."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from clip_seg_ros.commands.parser import parse_reference
from clip_seg_ros.pipeline.space.localization import measure
from clip_seg_ros.pipeline.space.relations import Resolution, resolve
from clip_seg_ros.pipeline.space.solids import SpaceFrame
from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.types import CameraFrame, ObjectRegion
from from_above import gravity, seen_from_above, with_a_cup_on_the_box

SEEDS = (1, 2, 3, 4, 5, 7, 8, 9)


@pytest.fixture(scope="module")
def renderer() -> Iterator[SceneRenderer]:
    with SceneRenderer() as renderer:
        yield renderer


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
