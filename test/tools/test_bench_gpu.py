# SPDX-License-Identifier: Apache-2.0
"""``clip-seg bench gpu``: what it asks, what it says of it, and one short measurement where there is a GPU."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clip_seg_ros.tools import bench_gpu
from clip_seg_ros.tools.cli import main
from clip_seg_ros.zoo.factory import build_segmenter

ROW = {
    "name": "cris-r50.cuda.eager_float16.prompts_1",
    "ms": 2.5,
    "encode_ms": 1.5,
    "spread": 0.02,
    "launches": 273,
    "peak_bytes": 300 * 2**20,
    "load_s": 1.0,
    "mask_iou": 0.9991,
    "logits": 0.001,
    "fault": "",
}
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@without_gpu
def test_without_a_gpu_it_says_so_and_measures_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "figures.json"
    assert main(["bench", "gpu", "--json", str(path)]) == 1
    said = capsys.readouterr()
    assert said.err == "clip-seg bench: torch sees no CUDA device on this machine: nothing was measured\n"
    assert not said.out
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", "0"], "--repeats must be 1 or more"),
        (["--minutes", "0"], "--minutes more than 0"),
        (["--json", "/nowhere/at/all.json"], "name a file in a folder that exists"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "gpu", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("clipseg-pocket", {f"prompts_{n}.{size}": 1 for n in (1, 13) for size in ("640x480", "1920x1080")}),
        ("maskclip-plus-pocket", {"640x480", "1920x1080"}),
    ],
)
def test_what_is_asked(name: str, asked: dict[str, int] | set[str]) -> None:
    model = build_segmenter(name)
    found = bench_gpu.cases(model, torch.device("cpu"))
    if model.class_names is not None:
        asked = {f"prompts_{len(model.class_names)}.{size}": 1 for size in asked}
    assert {case.name: len(case.pixels) for case in found} == asked
    for case in found:
        assert f"prompts_{len(case.prompts)}" in case.name
        if case.name.endswith("1920x1080"):
            assert case.pixels.shape[3] > 1.7 * case.pixels.shape[2]


def test_a_square_is_asked_once_whatever_the_image() -> None:
    model = build_segmenter("cris-pocket")
    model.input_spec = replace(model.input_spec, resize="letterbox")
    assert [case.name for case in bench_gpu.cases(model, torch.device("cpu"))] == ["prompts_1", "prompts_13"]


def test_a_wide_image_has_more_windows() -> None:
    spec = bench_gpu.random_model("denseclip-rn50").input_spec
    assert [len(bench_gpu._pixels(spec, size)) for size in bench_gpu.SIZES.values()] == [2, 3]


def test_a_row_is_a_line_and_figures(tmp_path: Path) -> None:
    assert len(bench_gpu._line(ROW)) == len(bench_gpu._HEAD)
    assert bench_gpu._line({**ROW, "fault": "no graph"}).endswith("  no graph")
    bench_gpu._write(tmp_path / "figures.json", bench_gpu._figures(ROW))
    figures = {item["name"]: item["value"] for item in json.loads((tmp_path / "figures.json").read_text())}
    assert figures["cris-r50.cuda.eager_float16.prompts_1.launches"] == 273
    assert figures["cris-r50.cuda.eager_float16.prompts_1.peak"] == 300
    assert len(list(tmp_path.iterdir())) == 1


@on_gpu
def test_a_gpu_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench_gpu, "LAYOUTS", ("clipseg-pocket",))
    monkeypatch.setattr(bench_gpu, "random_model", build_segmenter)
    path = tmp_path / "figures.json"
    assert main(["bench", "gpu", "--repeats", "3", "--json", str(path)]) == 0
    figures = {item["name"]: item["value"] for item in json.loads(path.read_text())}
    graph, eager = (f"clipseg-pocket.cuda.{engine}_float16.prompts_1.640x480" for engine in ("cuda_graph", "eager"))
    assert figures[f"{graph}.launches"] < figures[f"{eager}.launches"]
    assert figures[f"{graph}.mask_iou"] > 0.9
