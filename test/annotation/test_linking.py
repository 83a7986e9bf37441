# SPDX-License-Identifier: Apache-2.0
"""Ids last through the shards of a source."""

from __future__ import annotations

import numpy as np

from clip_seg_ros.annotation.linking import Linker
from clip_seg_ros.annotation.results import AnnotatedFrame, AnnotatedObject
from clip_seg_ros.annotation.shards import WARM_UP
from clip_seg_ros.types import ObjectRegion

SIZE = (60, 200)
PERIOD_NS = 10**8


def thing(prompt, track, x):
    mask = np.zeros(SIZE, bool)
    mask[20:40, x : x + 20] = True
    return AnnotatedObject.of(ObjectRegion.of_mask(prompt, 1, 0.9, mask), track, 0.5, 0.75)


def frame(index, *objects):
    return AnnotatedFrame("table", "", index, index * PERIOD_NS, str(index), "", SIZE, objects)


def linked(linker, frames):
    """Returns the ids in each image by the place of the object."""
    found = []
    for each in frames:
        found.append({one.box_px[0]: one.track for one in linker.linked(each).objects})
    return found


def test_objects_keep_their_ids_where_the_next_shard_counts_otherwise():
    linker = Linker(2.0)
    linker.begin(())
    first = linked(linker, [frame(index, thing("cup", 1, 10 + index), thing("cup", 2, 100)) for index in range(10)])
    assert first[-1] == {19: 1, 100: 2}
    seen = [frame(index, thing("cup", 2, 10 + index), thing("cup", 1, 101)) for index in range(10 - WARM_UP, 10)]
    linker.begin(seen)
    second = linked(linker, [frame(10, thing("cup", 2, 20), thing("cup", 1, 100), thing("cup", 3, 150))])
    assert second == [{20: 1, 100: 2, 150: 3}]


def test_another_phrase_at_the_same_place_is_another_object():
    linker = Linker(2.0)
    linker.begin(())
    linked(linker, [frame(0, thing("cup", 1, 10))])
    linker.begin([frame(0, thing("cup", 1, 10), thing("mug", 2, 10))])
    objects = linker.linked(frame(1, thing("mug", 2, 10), thing("cup", 1, 10))).objects
    assert {each.prompt: each.track for each in objects} == {"mug": 2, "cup": 1}


def test_an_object_that_was_hidden_at_the_border_is_recognised_for_a_while():
    for gap, age_s, wanted in ((5, 2.0, 1), (40, 2.0, 2), (40, 60.0, 1)):
        linker = Linker(age_s)
        linker.begin(())
        linked(linker, [frame(0, thing("cup", 1, 10))])
        linked(linker, [frame(index) for index in range(1, 1 + gap)])
        linker.begin([frame(index) for index in range(gap - 3, 1 + gap)])
        assert linked(linker, [frame(1 + gap, thing("cup", 1, 12))]) == [{12: wanted}]


def test_nothing_is_joined_with_a_shard_that_is_missing():
    linker = Linker(2.0)
    linker.begin(())
    linked(linker, [frame(0, thing("cup", 1, 10))])
    linker.begin(())
    assert linked(linker, [frame(200, thing("cup", 1, 10))]) == [{10: 2}]


def test_near_duplicates_that_only_one_shard_kept_do_not_part_them():
    linker = Linker(2.0)
    linker.begin(())
    linked(linker, [frame(0, thing("cup", 1, 10)), frame(3, thing("cup", 1, 10))])
    linker.begin([frame(6, thing("cup", 4, 11))])
    assert linked(linker, [frame(12, thing("cup", 4, 12))]) == [{12: 1}]


def test_objects_that_are_not_tracked_stay_so():
    linker = Linker(2.0)
    linker.begin(())
    assert linked(linker, [frame(0, thing("cup", 0, 10))]) == [{10: 0}]
