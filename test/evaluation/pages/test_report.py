# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from clip_seg_ros import resources
from clip_seg_ros.evaluation.metrics.thresholds import ThresholdSweep
from clip_seg_ros.evaluation.pages import report
from clip_seg_ros.evaluation.protocols import ImageResult, PhraseEvaluation, PhraseResult, SemanticEvaluation
from clip_seg_ros.evaluation.suite import Figure

NAN = float("nan")


@pytest.fixture
def phrases() -> PhraseEvaluation:
    sweep = ThresholdSweep()
    rng = np.random.default_rng(0)
    mask = rng.random((30, 30)) < 0.4
    sweep.add(np.clip(0.45 * mask + 0.6 * rng.random((30, 30)), 0, 1), mask)
    result = PhraseResult(3, "val/1", "Küchentisch", NAN, 1.0, NAN, NAN, 0.2, 0.0, 0.0)
    figures = (Figure("phrases.mean_iou", np.float64(0.5), "mIoU at 0.3"), Figure("phrases.boundary_f", NAN, "F"))
    return PhraseEvaluation(figures, (result,), 0.3, sweep.scores())


@pytest.fixture
def semantic() -> SemanticEvaluation:
    confusion = np.array([[90, 10, 0], [30, 10, 0], [0, 0, 0]])
    return SemanticEvaluation(
        (Figure("semantic.count", 1, "pictures"),),
        (ImageResult(0, "val/1", 0.4, 0.7, 0.5),),
        ("wall", "cup", "sofa"),
        np.array([90 / 130, 0.2, np.nan]),
        np.array([0.9, 0.25, np.nan]),
        confusion,
    )


def test_json_says_what_was_run_and_has_all_there_is(tmp_path: Path, phrases: PhraseEvaluation) -> None:
    report.write_json(tmp_path / "r.json", {"model": "m", "threshold": 0.3}, phrases)

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    content = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert content["run"] == {
        "package": "clip_seg_ros",
        "version": report.package_version(),
        "model": "m",
        "threshold": 0.3,
    }
    assert content["figures"] == [
        {"name": "phrases.mean_iou", "value": 0.5, "unit": "mIoU at 0.3"},
        {"name": "phrases.boundary_f", "value": None, "unit": "F"},
    ]
    assert content["samples"][0]["phrase"] == "Küchentisch"
    assert content["samples"][0]["iou"] is None
    assert content["sweep"]["threshold"][14] == 0.3
    assert content["sweep"]["iou_fg"] == pytest.approx(phrases.sweep.foreground_iou.tolist(), abs=1e-6)
    assert {len(column) for column in content["sweep"].values()} == {49}


def test_json_of_labels_has_every_class(tmp_path: Path, semantic: SemanticEvaluation) -> None:
    report.write_json(tmp_path / "r.json", {}, semantic)
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["classes"][1:] == [
        {"name": "cup", "iou": 0.2, "accuracy": 0.25},
        {"name": "sofa", "iou": None, "accuracy": None},
    ]
    assert content["figures"][0]["value"] == 1


def test_the_version_is_that_of_the_manifest() -> None:
    assert f"<version>{report.package_version()}</version>" in (resources.share_dir() / "package.xml").read_text()
    assert re.fullmatch(r"\d+\.\d+\.\d+", report.package_version())


def test_the_sweep_is_a_table_with_tenths_and_the_best(phrases: PhraseEvaluation) -> None:
    lines = report.sweep_table(phrases.sweep).splitlines()
    shown = {float(line.split()[0]) for line in lines[1:]}
    best = {phrases.sweep.best(curve)[1] for curve in (phrases.sweep.foreground_iou, phrases.sweep.binary_iou)}
    assert shown == {step / 10 for step in range(1, 10)} | best
    starred = [line for line in lines if "*" in line]
    assert {float(line.split()[0]) for line in starred} == best
    value, where = phrases.sweep.best(phrases.sweep.foreground_iou)
    assert any(f"{where:.2f}" in line and f"{value:.4f}*" in line for line in starred)


def test_classes_and_confusions_come_worst_first(semantic: SemanticEvaluation) -> None:
    assert [name for name, _, _ in report.worst_classes(semantic)] == ["cup", "wall"]
    assert report.class_table(semantic).splitlines()[1].split() == ["cup", "0.2000", "0.2500"]
    assert report.confusions(semantic) == [("cup", "wall", 0.75), ("wall", "cup", 0.1)]
    assert report.confusions(semantic, most=1) == [("cup", "wall", 0.75)]


def test_figures_line_up_and_what_is_missing_is_a_dash(phrases: PhraseEvaluation) -> None:
    lines = report.figure_table(phrases).splitlines()
    assert lines[0].split() == ["phrases.mean_iou", "0.5000", "mIoU", "at", "0.3"]
    assert lines[1].split() == ["phrases.boundary_f", "-", "F"]
    assert math.isnan(phrases.figures[1].value)
