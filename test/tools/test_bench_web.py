# SPDX-License-Identifier: Apache-2.0
"""``clip-seg bench web``, briefly."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from clip_seg_ros.tools.cli import main

pytest.importorskip("viser", reason="the page is served with viser")


def test_all_figures_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["--turns", "1", "--seconds", "3", "--rate", "5", "--no-browser", "--json", str(tmp_path / "web.json")]

    assert main(["bench", "web", *arguments]) == 0
    figures = {each["name"]: each for each in json.loads((tmp_path / "web.json").read_text())}
    names = ("rate.without", "rate.one_viewer", "rate.kept", "rate.5_viewers", "cpu.one_viewer", "picture")
    assert all(math.isfinite(figures[f"web.{name}"]["value"]) for name in names)
    assert figures["web.picture"]["value"] > 5
    assert "of the node's rate is kept with one viewer" in capsys.readouterr().out
