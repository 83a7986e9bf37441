# SPDX-License-Identifier: Apache-2.0
"""Copies of recordings at addresses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from clip_seg_ros.annotation.source_copies import SourceCopies, brought, is_pattern
from clip_seg_ros.data.samples import DataError

pytest.importorskip("fsspec", reason="addresses need fsspec")
HOLD = """
import sys
from pathlib import Path
from clip_seg_ros.annotation.source_copies import SourceCopies
with SourceCopies(Path(sys.argv[1]), 1000).held(sys.argv[2]) as path:
    print(path, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def copies(tmp_path: Path) -> SourceCopies:
    return SourceCopies(tmp_path / "copies", 1000)


def recording(tmp_path: Path, name: str, size: int = 400) -> str:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(name[:1].encode() * size)
    return f"file://{tmp_path / name}"


def test_a_path_is_left_as_it_is(tmp_path: Path, copies: SourceCopies) -> None:
    with brought(str(tmp_path), copies) as there:
        assert there.spec == str(tmp_path)
    assert not copies.folder.exists()


def test_a_file_keeps_its_name_and_content(tmp_path: Path, copies: SourceCopies) -> None:
    with brought(recording(tmp_path, "a.mcap"), copies) as there:
        assert Path(there.spec).name == "a.mcap"
        assert Path(there.spec).read_bytes() == b"a" * 400
        assert copies.folder in Path(there.spec).parents


def test_names_do_not_tell_where_the_copy_is(tmp_path: Path, copies: SourceCopies) -> None:
    recording(tmp_path, "photos/a.jpg")
    with brought(f"file://{tmp_path}/photos", copies) as there:
        assert there.named(f"{there.spec}/a.jpg") == f"file://{tmp_path}/photos/a.jpg"


def test_folders_and_patterns_are_copied_with_their_structure(tmp_path: Path, copies: SourceCopies) -> None:
    for name in ("photos/one/a.jpg", "photos/two/b.jpg"):
        recording(tmp_path, name, 10)
    for spec in ("photos", "photos/*/*.jpg"):
        with brought(f"file://{tmp_path}/{spec}", copies) as there:
            found = [file.relative_to(there.spec).as_posix() for file in sorted(Path(there.spec).rglob("*.jpg"))]
            assert found == ["one/a.jpg", "two/b.jpg"]


def test_a_copy_is_used_again_until_the_file_changes(tmp_path: Path, copies: SourceCopies) -> None:
    address = recording(tmp_path, "a.mcap")
    with copies.held(address) as first, copies.held(address) as second:
        assert first == second
        node = first.stat().st_ino
    with copies.held(address) as again:
        assert again.stat().st_ino == node
    (tmp_path / "a.mcap").write_bytes(b"longer" * 20)
    with copies.held(address) as changed:
        assert changed.read_bytes() == b"longer" * 20


def test_the_oldest_gives_way_and_what_is_read_stays(tmp_path: Path, copies: SourceCopies) -> None:
    addresses = [recording(tmp_path, f"{name}.mcap") for name in "abc"]
    with copies.held(addresses[0]) as held:
        with copies.held(addresses[1]) as passing:
            pass
        with copies.held(addresses[2]) as last:
            assert held.is_file()
            assert last.is_file()
            assert not passing.exists()


def test_there_is_a_limit(tmp_path: Path, copies: SourceCopies) -> None:
    with pytest.raises(DataError, match="no room"), copies.held(recording(tmp_path, "a.mcap", 1001)):
        pass


def test_nothing_is_left_in_the_end(tmp_path: Path, copies: SourceCopies) -> None:
    with copies.held(recording(tmp_path, "a.mcap")):
        pass

    copies.clear()

    assert not copies.folder.exists()


def test_what_another_process_reads_is_not_removed(tmp_path: Path, copies: SourceCopies) -> None:
    address = recording(tmp_path, "a.mcap")
    command = [sys.executable, "-c", HOLD, str(copies.folder), address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        path = Path(other.stdout.readline().strip())
        with copies.held(address) as mine:
            assert mine == path
        copies.clear()
        assert path.is_file()
        other.communicate("")
    with copies.held(address):
        pass
    copies.clear()
    assert not path.exists()


def killed_while_copying(copies: SourceCopies, address: str, size: int) -> Path:
    """Leaves what a process leaves that is killed while it copies; returns its folder."""
    with copies.held(address) as path:
        key = path.parent.name
    copies.clear()
    part = copies.folder / f"{key}.0123.part"
    part.mkdir(parents=True)
    (part / "a.mcap").write_bytes(b"a" * size)
    return part


def test_half_a_copy_is_not_in_its_own_way(tmp_path: Path, copies: SourceCopies) -> None:
    address = recording(tmp_path, "a.mcap", 600)
    part = killed_while_copying(copies, address, 500)

    with copies.held(address) as path:
        assert path.stat().st_size == 600
        assert not part.exists()


def test_half_a_copy_is_removed_in_the_end(tmp_path: Path, copies: SourceCopies) -> None:
    address = recording(tmp_path, "a.mcap")
    with copies.held(address):
        pass
    (key,) = (each.name for each in copies.folder.iterdir() if each.is_dir())
    (copies.folder / f"{key}.0123.part").mkdir()

    copies.clear()

    assert not copies.folder.exists()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("https://host/a.mcap?key=1*2[3]", False),
        ("https://host/*.mcap?key=1", True),
        ("bucket/runs/?.mcap", True),
        ("bucket/runs/a.mcap", False),
    ],
)
def test_the_query_of_an_address_is_no_pattern(path: str, expected: bool) -> None:
    assert is_pattern(path) == expected


def test_what_is_not_there_is_named(tmp_path: Path, copies: SourceCopies) -> None:
    with pytest.raises(DataError, match=r"missing\.mcap"), copies.held(f"file://{tmp_path}/missing.mcap"):
        pass
