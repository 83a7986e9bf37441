# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from clip_seg_ros.tools import bench, bench_models
from clip_seg_ros.tools.cli import main

TINY = bench.Architecture(
    "tiny_64",
    64,
    {
        "text_config": {
            "hidden_size": 32,
            "intermediate_size": 128,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "projection_dim": 24,
        },
        "vision_config": {
            "hidden_size": 48,
            "intermediate_size": 192,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": 32,
            "patch_size": 16,
        },
        "projection_dim": 24,
        "reduce_dim": 16,
        "extract_layers": [0, 1],
        "decoder_intermediate_size": 64,
    },
)


def in_this_process(*arguments: str) -> dict[str, float]:
    """Does a step without waiting for a fresh process to import everything again."""
    threads = torch.get_num_threads()
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        bench_models.main(list(arguments))
    torch.set_num_threads(threads)
    return json.loads(said.getvalue().splitlines()[-1])


def test_measures_both_sides(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "VIT_B16", TINY)
    monkeypatch.setattr(bench, "_child", in_this_process)
    path = tmp_path / "figures.json"
    arguments = ["--against", "transformers", "--prompts", "3", "--repeats", "2", "--threads", "1"]
    assert main(["bench", "models", *arguments, "--json", str(path)]) == 0
    said = capsys.readouterr().out
    assert "tiny_64, 1 threads, median of 2" in said
    assert said.count(" ms") == 3
    figures = {
        item["name"].removeprefix("clipseg.tiny_64.cpu.prompts_3."): item for item in json.loads(path.read_text())
    }
    value = {name: item["value"] for name, item in figures.items()}
    assert value["speedup"] == pytest.approx(value["transformers"] / value["ours"], rel=0.1)
    assert value["ours"] > 0
    assert value["ours_text_cached"] > 0
    assert value["ours_peak"] > 50
    assert 0 <= value["max_difference"] < 1e-4
    assert {item["unit"] for item in figures.values()} == {"x", "ms", "MiB", "logit"}


def test_sides_that_disagree_are_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def pretend(step: str, folder: str, *_: str) -> dict[str, float]:
        if step != "prepare":
            np.save(Path(folder) / f"{step}_1.npy", np.full((1, 4, 4), 0.0 if step == "ours" else 0.01))
        return {"seconds": 1.0, "cached_seconds": 1.0, "peak_bytes": 2**20, "threads": 1}

    monkeypatch.setattr(bench, "_child", pretend)
    assert main(["bench", "models", "--prompts", "1"]) == 1
    assert capsys.readouterr().err == "clip-seg bench: the logits of the two sides differ by 0.01, which is too much\n"


def test_a_step_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(bench.BenchError, match="the step dance failed with exit code 1: KeyError") as caught:
        bench._child("dance", str(tmp_path), "1", "1", "1")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompts", "1,x"], "numbers from 1 to 64"),
        (["--prompts", "0"], "numbers from 1 to 64"),
        (["--prompts", "65"], "numbers from 1 to 64"),
        (["--repeats", "0"], "--repeats must be 1 or more"),
        (["--json", "/nowhere/at/all.json"], "name a file in a folder that exists"),
        (["--against", "nobody"], "invalid choice"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(["bench", "models", *arguments])
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert message in capsys.readouterr().err


def test_a_subject_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench"])
    assert "SUBJECT" in capsys.readouterr().err


def test_every_prompt_is_another() -> None:
    assert len(set(bench_models.PHRASES)) == bench.MAX_PROMPTS
