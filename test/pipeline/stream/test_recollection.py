# SPDX-License-Identifier: Apache-2.0
"""What is remembered, moved, forgotten and recalled, of patches before a wall whose places are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clip_seg_ros.pipeline.space.localization import with_position
from clip_seg_ros.pipeline.stream.recollection import Noticed, ObjectMemory
from clip_seg_ros.types import CameraFrame, ObjectRegion
from patches import BLUE, GREEN, RED, Patch, camera_at, picture

CUP, BOX = Patch("cup", (0.1, 0.0, 1.0)), Patch("box", (-0.15, 0.05, 1.1), BLUE)
AHEAD, AWAY = camera_at(0.0), camera_at(5.0)


def see(memory: ObjectMemory, patches, camera=AHEAD, stamp_ns=0, asked=("cup", "box"), found=None) -> Noticed:
    """Shows the memory a picture, in which all patches are found, or those with the names ``found``."""
    frame, regions = picture(patches, camera, stamp_ns)
    regions = [region for region in regions if found is None or region.prompt in found]
    return memory.see(frame, camera, regions, asked)


def places(memory: ObjectMemory, phrase: str) -> list[tuple[float, ...]]:
    return [tuple(np.round(item.position_m, 2).tolist()) for item in memory.recall(phrase)]


def test_an_object_is_remembered_in_the_fixed_frame_with_its_times():
    memory = ObjectMemory()
    first = see(memory, [CUP, BOX], camera_at(0.0), 5)
    again = see(memory, [CUP, BOX], camera_at(0.2, 0.1, -0.3, quarters=1), 9)
    assert first.ids == again.ids == (1, 2)
    assert first.new == {1, 2}
    assert again.new == again.moved == again.forgotten == frozenset()
    [cup] = memory.recall("cup")
    np.testing.assert_allclose(cup.position_m, CUP.center_m, atol=0.005)
    np.testing.assert_allclose(cup.box_m.center_m, CUP.center_m, atol=0.005)
    assert (cup.first_ns, cup.last_ns, cup.sightings) == (5, 9, 2)
    assert len(memory) == 2


def test_what_is_out_of_view_is_kept():
    memory = ObjectMemory()
    see(memory, [CUP])
    away = see(memory, [CUP], AWAY)
    assert away == Noticed((), frozenset(), frozenset(), frozenset())
    assert places(memory, "cup") == [(0.1, 0.0, 1.0)]


def test_what_is_hidden_is_kept():
    memory = ObjectMemory()
    see(memory, [CUP])
    see(memory, [CUP, Patch("box", (0.05, 0.0, 0.5), BLUE, 0.2)])
    assert places(memory, "cup") == [(0.1, 0.0, 1.0)]
    assert memory.recall("cup")[0].missed == 0


def test_what_is_gone_is_forgotten_at_once():
    memory = ObjectMemory()
    see(memory, [CUP, BOX])
    gone = see(memory, [BOX], camera_at(0.1))
    assert gone.forgotten == {1}
    assert [item.phrase for item in memory.what_was_seen()] == ["box"]


@pytest.mark.parametrize("asked", [("box",), ("red cup",), ()])
def test_what_was_not_asked_for_is_kept(asked):
    memory = ObjectMemory()
    see(memory, [CUP])
    see(memory, [], asked=asked)
    assert places(memory, "cup") == [(0.1, 0.0, 1.0)]


def test_an_empty_place_without_depth_is_not_seen_to_be_empty():
    memory = ObjectMemory()
    see(memory, [CUP])
    frame, _ = picture([], AHEAD)
    memory.see(replace(frame, depth_m=None), AHEAD, [], ["cup"])
    memory.see(replace(frame, depth_m=np.full_like(frame.depth_m, np.nan)), AHEAD, [], ["cup"])
    assert len(memory) == 1


def test_a_moved_object_keeps_its_id_and_gets_its_new_place():
    memory = ObjectMemory()
    see(memory, [CUP, BOX])
    see(memory, [CUP, BOX], AWAY)
    moved = see(memory, [replace(CUP, center_m=(-0.1, -0.2, 1.2)), BOX])
    assert moved == Noticed((1, 2), frozenset(), frozenset({1}), frozenset())
    assert places(memory, "cup") == [(-0.1, -0.2, 1.2)]


def test_a_second_object_of_the_name_is_not_the_first_one_moved():
    memory = ObjectMemory()
    see(memory, [CUP])
    two = see(memory, [CUP, Patch("cup", (-0.1, 0.0, 1.0))])
    assert two.ids == (1, 2)
    assert len(memory.recall("cup")) == 2


def test_an_object_of_other_colours_is_not_the_one_that_is_gone():
    memory = ObjectMemory()
    see(memory, [CUP])
    other = see(memory, [Patch("cup", (-0.1, 0.0, 1.0), GREEN)])
    assert (other.ids, other.moved, other.forgotten) == ((2,), frozenset(), frozenset({1}))


def test_two_moved_objects_are_told_apart_by_their_colours():
    memory = ObjectMemory()
    see(memory, [CUP, replace(CUP, center_m=(-0.1, 0.0, 1.0), color=BLUE)])
    swapped = [Patch("cup", (-0.1, 0.25, 1.0), BLUE), Patch("cup", (0.1, -0.25, 1.0), RED)]
    assert see(memory, swapped).ids == (2, 1)


def test_neighbours_of_one_name_are_assigned_one_to_one():
    memory = ObjectMemory()
    row = [Patch("cup", (x, 0.0, 1.0)) for x in (-0.11, 0.0, 0.11)]
    assert see(memory, row).ids == (1, 2, 3)
    assert see(memory, row[::-1], camera_at(0.03)).ids == (3, 2, 1)
    assert len(memory) == 3


def test_one_object_under_two_names_is_one_with_the_longer_name():
    memory = ObjectMemory()
    frame, [region] = picture([CUP], AHEAD)
    both = [region, replace(region, id=2, prompt="red cup", score=0.7)]
    assert memory.see(frame, AHEAD, both, ["cup", "red cup"]).ids == (1, 1)
    memory.see(frame, AHEAD, [region], ["cup"])
    assert [item.phrase for item in memory.recall("cups")] == ["red cup"]
    assert memory.recall("red cup")[0].sightings == 2


def test_a_wrong_name_for_a_part_of_another_object_is_not_believed():
    memory = ObjectMemory()
    frame, [region] = picture([CUP], AHEAD)
    seen = memory.see(frame, AHEAD, [region, replace(region, id=2, prompt="box", score=0.6)], ["cup", "box"])
    assert seen.ids == (1, None)


def test_only_what_was_asked_as_such_is_recalled():
    memory = ObjectMemory()
    see(memory, [CUP])
    assert memory.recall("red cup") == []
    assert memory.recall("box") == []
    assert len(memory.recall("the cups")) == 1


def test_what_is_missed_in_plain_view_is_doubted_until_it_is_seen_again():
    memory = ObjectMemory()
    see(memory, [CUP])
    see(memory, [CUP], found=())
    assert memory.recall("cup") == []
    assert len(memory.recall("cup", doubtful=True)) == len(memory) == 1
    for _ in range(2):
        see(memory, [CUP])
    assert len(memory.recall("cup")) == 1


def test_the_best_score_is_recalled_first():
    memory = ObjectMemory()
    frame, regions = picture([CUP, replace(CUP, center_m=(-0.1, 0.0, 1.0))], AHEAD)
    memory.see(frame, AHEAD, [replace(regions[0], score=0.5), regions[1]], ["cup"])
    assert [item.id for item in memory.recall("cup")] == [1, 2]
    assert [item.score for item in memory.recall("cup")] == [0.9, 0.5]


def test_the_least_recently_seen_make_room():
    memory = ObjectMemory(max_objects=2)
    see(memory, [CUP, BOX])
    see(memory, [CUP], camera_at(0.25), asked=("cup",))
    full = see(memory, [Patch("ball", (5.0, 0.0, 1.0), GREEN)], AWAY)
    assert full.forgotten == {2}
    assert [item.phrase for item in memory.what_was_seen()] == ["ball", "cup"]


def test_a_clock_that_is_set_back_forgets_nothing():
    memory = ObjectMemory()
    see(memory, [CUP, BOX], stamp_ns=100)
    see(memory, [CUP, BOX], AWAY, stamp_ns=20)
    see(memory, [CUP], stamp_ns=10, asked=("cup",))
    [cup] = memory.recall("cup")
    assert (cup.first_ns, cup.last_ns) == (10, 10)
    assert memory.recall("box")[0].age_s(10) == 0.0
    assert [item.phrase for item in memory.what_was_seen()] == ["cup", "box"]


def test_a_part_of_a_known_object_in_plain_view_does_not_move_it():
    memory = ObjectMemory()
    see(memory, [CUP])
    frame, [region] = picture([CUP], AHEAD, 7)
    mask = region.mask.copy()
    mask[:, : region.box_px[0] + 15] = False
    part = with_position(ObjectRegion.of_mask("cup", 1, 0.6, mask), frame)
    assert part.position_m[0] > CUP.center_m[0] + 0.03
    assert memory.see(frame, AHEAD, [part], ["cup"]).ids == (1,)
    [cup] = memory.recall("cup")
    np.testing.assert_allclose(cup.position_m, CUP.center_m, atol=0.006)
    assert (cup.last_ns, cup.sightings) == (7, 2)


def test_regions_without_a_position_are_left_out():
    memory = ObjectMemory()
    frame, regions = picture([CUP], AHEAD)
    blind = replace(regions[0], position_m=None, box_m=None)
    assert memory.see(frame, AHEAD, [blind], ["cup"]).ids == (None,)
    assert len(memory) == 0


def test_features_and_the_larger_view_are_kept():
    memory = ObjectMemory()
    for camera, given in ((camera_at(0, 0, 0.5), {1: np.array([1.0, 2.0])}), (AHEAD, {})):
        frame, regions = picture([CUP], camera)
        memory.see(frame, camera, regions, ["cup"], given)
    [cup] = memory.recall("cup")
    assert cup.features.tolist() == [1.0, 2.0]
    rgb, mask = cup.view.rgb(), cup.view.mask()
    assert rgb.shape[:2] == mask.shape
    assert mask.sum() > 1500, "from half a metre the patch has 40 x 40 pixels"
    assert np.abs(rgb[mask].mean(axis=0) - RED).max() < 15


def test_forgotten_ids_are_not_used_again():
    memory = ObjectMemory()
    see(memory, [CUP])
    assert memory.forget(1)
    assert not memory.forget(1)
    assert see(memory, [CUP]).ids == (2,)
    memory.clear()
    assert see(memory, [CUP]).ids == (3,)


def test_wrong_arguments_are_refused():
    memory = ObjectMemory()
    frame, regions = picture([CUP], AHEAD)
    with pytest.raises(ValueError, match="transform"):
        memory.see(frame, 2 * np.eye(4), regions, ["cup"])
    with pytest.raises(ValueError, match="image of"):
        memory.see(CameraFrame(frame.rgb[:80], 0, ""), AHEAD, regions, ["cup"])
    with pytest.raises(ValueError, match="max_objects"):
        ObjectMemory(0)
