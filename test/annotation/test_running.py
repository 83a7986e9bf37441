# SPDX-License-Identifier: Apache-2.0
"""Where a run may be written, and what its manifest keeps, without a model."""

from __future__ import annotations

import pytest

from clip_seg_ros.annotation.job import Job, Phrase, Source
from clip_seg_ros.annotation.results import AnnotatedFrame, located_frames
from clip_seg_ros.annotation.running import counted, looked_at, require_free, require_outside
from clip_seg_ros.annotation.shards import shards_of
from clip_seg_ros.annotation.storage import open_storage
from clip_seg_ros.data.samples import DataError


@pytest.mark.parametrize(
    ("out", "spec", "is_refused"),
    [
        ("{}/photos/set", "{}/photos", True),
        ("{}/photos", "{}/photos", True),
        ("{}/photos/set", "{}/photos/**/*.jpg", True),
        ("{}/photos/set", "{}/photos/*.jpg", False),
        ("{}/photos_set", "{}/photos", False),
        ("s3://bucket/photos/set", "s3://bucket/photos", True),
        ("s3://bucket/photos_set", "s3://bucket/photos", False),
        ("s3://bucket/set", "{}/photos", False),
    ],
)
def test_a_run_is_not_written_into_its_source(tmp_path, out, spec, is_refused):
    (tmp_path / "photos").mkdir()
    out, source = out.format(tmp_path), Source("photos", spec.format(tmp_path))
    if not is_refused:
        require_outside(out, [source])
        return
    with pytest.raises(ValueError, match="so that the next run would read it: name a folder beside it"):
        require_outside(out, [source])


def test_a_folder_with_what_a_stopped_run_left_is_free(tmp_path):
    (tmp_path / ".run.json.00ff.partial").write_bytes(b"{")
    require_free(open_storage(str(tmp_path)))
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        require_free(open_storage(str(tmp_path)))


def test_a_source_that_cannot_be_read_has_a_fault_and_no_shards(tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    job = Job("out", (Source("broken", str(tmp_path / "broken.mp4")),), (Phrase("cup"),))
    facts, found = looked_at(job, 0, lambda _: None)
    assert "broken.mp4 is no video that can be read" in facts.fault
    assert list(shards_of(job, 0, found)) == []


def test_the_time_of_a_bag_counts_once_for_all_of_its_cameras():
    sources = [Source("bag_left", "bag", "/left"), Source("bag_right", "bag", "/right"), Source("hall", "hall.mp4")]
    job = Job("out", tuple(sources), (Phrase("cup"),))
    times_s = {"bag_left": (10, 20), "bag_right": (11, 22), "hall": (0, 5)}
    frames = [
        AnnotatedFrame(name, "", at, at * 10**9, "", "", (4, 4), ()) for name, times in times_s.items() for at in times
    ]
    assert counted(iter(frames), job, {each.name: each.spec for each in sources})["recorded_s"] == 17.0


def test_a_damaged_line_says_what_to_do(tmp_path):
    (tmp_path / "0000.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"0000\.jsonl, line 1: .*; remove this file and run the same command again"):
        list(located_frames(tmp_path / "0000.jsonl"))
