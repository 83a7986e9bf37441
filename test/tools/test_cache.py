# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import builtins
from pathlib import Path

import pytest

from clip_seg_ros.tools.cli import main

KEPT = "mine.txt"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with an environment, a workspace, weights, and what belongs to others."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CLIP_SEG_CACHE_DIR", str(tmp_path / "weights"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_bytes(b"x" * 9_000_000)
    for name, size in (
        ("venv-1/lib/a.so", 3_000_000),
        ("venv-1.log", 0),
        ("ws-2/build.log", 2_000_000),
        ("engines/cup-64x64-openvino-1/encoder.bin", 4_000_000),
        ("verdicts/1.json", 1_000_000),
        (KEPT, 1),
    ):
        path = tmp_path / "clip_seg_ros" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    (tmp_path / "clip_seg_ros" / "ws-2" / "link").symlink_to(tmp_path / "other")
    (tmp_path / "weights").mkdir()
    for name in ("a.safetensors", "SHA256SUMS", KEPT):
        (tmp_path / "weights" / name).write_bytes(b"x" * 1_000_000)
    return tmp_path


def left(home: Path) -> set[str]:
    return {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file() and "other" not in path.parts}


def test_it_shows_what_there_is_and_removes_nothing(home: Path, capsys: pytest.CaptureFixture) -> None:
    before = left(home)
    assert main(["cache"]) == 0
    said = capsys.readouterr().out
    rows = {line.split()[0]: " ".join(line.split()[1:3]) for line in said.splitlines() if line and line[0] != " "}
    assert rows["environments"] == "3.0 MB"
    assert rows["workspaces"] == "2.0 MB"
    assert rows["weights"] == "2.0 MB"
    assert rows["engines"] == "4.0 MB"
    assert rows["verdicts"] == "1.0 MB"
    assert rows["all"] == "12.0 MB"
    assert str(home / "clip_seg_ros" / "venv-1") in said
    assert left(home) == before


def test_some_of_it_is_removed(home: Path) -> None:
    assert main(["cache", "--clear", "workspaces", "--yes"]) == 0
    assert left(home) == {
        "clip_seg_ros/venv-1/lib/a.so",
        "clip_seg_ros/venv-1.log",
        "clip_seg_ros/engines/cup-64x64-openvino-1/encoder.bin",
        "clip_seg_ros/verdicts/1.json",
        f"clip_seg_ros/{KEPT}",
        "weights/a.safetensors",
        "weights/SHA256SUMS",
        f"weights/{KEPT}",
    }
    assert (home / "other" / "file").exists(), "links are not followed"


@pytest.mark.parametrize("what", [[], ["all"]])
def test_all_of_it_is_removed_but_what_others_keep_there(home: Path, what: list[str]) -> None:
    assert main(["cache", "--clear", *what, "--yes"]) == 0
    assert left(home) == {f"clip_seg_ros/{KEPT}", f"weights/{KEPT}"}
    assert main(["cache", "--clear"]) == 0, "there is nothing to ask about"


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("", 1), ("no", 1), (None, 1)])
def test_it_asks_first(home: Path, monkeypatch: pytest.MonkeyPatch, answer: str | None, code: int) -> None:
    asked = []

    def ask(question: str) -> str:
        asked.append(question)
        if answer is None:
            raise EOFError
        return answer

    monkeypatch.setattr(builtins, "input", ask)
    assert main(["cache", "--clear", "weights"]) == code
    assert asked == ["Remove weights (2.0 MB)? [y/N] "]
    assert (home / "weights" / "a.safetensors").exists() == (code == 1)


def test_wrong_arguments(home: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["cache", "--yes"]) == 2
    with pytest.raises(SystemExit):
        main(["cache", "--clear", "everything"])
    assert "environments" in capsys.readouterr().err
