# SPDX-License-Identifier: Apache-2.0
"""`clip-seg render`: a folder to train on."""

from __future__ import annotations

from pathlib import Path

from clip_seg_ros.data.folder import PhraseFolder
from clip_seg_ros.tools import render
from clip_seg_ros.tools.cli import main


def test_a_folder_is_rendered(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "pictures"
    assert main(["render", str(folder), "--pictures", "2", "--held-out"]) == 0
    assert len(set(PhraseFolder(folder).pictures)) == 2
    assert f"written to {folder}" in capsys.readouterr().out
    assert main(["render", str(folder)]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"clip-seg render: {folder} holds something already")


def test_a_wrong_number_is_said(tmp_path: Path, capsys) -> None:
    assert main(["render", str(tmp_path), "--pictures", "0"]) == 2
    assert "--pictures must be at least 1, got 0" in capsys.readouterr().err


def test_ctrl_c_is_one_line(tmp_path: Path, monkeypatch, capsys) -> None:
    def interrupted(*args):
        yield 0
        raise KeyboardInterrupt

    monkeypatch.setattr(render, "write_rendered_folder", interrupted)
    assert main(["render", str(tmp_path)]) == 130
    assert capsys.readouterr().err.splitlines()[-1].startswith("clip-seg render: stopped; ")
