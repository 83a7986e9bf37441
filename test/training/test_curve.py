# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from pathlib import Path

import pytest

from clip_seg_ros.training.curve import CURVE_NAME, Curve, LossMeans, read_curve


def write(folder: Path, stage: str, steps: range, finished: tuple[str, ...] = ()) -> None:
    curve = Curve(folder, stage, steps.start, finished)
    for step in steps:
        curve.add(step, 0.1, {"bce": 1.0 + step, "dice": 0.5})
    curve.close()


def board_steps(folder: Path) -> list[int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "learning_rate", "terms/bce", "terms/dice"}
    return [event.step for event in events.Scalars("loss")]


def test_points_behind_the_step_that_a_run_goes_on_at_are_not_doubled(tmp_path: Path) -> None:
    write(tmp_path, "first", range(6))
    write(tmp_path, "second", range(5), ("first",))
    write(tmp_path, "second", range(3, 8), ("first",))
    points = read_curve(tmp_path / CURVE_NAME)
    assert [(p["stage"], p["step"]) for p in points] == [("first", n) for n in range(6)] + [
        ("second", n) for n in range(8)
    ]
    terms = {"bce": 2.0, "dice": 0.5}
    assert points[7] == {"stage": "second", "step": 1, "learning_rate": 0.1, "loss": 2.5, "terms": terms}
    assert board_steps(tmp_path / "first") == list(range(6))
    assert board_steps(tmp_path / "second") == list(range(8))


def test_a_run_that_starts_anew_starts_the_curve_anew(tmp_path: Path) -> None:
    write(tmp_path, "first", range(6))
    write(tmp_path, "second", range(5), ("first",))
    write(tmp_path, "first", range(2))
    assert [(p["stage"], p["step"]) for p in read_curve(tmp_path / CURVE_NAME)] == [("first", 0), ("first", 1)]


def test_a_line_that_was_cut_short_is_dropped(tmp_path: Path) -> None:
    write(tmp_path, "first", range(3))
    with (tmp_path / CURVE_NAME).open("a") as file:
        file.write('{"stage": "first", "st')
    write(tmp_path, "first", range(3, 5))
    assert [p["step"] for p in read_curve(tmp_path / CURVE_NAME)] == [0, 1, 2, 3, 4]


def test_without_tensorboard_there_is_still_a_curve(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.warns(UserWarning, match="TensorBoard is not installed"):
        write(tmp_path, "first", range(3))
    assert len(read_curve(tmp_path / CURVE_NAME)) == 3
    assert not (tmp_path / "first").exists()


def test_means_are_those_since_the_last_point() -> None:
    means = LossMeans()
    for value in (1.0, 2.0, 6.0):
        means.add({"a": value})
    resumed = LossMeans(means.state_dict())
    assert means.take() == {"a": 3.0} == resumed.take()
    means.add({"a": 10.0})
    assert means.take() == {"a": 10.0}
    assert resumed.running == {"a": pytest.approx(0.98 * (0.98 + 0.04) + 0.02 * 6)}
