# SPDX-License-Identifier: Apache-2.0
"""`clip-seg train` in two processes, started by torchrun, against one. This file is also the program that they run.

What is compared is the contrast loss of every step of cris-pocket, which is a mean over pixels, with BatchNorm as in
use: in training mode each process would normalise by its own share, and the curves would agree only roughly.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from clip_seg_ros.data import tabletop
from clip_seg_ros.models.checkpoints import load_safetensors
from clip_seg_ros.tools.cli import main
from clip_seg_ros.training import runner
from clip_seg_ros.training.curve import CURVE_NAME, read_curve
from clip_seg_ros.zoo.factory import build_segmenter

STEPS = 4
RECIPE = {
    "train": {"steps": STEPS, "batch": 4, "learning_rate": 1.0e-2, "precision": "float32"},
    "phrases": 2,
    "scene_px": [64, 64],
    "fpn_out": [16, 32, 32],
    "feed_forward": 32,
    "input_px": 64,
}


def train(folder: Path, start: Path) -> int:
    """Trains with everything in ``folder``, with a point of the curve for every step."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"method": "cris-pocket", "scenes": 6, "start": str(start), "recipe": RECIPE}))
    places = ["--out", str(folder / "out"), "--work", str(folder / "work"), "--device", "cpu", "--threads", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tabletop, "SHARD_SCENES", 6)
        for norm in (nn.BatchNorm1d, nn.BatchNorm2d):
            patch.setattr(norm, "train", lambda self, mode=True: nn.Module.train(self, False))
        patch.setattr(runner.Runner.__init__, "__defaults__", ("", None, 1))
        return main(["train", str(recipe), *places])


@pytest.fixture(scope="module")
def folders(pocket_folder: Path, tmp_path_factory) -> list[Path]:
    """What one process left, and what two did."""
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    threads = torch.get_num_threads()
    assert train(one, pocket_folder) == 0
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    result = subprocess.run(
        [*command, __file__, str(two), str(pocket_folder)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("weights written to") == 1, "by the first process alone"
    return [one, two]


def test_two_processes_give_the_curve_of_one(folders: list[Path]) -> None:
    one, two = (read_curve(folder / "work" / "log" / CURVE_NAME) for folder in folders)
    assert [point["step"] for point in two] == list(range(STEPS))
    for expected, found in zip(one, two, strict=True):
        assert found["terms"] == pytest.approx(expected["terms"], rel=1e-4)
    losses = [point["loss"] for point in one]
    assert abs(losses[-1] - losses[0]) > 0.02 * losses[0], "the weights change what comes out"


def test_two_processes_write_the_weights_of_one(folders: list[Path]) -> None:
    (expected, _), (found, _) = (load_safetensors(folder / "out" / "cris_pocket.safetensors") for folder in folders)
    for name, value in expected.items():
        # The steps are 1e-4 to 4e-4 long.
        assert (found[name] - value).float().abs().mean() < 2e-6, name
    assert build_segmenter("cris-pocket", folders[1] / "out").input_spec.size == 64
    records = [json.loads((folder / "out" / "cris-pocket.json").read_text()) for folder in folders]
    assert [record["processes"] for record in records] == [1, 2]


if __name__ == "__main__":
    sys.exit(train(Path(sys.argv[1]), Path(sys.argv[2])))
