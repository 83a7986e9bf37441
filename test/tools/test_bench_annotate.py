# SPDX-License-Identifier: Apache-2.0
"""``clip-seg bench annotate``, briefly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clip_seg_ros.tools.bench_annotate import draw_video, measured_here
from clip_seg_ros.tools.cli import main


def test_a_process_measures_itself(tmp_path: Path) -> None:
    video = draw_video(tmp_path / "short.mp4", 5)

    measured = measured_here("alone", 1, str(video), str(tmp_path / "out"), 3, writes=True)

    assert measured.images == 5
    assert measured.shards == 2
    assert 0 < measured.work_s <= measured.whole_s
    assert measured.worker_s == pytest.approx(measured.work_s, rel=0.2)
    assert measured.format_s > 0
    assert (tmp_path / "out" / "annotations" / "instances_default.json").is_file()


def test_a_plan_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "plan.json"

    assert main(["bench", "annotate", "--plan", "--assume", "images_s=50", "driver_ms=900", "--json", str(file)]) == 0

    figures = {each["name"]: each["value"] for each in json.loads(file.read_text())}
    assert figures["annotate.plan.hours"] > 0
    assert figures["annotate.plan.bottleneck_workers"] < 100
    assert "until the driver's part in shards is the limit" in capsys.readouterr().out


def test_an_unknown_assumption_is_refused(capsys: pytest.CaptureFixture) -> None:
    assert main(["bench", "annotate", "--plan", "--assume", "speed=3"]) == 1
    assert "no assumption speed" in capsys.readouterr().err
