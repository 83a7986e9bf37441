# SPDX-License-Identifier: Apache-2.0
"""Two real processes, started by torchrun, against one. This file is also the program that they run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from clip_seg_ros.training import distributed
from clip_seg_ros.training.curve import CURVE_NAME, read_curve
from clip_seg_ros.training.losses import text_to_pixel_loss
from clip_seg_ros.training.optimizer import rising
from clip_seg_ros.training.recipes.sampling import EpochSampler, sample_rngs
from clip_seg_ros.training.runner import Runner, Stage

STEPS, BATCH, SAMPLES = 30, 8, 20


class Small(nn.Module):
    """Parts that a loss calls one by one; ``rare`` only by the first half of a batch, ``never`` not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 6, 3, padding=1)
        self.head = nn.Conv2d(6, 1, 1)
        self.rare = nn.Linear(1, 1)
        self.never = nn.Linear(2, 2)


def picture(index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A noisy picture and the mask of what is bright in its first channel."""
    clean = np.random.default_rng(index).random((3, 12, 12), np.float32)
    return clean + 0.1 * rng.random((3, 12, 12), np.float32), (clean[0] > 0.6).astype(np.float32)


def train(folder: Path) -> None:
    """Trains ``Small`` with CRIS's loss, and writes what this process ended with."""
    # Each process starts with other weights: the first one's must count.
    torch.manual_seed(distributed.rank())
    model = Small()
    sampler, batch = EpochSampler(SAMPLES, BATCH, 1), []

    def loss(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        mine = distributed.share(list(zip(batch, sample_rngs(rng, BATCH), strict=True)))
        pictures, masks = zip(*(picture(index, own) for index, own in mine), strict=True)
        logits = model.head(model.features(torch.from_numpy(np.stack(pictures))).relu())[:, 0]
        terms = {"t2p": text_to_pixel_loss(logits, torch.from_numpy(np.stack(masks))), "rare": 0.0 * logits.sum()}
        if distributed.rank() == 0:
            # The mean over the processes is what one process would have.
            seldom = model.rare(torch.ones(1, 1)).square().sum()
            terms["rare"] = terms["rare"] + 0.01 * distributed.world_size() * seldom
        return terms

    def draw(number: int) -> None:
        batch[:] = sampler.indices(number)

    runner = Runner(model, folder / "state.pt", 0, log_dir=folder, log_every=1)
    runner.run(Stage("fit", STEPS, 0.05, 0.01, model, loss, warmup=rising(3), before_batch=draw))
    weights = {name: value.flatten().tolist() for name, value in model.state_dict().items()}
    (folder / f"rank{distributed.rank()}.json").write_text(json.dumps(weights))


def gather_statistics(folder: Path) -> None:
    """Each process's BatchNorm sees its own numbers; the state holds their mean."""
    model = nn.BatchNorm1d(2)
    numbers = torch.randn(16, 2, generator=torch.Generator().manual_seed(3))

    def loss(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        return {"x": model(distributed.share(numbers)).square().mean()}

    Runner(model, folder / "norm.pt", 0).run(Stage("fit", 3, 0.0, 0.0, model, loss))


def fail(folder: Path) -> None:
    """The last process stops in the middle; the first says that it lost it."""
    if distributed.rank() == 0:
        # torchrun would end it at once, mostly before it notices.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    model = nn.Linear(1, 1)

    def loss(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        if distributed.rank() == 1:
            raise OSError("the picture 17.jpg is missing")
        return {"x": model(torch.ones(1, 1)).sum()}

    try:
        Runner(model, folder / "fail.pt", 0).run(Stage("fit", 5, 0.1, 0.0, model, loss))
    except distributed.ProcessLost as error:
        (folder / "lost").write_text(str(error))
        raise


def refuse(folder: Path) -> None:
    """Only the first process sees the state file, and it is damaged: each must say so."""
    if distributed.rank() == 0:
        (folder / "state.pt").write_bytes(b"no state")
    try:
        Runner(nn.Linear(1, 1), folder / ("state.pt" if distributed.rank() == 0 else "other.pt"), 0)
    except ValueError as error:
        (folder / f"refused{distributed.rank()}").write_text(str(error))


@dataclass(frozen=True)
class Together:
    """What two processes left."""

    folder: Path
    code: int
    stderr: str


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> Together:
    """Everything in one start of two processes, which takes seconds: it ends when one of them fails."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    result = subprocess.run(
        [*command, __file__, str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return Together(folder, result.returncode, result.stderr)


def test_two_processes_give_the_curve_of_one(together: Together, tmp_path: Path) -> None:
    train(tmp_path)
    one, two = (read_curve(folder / CURVE_NAME) for folder in (tmp_path, together.folder))
    assert [point["step"] for point in two] == list(range(STEPS)), "only the first process writes the curve"
    for expected, found in zip(one, two, strict=True):
        assert found["terms"] == pytest.approx(expected["terms"], rel=1e-4)
    assert one[-1]["terms"]["t2p"] < 0.8 * one[0]["terms"]["t2p"]


def test_two_processes_end_with_the_same_weights_as_one(together: Together, tmp_path: Path) -> None:
    train(tmp_path)
    expected = json.loads((tmp_path / "rank0.json").read_text())
    first, second = (json.loads((together.folder / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first.keys() == second.keys() == expected.keys()
    for name, values in expected.items():
        assert first[name] == pytest.approx(second[name], abs=1e-6), name
        assert first[name] == pytest.approx(values, abs=1e-4), name


def test_statistics_are_the_mean_over_the_processes(together: Together) -> None:
    state = torch.load(together.folder / "norm.pt", weights_only=True)["model"]
    numbers = torch.randn(16, 2, generator=torch.Generator().manual_seed(3))
    means = torch.stack([half.mean(0) for half in numbers.split(8)]).mean(0)
    variances = torch.stack([half.var(0) for half in numbers.split(8)]).mean(0)
    # Three steps of momentum 0.1 from 0 and 1.
    # Numbers of about 1.
    torch.testing.assert_close(state["running_mean"], (1 - 0.9**3) * means, rtol=0, atol=1e-5)
    torch.testing.assert_close(state["running_var"], 0.9**3 + (1 - 0.9**3) * variances, rtol=0, atol=1e-5)


def test_a_damaged_state_is_said_by_every_process(together: Together) -> None:
    first, second = ((together.folder / f"refused{rank}").read_text() for rank in (0, 1))
    assert first == second
    assert "no training state that can be read" in first


def test_a_process_that_fails_stops_the_others(together: Together) -> None:
    assert together.code != 0
    assert "the picture 17.jpg is missing" in together.stderr
    lost = (together.folder / "lost").read_text()
    assert "process 0 of 2 waited for the others in vain: one of them stopped" in lost


def test_alone_everything_is_as_it_was() -> None:
    layer = nn.Linear(2, 1)
    with distributed.joined(torch.device("cpu")) as device:
        assert device == torch.device("cpu")
        assert (distributed.rank(), distributed.world_size()) == (0, 1)
        assert distributed.share([1, 2, 3]) == [1, 2, 3]
        distributed.average_gradients(list(layer.parameters()))
        assert layer.weight.grad is None
        assert distributed.decided_by_first(True, device)
        assert not distributed.decided_by_first(False, device)


def test_a_batch_that_cannot_be_shared_equally_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 4)
    with pytest.raises(ValueError, match="a batch of 10 cannot be shared equally by 4 processes"):
        distributed.share(np.arange(10))


def test_norms_are_synchronised_on_gpus_alone(monkeypatch) -> None:
    def norms(world: int, device: str) -> set[type]:
        monkeypatch.setattr(distributed, "world_size", lambda: world)
        model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(nn.BatchNorm2d(2)))
        weight = model[1][0].weight
        distributed.synchronise_norms(model, torch.device(device))
        assert model[1][0].weight is weight, "the optimiser may know it already"
        return {type(part) for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)}

    assert norms(2, "cuda:0") == {nn.SyncBatchNorm}
    assert norms(2, "cpu") == norms(1, "cuda:0") == {nn.BatchNorm2d}


if __name__ == "__main__":
    root = Path(sys.argv[1])
    with distributed.joined(torch.device("cpu"), timeout_s=120):
        train(root)
        gather_statistics(root)
        refuse(root)
        fail(root)
