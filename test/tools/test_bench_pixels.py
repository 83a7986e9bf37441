# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from clip_seg_ros.pipeline.preprocess import Geometry
from clip_seg_ros.tools import bench_pixels
from clip_seg_ros.tools.cli import main


def test_measures_what_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, _ = bench_pixels.CASES["vga.classes_10"]
    monkeypatch.setitem(bench_pixels.CASES, "vga.classes_10", (kind, (48, 64)))
    path = tmp_path / "figures.json"
    threads = torch.get_num_threads()
    assert main(["bench", "pixels", "--only", "vga.classes_10", "--repeats", "2", "--json", str(path)]) == 0
    (figure,) = json.loads(path.read_text())
    assert figure["name"] == "pixels.vga.classes_10.ms"
    assert figure["unit"] == "ms"
    assert figure["value"] > 0
    assert "vga.classes_10" in capsys.readouterr().out
    assert torch.get_num_threads() == threads


def test_masks_cover_half_the_picture() -> None:
    kind, _ = bench_pixels.CASES["vga.prompts_13"]
    logits = bench_pixels.logits_of(kind, Geometry.fit((480, 640), kind.spec.input), None)
    assert logits.shape == (1, 13, 352, 352)
    covered = (logits > 0).float().mean(dim=(0, 2, 3))
    np.testing.assert_allclose(covered, 0.5, atol=0.01)


@pytest.mark.parametrize("name", ["vga.prompts_1", "vga.cris_1", "vga.windows_150"])
def test_every_kind_finds_objects(name: str) -> None:
    kind, _ = bench_pixels.CASES[name]
    assert bench_pixels.prepare(kind, (60, 80))() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "vga.prompts_2"], "unknown vga.prompts_2: use some of vga.prompts_1, "),
        (["--repeats", "1"], "--repeats must be 2 or more"),
        (["--json", "/nowhere/at/all.json"], "name a file in a folder that exists"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "pixels", *arguments]) == 2
    assert message in capsys.readouterr().err
