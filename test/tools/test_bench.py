# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clip_seg_ros.tools import bench, bench_compare, bench_models, bench_turns, published_sizes
from clip_seg_ros.tools.cli import main
from clip_seg_ros.zoo.factory import build_segmenter

TINY = bench_compare.Architecture(
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


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """All sides in this process, which need not import everything again, and the smallest model."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(bench_compare, "VIT_B16", TINY)
    monkeypatch.setattr(bench_compare, "step", lambda *arguments: bench_models.main(list(arguments)))
    monkeypatch.setattr(bench_turns, "open_side", bench_models.open_side)
    yield
    torch.set_num_threads(threads)


def figures_of(path: Path) -> dict[str, float]:
    return {item["name"]: item["value"] for item in json.loads(path.read_text())}


def test_measures_all_sides(here: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "figures.json"
    arguments = ["--against", "transformers", "--prompts", "3", "--repeats", "3", "--threads", "1"]
    assert main(["bench", "models", *arguments, "--engines", "eager_bfloat16", "--json", str(path)]) == 0
    said = capsys.readouterr().out
    assert "tiny_64, 3 prompts, 1 threads, median of 3 in turns" in said
    assert re.search(r"best: eager_(float32|bfloat16)", said)
    value, prefix = figures_of(path), "clipseg.tiny_64.cpu."
    of_eager = {name.removeprefix(f"{prefix}prompts_3."): number for name, number in value.items()}
    assert of_eager["speedup"] == pytest.approx(of_eager["transformers"] / of_eager["ours"], rel=0.2)
    assert of_eager["ours_text_cached"] > 0
    assert of_eager["ours_peak"] > 50
    assert 0 <= of_eager["max_difference"] < 1e-4
    assert value[f"{prefix}eager_float32.prompts_3.mask_iou"] == 1.0
    assert 0.5 < value[f"{prefix}eager_bfloat16.prompts_3.mask_iou"] <= 1.0
    assert value[f"{prefix}eager_bfloat16.prompts_3.ms"] > 0
    assert value[f"{prefix}best.prompts_3.mask_iou"] >= 0.98
    assert value[f"{prefix}best.prompts_3.speedup"] >= value[f"{prefix}eager_float32.prompts_3.speedup"]


def test_a_side_that_cannot_be_had_is_told(here: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "figures.json"
    arguments = ["--prompts", "1", "--repeats", "1", "--engines", "eager_int8", "--json", str(path)]
    assert main(["bench", "models", *arguments]) == 0
    assert "eager_int8           cannot be had: eager computes in" in capsys.readouterr().out
    assert not any("int8" in name for name in figures_of(path))


def test_sides_that_disagree_are_an_error(
    here: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_compare, "difference", lambda *_: 0.01)
    assert main(["bench", "models", "--prompts", "1", "--repeats", "1", "--engines", ""]) == 1
    error = capsys.readouterr().err
    assert error.endswith("clip-seg bench: the logits of the two sides differ by 0.01, which is too much\n")


def test_the_published_sizes_are_timed_by_engine(
    here: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_compare, "LAYOUTS", ("maskclip-plus-pocket",))
    monkeypatch.setattr(published_sizes, "random_model", build_segmenter)
    path = tmp_path / "figures.json"
    arguments = ["--layouts", "published", "--repeats", "2", "--engines", "eager_bfloat16"]
    assert main(["bench", "models", *arguments, "--json", str(path)]) == 0
    assert "maskclip-plus-pocket, " in capsys.readouterr().out
    value, prefix = figures_of(path), "maskclip-plus-pocket.cpu."
    assert value[f"{prefix}eager_float32.speedup"] == 1.0
    for name in ("ms", "load", "first_load", "peak"):
        assert value[f"{prefix}eager_bfloat16.{name}"] > 0


def test_a_process_answers_until_it_is_to_finish(tmp_path: Path) -> None:
    bench_models.main(["prepare", str(tmp_path), json.dumps(dict(TINY.config)), str(TINY.size)])
    eager = bench_models.Request("eager_float32", str(tmp_path), 2, 1)
    measured, missing = bench_turns.in_turns([eager, replace(eager, side="eager_int8")], 1)
    assert list(measured) == ["eager_float32"]
    assert len(measured["eager_float32"].texts_s) == 1
    assert measured["eager_float32"].report["peak_bytes"] > 1e8
    assert "eager computes in" in missing["eager_int8"]
    assert bench_turns.mask_iou(eager, eager) == 1.0


def test_nobody_always_follows_the_same_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Listens:
        def __init__(self, request: bench_models.Request) -> None:
            self.name = request.side

        def ask(self, what: str) -> float:
            asked.append(self.name)
            return 1.0

        def finish(self) -> dict[str, float]:
            return {}

    monkeypatch.setattr(bench_turns, "open_side", Listens)
    sides = ["a_float32", "b_float32", "transformers"]
    bench_turns.in_turns([bench_models.Request(side, "", 1, 1) for side in sides], 2)
    assert asked[-5:] == ["b_float32", "b_float32", "transformers", "a_float32", "a_float32"]


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(bench_turns.BenchError, match="the side eager_float32 failed with exit code 1: FileNotFound"):
        bench_turns.in_turns([bench_models.Request("eager_float32", str(tmp_path), 1, 1)], 1)


def test_a_step_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(bench_turns.BenchError, match="the step dance failed with exit code 1: KeyError") as caught:
        bench_compare.step("dance", str(tmp_path))
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
        (["--engines", "openvino"], "openvino is no engine with its precision"),
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
