# SPDX-License-Identifier: Apache-2.0
"""The folder of a run, as a path and at an address of fsspec."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clip_seg_ros.annotation import storage as storages
from clip_seg_ros.annotation.running import require_free
from clip_seg_ros.annotation.storage import LocalStorage, Storage, attempted, is_address, open_storage
from clip_seg_ros.data.samples import DataError

fsspec = pytest.importorskip("fsspec", reason="addresses need fsspec")


@pytest.fixture(params=["path", "file", "memory"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    folder = tmp_path / "run"
    return {"path": str(folder), "file": f"file://{folder}", "memory": f"memory:/{folder}"}[request.param]


@pytest.fixture
def storage(address: str) -> Iterator[Storage]:
    with open_storage(address) as storage:
        yield storage


def write(storage: Storage, name: str, text: str) -> None:
    (storage.folder / name).parent.mkdir(parents=True, exist_ok=True)
    (storage.folder / name).write_text(text)


def test_what_was_published_is_there_for_others(address: str, storage: Storage) -> None:
    write(storage, "shards/kitchen/0000.jsonl", "found")

    storage.publish("shards/kitchen/0000.jsonl")

    with open_storage(address) as other:
        assert other.has("shards/kitchen/0000.jsonl")
        assert not other.has("shards/kitchen/0001.jsonl")
        other.fetch("shards")
        assert (other.folder / "shards/kitchen/0000.jsonl").read_text() == "found"


def test_a_folder_is_published_with_all_below(address: str, storage: Storage) -> None:
    write(storage, "labels/a/1.png", "1")
    write(storage, "labels/b/2.png", "2")

    storage.publish("labels")

    with open_storage(address) as other:
        other.fetch("labels")
        assert sorted(file.read_text() for file in other.folder.rglob("*.png")) == ["1", "2"]


def test_the_same_file_is_published_again(address: str, storage: Storage) -> None:
    for text in ("first", "second"):
        write(storage, "run.json", text)
        storage.publish("run.json")

    with open_storage(address) as other:
        other.fetch("run.json")
        assert (other.folder / "run.json").read_text() == "second"


def test_nothing_half_written_is_left_at_an_address(tmp_path: Path) -> None:
    with open_storage(f"file://{tmp_path}/run") as storage:
        write(storage, "images/a/1.jpg", "picture")
        storage.publish("images/a/1.jpg")
        passing = storage.folder

    assert [file.name for file in (tmp_path / "run").rglob("*") if file.is_file()] == ["1.jpg"]
    assert not passing.exists()


def test_what_is_not_there_is_not_fetched(storage: Storage) -> None:
    storage.fetch("shards")

    assert not (storage.folder / "shards").exists()


def test_a_path_is_used_as_it_is(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))

    assert isinstance(storage, LocalStorage)
    assert storage.folder == tmp_path


@pytest.mark.parametrize("address", ["nosuchkind://bucket/run", "gopher://bucket/run"])
def test_an_unknown_kind_of_address_is_refused(address: str) -> None:
    with pytest.raises(DataError, match="cannot be opened"):
        open_storage(address)


def test_a_place_where_nothing_can_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with open_storage(f"file://{tmp_path}/file/run") as storage:
        write(storage, "run.json", "{}")
        with pytest.raises(DataError, match="file/run"):
            storage.publish("run.json")


@pytest.mark.parametrize(("spec", "expected"), [("a/b.mcap", False), ("0", False), ("s3://b/c.mcap", True)])
def test_addresses_are_told_from_paths(spec: str, expected: bool) -> None:
    assert is_address(spec) == expected


def test_shards_without_a_manifest_are_no_folder_for_a_run(address: str, storage: Storage) -> None:
    require_free(storage)
    write(storage, "shards/kitchen/0000.jsonl", "found")
    storage.publish("shards")

    with open_storage(address) as other, pytest.raises(ValueError, match=r"holds other files and no run\.json"):
        require_free(other)


class OfTheNetwork(Exception):
    """As aiohttp and botocore have them: of no class that Python has."""


@pytest.mark.parametrize(
    ("error", "tries"), [(OfTheNetwork("reset"), 4), (ConnectionError("reset"), 4), (FileNotFoundError("gone"), 1)]
)
def test_an_error_of_the_network_is_tried_again_and_told(
    monkeypatch: pytest.MonkeyPatch, error: Exception, tries: int
) -> None:
    monkeypatch.setattr(storages, "_FIRST_PAUSE_S", 0.0)
    tried = []

    def action() -> None:
        tried.append(1)
        raise error

    with pytest.raises(DataError, match=f"s3://bucket/run: {type(error).__name__}: {error}"):
        attempted(action, "s3://bucket/run")
    assert len(tried) == tries


def test_what_gets_through_in_the_end_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storages, "_FIRST_PAUSE_S", 0.0)
    left = [OfTheNetwork("reset"), OfTheNetwork("reset")]

    def action() -> str:
        if left:
            raise left.pop()
        return "content"

    assert attempted(action, "s3://bucket/run") == "content"
