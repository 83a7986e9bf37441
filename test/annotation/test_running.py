# SPDX-License-Identifier: Apache-2.0
"""Where a run may be written, and what its manifest keeps, without a model."""

from __future__ import annotations

import pytest

from clip_seg_ros.annotation.job import Job, Phrase, Source
from clip_seg_ros.annotation.running import looked_at, require_free, require_outside
from clip_seg_ros.annotation.shards import shards_of


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
    require_free(tmp_path)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        require_free(tmp_path)


def test_a_source_that_cannot_be_read_has_a_fault_and_no_shards(tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    job = Job("out", (Source("broken", str(tmp_path / "broken.mp4")),), (Phrase("cup"),))
    facts, found = looked_at(job, 0, lambda _: None)
    assert "broken.mp4 is no video that can be read" in facts.fault
    assert list(shards_of(job, 0, found)) == []
