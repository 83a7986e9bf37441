# SPDX-License-Identifier: Apache-2.0
"""Shards hold each image once, and lead to what they need."""

from __future__ import annotations

import numpy as np
import pytest

from clip_seg_ros.annotation.job import Job, Phrase, Selection, Source
from clip_seg_ros.annotation.shards import WARM_UP, Survey, selected, shards_of, stretch_of, track_age_s

PERIOD_NS = 10**8


def job(shard_frames=10, every=1, topic=None):
    source = Source("table", "table.mcap", topic)
    return Job("out", (source,), (Phrase("cup"),), selection=Selection(every), shard_frames=shard_frames)


def recorded(count):
    return Survey("recorded", 10**18 + np.arange(count) * PERIOD_NS, ())


@pytest.mark.parametrize(("count", "every"), [(1, 1), (10, 1), (11, 1), (95, 3)])
def test_each_image_is_in_one_shard(count, every):
    asked = job(every=every)
    shards = list(shards_of(asked, 0, recorded(count)))
    assert [number for each in shards for number in range(each.begin, each.end)] == list(range(count))
    assert [each.number for each in shards] == list(range(len(shards)))
    counts = [selected(asked, each.begin, each.end) for each in shards]
    assert counts[:-1] == [10] * (len(counts) - 1)
    assert sum(counts) == len(range(0, count, every))


def test_a_shard_reads_some_images_before_and_all_that_belongs_to_them():
    asked, surveyed = job(), recorded(95)
    for shard in shards_of(asked, 0, surveyed):
        stretch = stretch_of(asked, shard)
        assert (stretch.begin, stretch.end) == (max(0, shard.begin - WARM_UP), shard.end)
        assert stretch.from_number <= stretch.begin
        if stretch.from_ns is not None:
            assert stretch.from_ns == surveyed.places[stretch.from_number]
            assert surveyed.places[stretch.begin] - stretch.from_ns >= 9 * PERIOD_NS
    assert stretch.from_number > 70, "the last one does not read what lies long before"


def test_where_times_fall_reading_begins_at_the_beginning():
    surveyed = recorded(95)
    surveyed.places[40] -= 10**12
    assert {(each.from_number, each.from_ns) for each in shards_of(job(), 0, surveyed)} == {(0, None)}


def test_where_two_images_of_a_video_have_one_time_reading_begins_at_the_beginning():
    surveyed = recorded(95)
    surveyed.places[40] = surveyed.places[39]
    assert {each.from_ns for each in shards_of(job(), 0, surveyed)} == {None}
    assert len({each.from_ns for each in shards_of(job(topic="/camera"), 0, surveyed)}) > 2


@pytest.mark.parametrize(("period_s", "wanted_s"), [(0.1, 2.0), (4.0, 10.0), (100.0, 60.0)])
def test_a_slow_source_is_remembered_longer(period_s, wanted_s):
    assert track_age_s(job(), Survey("recorded", np.arange(9) * round(period_s * 1e9), ())) == wanted_s
    assert track_age_s(job(), Survey("still", np.arange(9), ())) == 2.0
