# SPDX-License-Identifier: Apache-2.0
"""A manifest gives its job back, and tells runs apart."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from clip_seg_ros.annotation.job import Job, Phrase, Selection, Source
from clip_seg_ros.annotation.manifest import (
    EARLIER,
    SourceFacts,
    as_chosen_before,
    begun,
    continued,
    differences,
    earlier_note,
    finished,
    hash_of,
    read_job,
    read_manifest,
    write_manifest,
)
from clip_seg_ros.data.samples import DataError

SOURCE = Source("table", "recordings/table.mcap", "/camera")
ASKED = Job("out", (SOURCE,), (Phrase("cup"), Phrase("box", 0.6)), ("white box",), Selection(2, 0.01))
JOB = replace(ASKED, model="clipseg-pocket", device="cpu", engine="openvino", precision="float32")
MODELS = [{"name": "clipseg-pocket", "weights": "00ff"}]


def manifest(job=JOB, asked=ASKED, digest="ab", models=MODELS):
    return begun(job, asked, [SourceFacts(SOURCE, 7, 100, digest, ("no depth",))], models)


def test_a_job_comes_back(tmp_path):
    write_manifest(tmp_path, manifest())
    assert read_job(tmp_path) == replace(JOB, out=str(tmp_path))
    assert differences(read_manifest(tmp_path), manifest()) == []


def test_what_was_chosen_stays_chosen(tmp_path):
    write_manifest(tmp_path, manifest())
    assert as_chosen_before(ASKED, read_manifest(tmp_path)) == JOB
    other = replace(ASKED, engine="eager")
    assert as_chosen_before(other, read_manifest(tmp_path)) == other


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (manifest(replace(JOB, sure_from=0.9)), "sure_from: 0.75 then, 0.9 now"),
        (manifest(digest="cd"), "sources: table"),
        (manifest(models=[{"name": "clipseg-pocket", "weights": "0000"}]), "models: other weights"),
    ],
)
def test_another_run_is_told_apart(tmp_path, now, words):
    write_manifest(tmp_path, manifest())
    assert differences(read_manifest(tmp_path), now) == [words]


def test_a_folder_without_a_run_says_so(tmp_path):
    with pytest.raises(DataError, match=r"holds no run of clip-seg annotate"):
        read_job(tmp_path)


def test_the_hash_of_a_file_and_of_a_folder(tmp_path):
    (tmp_path / "one.png").write_bytes(b"one")
    assert hash_of(str(tmp_path / "one.png")) == (3, hashlib.sha256(b"one").hexdigest())
    (tmp_path / "two.png").write_bytes(b"two!")
    before = hash_of(str(tmp_path))
    assert before[0] == 7
    (tmp_path / "two.png").rename(tmp_path / "three.png")
    assert hash_of(str(tmp_path)) != before


def test_what_lies_beside_pictures_does_not_count(tmp_path):
    picture = tmp_path / "one.png"
    picture.write_bytes(b"one")
    before = hash_of(str(tmp_path), read=[picture])
    (tmp_path / "Thumbs.db").write_bytes(b"...")
    assert hash_of(str(tmp_path), read=[picture]) == before != hash_of(str(tmp_path))


def test_a_run_that_goes_on_keeps_what_came_out_and_the_versions_that_did_it(tmp_path):
    now = manifest()
    before = finished(now, True, {"images": 7}, ["yolo"])
    again = continued(before, now)
    assert (again["formats"], again["counts"], again["is_finished"]) == (["yolo"], {"images": 7}, False)
    assert (EARLIER in again, earlier_note(again)) == (False, "")
    older = {**before, "versions": {**now["versions"], "torch": "1.0"}}
    upgraded = continued(continued(older, now), now)
    assert [each["torch"] for each in upgraded[EARLIER]] == ["1.0"]
    assert f"torch 1.0, now {now['versions']['torch']}" in earlier_note(upgraded)


def test_a_source_that_could_not_be_read_may_be_mended(tmp_path):
    broken = [SourceFacts(SOURCE, 7, 100, "ab", ()), SourceFacts(Source("hall", "hall.mp4"), 0, 0, "", (), "damaged")]
    mended = [broken[0], SourceFacts(Source("hall", "hall.mp4"), 9, 90, "cd", ())]
    for before, now, wanted in ((broken, mended, []), (mended, broken, ["sources: hall"])):
        write_manifest(tmp_path, begun(JOB, ASKED, before, MODELS))
        assert differences(read_manifest(tmp_path), begun(JOB, ASKED, now, MODELS)) == wanted
