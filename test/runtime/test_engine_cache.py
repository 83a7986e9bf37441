# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

import pytest

from clip_seg_ros.runtime import engine_cache
from clip_seg_ros.runtime.engine_cache import KEPT, METADATA, EngineCache, engine_key, read_metadata
from small_models import small_model


def writer(size: int = 10, **values):
    def write(folder: Path) -> dict:
        (folder / "graph.bin").write_bytes(b"x" * size)
        return values

    return write


def used_at(cache: EngineCache, key: str, seconds: float) -> None:
    os.utime(cache.folder / key / METADATA, (seconds, seconds))


def test_what_was_stored_is_found(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "engines")
    assert cache.find("a") is None
    folder = cache.store("a", writer(note="n"))

    assert cache.find("a") == folder == tmp_path / "engines" / "a"
    assert read_metadata(folder)["note"] == "n"
    assert [path.name for path in cache.folder.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("name", "content"),
    [("graph.bin", b"xxxx"), ("graph.bin", None), (METADATA, b"{"), (METADATA, b"[]"), (METADATA, b'{"files": {}}')],
)
def test_what_is_damaged_is_not_found_and_can_be_stored_again(
    tmp_path: Path, name: str, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    cache = EngineCache(tmp_path)
    path = cache.store("a", writer()) / name
    path.unlink() if content is None else path.write_bytes(content)

    assert cache.find("a") is None
    assert "damaged" in caplog.text
    cache.store("a", writer())
    assert cache.find("a") is not None


def test_what_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def write(folder: Path) -> dict:
        (folder / "graph.bin").write_bytes(b"x")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        EngineCache(tmp_path).store("a", write)

    assert list(tmp_path.iterdir()) == []


def test_a_folder_replaces_one_of_the_same_name(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    cache.store("a", writer(note=1))
    cache.store("a", writer(note=2))

    assert read_metadata(cache.find("a"))["note"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_was_used_longest_ago_is_dropped(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, limit_bytes=4000)
    for age, key in enumerate(("kept", "old", "older")):
        cache.store(key, writer(1000, **{KEPT: key == "kept"}))
        used_at(cache, key, 1000 - age)
    cache.find("older")
    cache.store("new", writer(1000))
    assert {path.name for path in tmp_path.iterdir()} == {"kept", "old", "older", "new"}
    cache.store("newer", writer(1000))

    assert {path.name for path in tmp_path.iterdir()} == {"kept", "older", "new", "newer"}
    cache.store("large", writer(5000))
    assert {path.name for path in tmp_path.iterdir()} == {"kept", "large"}


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    for name, seconds in ((".a.1.2", 0), (".b.1.2", None)):
        (tmp_path / name).mkdir()
        if seconds is not None:
            os.utime(tmp_path / name, (seconds, seconds))
    cache.store("c", writer())

    assert {path.name for path in tmp_path.iterdir()} == {".b.1.2", "c"}


def test_the_key_differs_with_what_changes_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model("maskclip")
    keys = [
        engine_key(model, "1", "openvino", (48, 64), ("torch",)),
        engine_key(model, "2", "openvino", (48, 64), ("torch",)),
        engine_key(model, "1", "onnx", (48, 64), ("torch",)),
        engine_key(model, "1", "openvino", (64, 64), ("torch",)),
        engine_key(model, "1", "openvino", (48, 64), ("torch", "numpy")),
    ]
    assert keys[0] == engine_key(small_model("maskclip"), "1", "openvino", (48, 64), ("torch",))
    model.threshold = 0.1
    keys.append(engine_key(model, "1", "openvino", (48, 64), ("torch",)))
    monkeypatch.setattr(engine_cache, "_sources", lambda: "other")
    keys.append(engine_key(model, "1", "openvino", (48, 64), ("torch",)))

    assert len(set(keys)) == len(keys)
    assert all(key.startswith("small-maskclip-") for key in keys)
