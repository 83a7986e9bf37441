# SPDX-License-Identifier: Apache-2.0
"""Real processes, killed with SIGKILL in the middle of a training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from clip_seg_ros.training import runner as runner_module
from clip_seg_ros.training.curve import CURVE_NAME, read_curve
from clip_seg_ros.training.optimizer import Schedule, rising
from clip_seg_ros.training.runner import Runner, Stage

KILLS = 4
STEPS = 120


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 1))


def train(folder: Path, pause_s: float) -> nn.Module:
    """Two stages of a small training whose state is saved often."""
    torch.set_num_threads(1)
    runner_module._SAVE_EVERY_S = 0.02
    model = make_model()

    def loss(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        time.sleep(pause_s)
        x = torch.from_numpy(rng.normal(size=(16, 3)).astype("float32"))
        return {"fit": (model(x) - x.sum(1, keepdim=True)).square().mean(), "size": 0.01 * model[0].weight.abs().sum()}

    runner = Runner(model, folder / "state.pt", 0, log_dir=folder / "log", log_every=4)
    runner.run(Stage("first", STEPS, 0.05, 0.01, model, loss, warmup=rising(5)))
    second = Schedule("milestones", milestones=(STEPS // 2,))
    runner.run(Stage("second", STEPS, 0.01, 0.01, model, loss, schedule=second, rate_factors=(("0.", 0.1),)))
    return model


def nursery(folder: Path) -> None:
    """Forks a training for each line that it reads, says its process id, and when it has ended its status."""
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            train(folder, 0.003)
            os._exit(0)
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)


def wait_for_progress(state_file: Path, before: int | None) -> None:
    """Until a training has saved its state again."""
    deadline = time.monotonic() + 300
    while not state_file.exists() or state_file.stat().st_mtime_ns == before:
        assert time.monotonic() < deadline, "the training does not get on"
        time.sleep(0.001)


@pytest.fixture
def keep_settings(monkeypatch):
    """Puts back what ``train`` sets for the whole process."""
    monkeypatch.setattr(runner_module, "_SAVE_EVERY_S", -1.0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("keep_settings")
def test_a_training_that_is_killed_again_and_again_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    # Not above: this file is also a program, that knows nothing of the tests' shared folder.
    from nearness import assert_same_training

    state_file = tmp_path / "killed" / "state.pt"
    process = subprocess.Popen(
        [sys.executable, __file__, tmp_path / "killed"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    whole = train(tmp_path / "whole", 0.0)
    try:
        for delay in np.random.default_rng(0).uniform(0, 0.1, KILLS):
            before = state_file.stat().st_mtime_ns if state_file.exists() else None
            print(file=process.stdin, flush=True)
            child = int(process.stdout.readline())
            wait_for_progress(state_file, before)
            time.sleep(delay)
            os.kill(child, signal.SIGKILL)
            assert os.WTERMSIG(int(process.stdout.readline())) == signal.SIGKILL, "it ended before it was killed"
    finally:
        process.stdin.close()
        process.wait()
    assert not torch.load(state_file, weights_only=True)["done"].get("second"), "it was killed in the middle"
    resumed = train(tmp_path / "killed", 0.0)

    assert_same_training(whole.state_dict(), resumed.state_dict(), make_model().state_dict())
    expected, found = (read_curve(tmp_path / run / "log" / CURVE_NAME) for run in ("whole", "killed"))
    assert len(expected) == 2 * -(-STEPS // 4)
    for one, other in zip(expected, found, strict=True):
        assert (one["step"], one["stage"]) == (other["step"], other["stage"])
        assert other["terms"] == pytest.approx(one["terms"], rel=1e-3)


if __name__ == "__main__":
    # What a training imports late, once instead of in every child.
    import torch.utils.tensorboard

    torch.optim.AdamW(make_model().parameters())

    nursery(Path(sys.argv[1]))
