# SPDX-License-Identifier: Apache-2.0
"""From the embedded CLIP, CRIS learns: on a few rendered scenes, it soon beats the best constant answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clip_seg_ros.data.folder import PhraseFolder
from clip_seg_ros.data.rendered_folder import write_rendered_folder
from clip_seg_ros.training.curve import CURVE_NAME, read_curve
from clip_seg_ros.training.methods import TrainConfig, build_recipe
from clip_seg_ros.training.runner import Runner

SIDE_PX = 64
RATE = {
    "batch": 4,
    "learning_rate": 1.0e-3,
    "warmup": {"steps": 4, "ratio": 0.2},
    "clip_norm": 1.0,
    "precision": "float32",
}
"""What a short run with small batches needs."""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """Four rendered scenes of 160x120, which are learnt by heart, each with the phrase of its largest mask."""
    folder = tmp_path_factory.mktemp("learning") / "scenes"
    list(write_rendered_folder(folder, 4, "table", size=(160, 120)))
    data = PhraseFolder(folder)
    areas = [sample.mask.sum() for sample in map(data.__getitem__, range(len(data)))]
    largest = [
        max((index for index, name in enumerate(data.pictures) if name == picture), key=areas.__getitem__)
        for picture in sorted(set(data.pictures))
    ]
    table = folder / "phrases.csv"
    head, *rows = table.read_text().splitlines()
    table.write_text("\n".join([head, *(rows[index] for index in largest)]))
    return folder


def terms_after(folder: Path, method: str, data: dict[str, str], recipe: dict, **sizes: Any) -> dict[str, float]:
    """Trains from the embedded CLIP, and returns the mean of each term of the loss over the last five steps."""
    values = {"method": method, "model": "clip-pocket", "name": "learnt", "data": data}
    values |= {"architecture": {"input_px": SIDE_PX, **sizes}, "recipe": {**RATE, **recipe}}
    made = build_recipe(TrainConfig.from_mapping(values), None, torch.device("cpu"))
    runner = Runner(made.module, folder / "state.pt", 0, log_dir=folder / "log", log_every=5)
    for stage in made.stages():
        runner.run(stage)
    return read_curve(folder / "log" / CURVE_NAME)[-1]["terms"]


def entropy(shares: np.ndarray) -> float:
    """The cross-entropy of the best constant answer, where classes have these shares of the pixels."""
    return float(-(shares * np.log(shares.clip(1e-9))).sum())


def mask_entropy(folder: Path, share_of_square: float = 1.0) -> float:
    masks = [sample.mask.mean() for sample in map(PhraseFolder(folder).__getitem__, range(len(PhraseFolder(folder))))]
    share = share_of_square * np.mean(masks)
    return entropy(np.array([share, 1 - share]))


def test_cris_learns_phrases(scenes: Path, tmp_path: Path) -> None:
    recipe = {"steps": 30, "milestones": [], "clip_factor": 1.0, "clip_factor_from": 0, "calm_start": True}
    recipe |= {"contrast_weight": 5.0, "dice_weight": 1.0}
    data = {"kind": "folder", "root": str(scenes)}
    terms = terms_after(tmp_path, "cris", data, recipe, dropout=0.0)
    # The image fills three quarters of the square.
    assert terms["contrast"] < 0.8 * 5.0 * mask_entropy(scenes, share_of_square=0.75)
