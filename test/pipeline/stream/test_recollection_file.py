# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import pytest

from clip_seg_ros.pipeline.stream.recollection import ObjectMemory
from clip_seg_ros.pipeline.stream.recollection_file import MemoryFileError, load_memory, save_memory
from patches import BLUE, Patch, camera_at, picture

CAMERA = camera_at(0.0)


@pytest.fixture
def memory():
    """Two objects, of which the box was missed and is doubtful, and the cup has features."""
    kept = ObjectMemory()
    patches = [Patch("cup", (0.1, 0.0, 1.0)), Patch("box", (-0.15, 0.05, 1.1), BLUE)]
    for stamp_ns, count in ((3, 2), (2**62, 1)):
        frame, regions = picture(patches, CAMERA, stamp_ns)
        kept.see(frame, CAMERA, regions[:count], ["cup", "box"], {1: np.array([0.1, -2.0])})
    return kept


def test_a_memory_comes_back_from_its_file(tmp_path, memory):
    path = tmp_path / "memory.json"
    save_memory(memory, path, "map")
    again = load_memory(path, "map")
    assert again.next_id == memory.next_id
    pairs = zip(memory.what_was_seen(doubtful=True), again.what_was_seen(doubtful=True), strict=True)
    for before, after in pairs:
        assert after.box_m == before.box_m
        assert after.view == before.view
        for name in ("id", "phrase", "position_m", "first_ns", "last_ns", "sightings", "whole", "missed", "score"):
            assert getattr(after, name) == getattr(before, name)
        np.testing.assert_array_equal(after.surface_m, before.surface_m)
        np.testing.assert_array_equal(after.looks, before.looks)
    assert again.recall("cup")[0].features.tolist() == pytest.approx([0.1, -2.0])
    assert again.recall("box") == []


def test_a_loaded_memory_goes_on_where_it_was(tmp_path, memory):
    save_memory(memory, tmp_path / "memory.json", "map")
    again = load_memory(tmp_path / "memory.json", "map")
    frame, regions = picture([Patch("cup", (0.1, 0.0, 1.0)), Patch("ball", (-0.1, 0.2, 1.0))], CAMERA)
    assert again.see(frame, CAMERA, regions, ["cup", "box", "ball"]).ids == (1, 3)
    assert [item.phrase for item in again.what_was_seen(doubtful=True)] == ["ball", "cup"]


def test_too_many_objects_make_room_when_they_are_loaded(tmp_path, memory):
    save_memory(memory, tmp_path / "memory.json", "map")
    assert [item.phrase for item in load_memory(tmp_path / "memory.json", "map", 1).what_was_seen()] == ["cup"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, memory, monkeypatch):
    path = tmp_path / "memory.json"
    save_memory(ObjectMemory(), path, "map")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("the disk is full")))
    with pytest.raises(OSError, match="full"):
        save_memory(memory, path, "map")
    assert len(load_memory(path, "map")) == 0
    assert [each.name for each in tmp_path.iterdir()] == ["memory.json"]


def test_a_missing_file_and_another_frame_are_said(tmp_path, memory):
    with pytest.raises(FileNotFoundError):
        load_memory(tmp_path / "none.json", "map")
    save_memory(memory, tmp_path / "memory.json", "map")
    with pytest.raises(MemoryFileError, match="'map', which are of no use in 'odom'"):
        load_memory(tmp_path / "memory.json", "odom")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": "x"}', b"\xff\xfe", b"[" * 100_000, b"null"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "memory.json"
    path.write_bytes(content)
    with pytest.raises(MemoryFileError, match=r"memory\.json"):
        load_memory(path, "map")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", 0),
        ("id", 2),
        ("id", None),
        ("phrase", ""),
        ("position_m", [1, 2]),
        ("position_m", [1, 2, 1e999]),
        ("position_m", "abc"),
        ("box_m", {"center_m": [0, 0, 0]}),
        ("box_m", 7),
        ("sightings", -1),
        ("score", "much"),
        ("surface_m", "AAAA"),
        ("surface_m", "?"),
        ("looks", ""),
        ("view", {"jpeg": "", "mask_png": "", "worth": 0}),
        ("view", []),
    ],
)
def test_a_damaged_object_is_refused(tmp_path, memory, name, value):
    path = tmp_path / "memory.json"
    save_memory(memory, path, "map")
    content = json.loads(path.read_text())
    content["objects"][[item["phrase"] for item in content["objects"]].index("cup")][name] = value
    path.write_text(json.dumps(content))
    with pytest.raises(MemoryFileError, match="damaged"):
        load_memory(path, "map")


@pytest.mark.parametrize("name", ["objects", "next_id"])
def test_a_missing_part_is_said(tmp_path, memory, name):
    path = tmp_path / "memory.json"
    save_memory(memory, path, "map")
    content = json.loads(path.read_text())
    del content[name]
    path.write_text(json.dumps(content))
    with pytest.raises(MemoryFileError, match=f"'{name}' is missing"):
        load_memory(path, "map")


def test_another_version_is_refused(tmp_path, memory):
    path = tmp_path / "memory.json"
    save_memory(memory, path, "map")
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(MemoryFileError, match="version 2"):
        load_memory(path, "map")
