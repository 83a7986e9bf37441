# SPDX-License-Identifier: Apache-2.0
"""From the embedded CLIP, every method learns: on a few rendered scenes, it soon beats the best constant answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clip_seg_ros.data.folder import PhraseFolder
from clip_seg_ros.data.labelled_folder import LabelledFolder
from clip_seg_ros.data.rendered_folder import write_rendered_folder
from clip_seg_ros.models.student.model import Student, imagenet_input
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.sources.images import DatasetPictures
from clip_seg_ros.training.curve import CURVE_NAME, read_curve
from clip_seg_ros.training.distillation.maskclip_plus import MaskCLIPPlus, TrainSettings
from clip_seg_ros.training.distillation.pseudo_labels import Labeller, LabelSettings, label_pictures
from clip_seg_ros.training.methods import TrainConfig, build_recipe
from clip_seg_ros.training.runner import Runner
from clip_seg_ros.zoo.factory import build_segmenter

SIDE_PX = 64
RATE = {
    "batch": 4,
    "learning_rate": 1.0e-3,
    "warmup": {"steps": 4, "ratio": 0.2},
    "clip_norm": 1.0,
    "precision": "float32",
}
"""What a short run with small batches needs in every method."""


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
    """The entropy of the phrases' masks, if the images fill this share of the squares."""
    masks = [sample.mask.mean() for sample in map(PhraseFolder(folder).__getitem__, range(len(PhraseFolder(folder))))]
    share = share_of_square * np.mean(masks)
    return entropy(np.array([share, 1 - share]))


def class_entropy(folder: Path) -> float:
    """The entropy of the classes of all pixels."""
    data = LabelledFolder(folder)
    labels = np.concatenate([data[index].labels.ravel() for index in range(len(data))])
    counts = np.bincount(labels, minlength=256)[: len(data.class_names)]
    return entropy(counts / counts.sum())


def test_clipseg_learns_phrases(scenes: Path, tmp_path: Path) -> None:
    # Images' embeddings are seven times as long as phrases' in this CLIP, so that a mixture of both is hardly a phrase.
    recipe = {
        "steps": 100,
        "learning_rate": 3.0e-3,
        "text_weight": [1.0, 1.0],
        "negative_probability": 0.0,
        "threads": 1,
    }
    data = {"kind": "folder", "root": str(scenes)}
    terms = terms_after(tmp_path, "clipseg", data, recipe, feed_forward=128)
    assert terms["bce"] < 0.8 * mask_entropy(scenes)


def test_cris_learns_phrases(scenes: Path, tmp_path: Path) -> None:
    recipe = {"steps": 30, "milestones": [], "clip_factor": 1.0, "clip_factor_from": 0, "calm_start": True}
    recipe |= {"contrast_weight": 5.0, "dice_weight": 1.0}
    data = {"kind": "folder", "root": str(scenes)}
    terms = terms_after(tmp_path, "cris", data, recipe, dropout=0.0)
    # The image fills three quarters of the square.
    assert terms["contrast"] < 0.8 * 5.0 * mask_entropy(scenes, share_of_square=0.75)


def test_denseclip_learns_classes(scenes: Path, tmp_path: Path) -> None:
    recipe = {"steps": 25, "image_factor": 0.3}
    data = {"kind": "labelled_folder", "root": str(scenes)}
    terms = terms_after(tmp_path, "denseclip", data, recipe, input_px=96)
    assert terms["decode"] < 0.8 * class_entropy(scenes)


def test_the_detector_learns_objects(scenes: Path, tmp_path: Path) -> None:
    recipe = {"steps": 20, "image_factor": 0.3, "milestones": []}
    sizes = {"input_px": 96, "box_channels": 128, "mask_channels": 32, "proposals": 60, "sampled_boxes": 32}
    data = {"kind": "coco", "root": str(scenes), "task": "instances"}
    terms = terms_after(tmp_path, "denseclip-instances", data, recipe, **sizes)
    # Guesses have log 2 = 0.69 and log 9 = 2.2.
    assert terms["mask"] < 0.6
    assert terms["class"] < 0.8


def test_a_student_learns_the_labels_of_its_teacher(scenes: Path, tmp_path: Path) -> None:
    data = LabelledFolder(scenes)
    teacher = Predictor.from_name("maskclip-pocket", "cpu", engine="eager")
    labeller = Labeller(teacher, data.class_names, LabelSettings())
    pictures = label_pictures(DatasetPictures(data), labeller, tmp_path)
    visual = build_segmenter("maskclip-pocket").visual
    torch.manual_seed(0)
    student = Student.from_tower("student", visual, data.class_names, imagenet_input(SIDE_PX))
    settings = TrainSettings(50, batch=4, learning_rate=5e-3, crop_px=64)
    trainer = MaskCLIPPlus(student, pictures, pictures.indices, settings)
    trainer.run(Runner(student, tmp_path / "state.pt", 0, log_dir=tmp_path / "log", log_every=5))
    *counts, ignored = pictures.pixel_counts(len(data.class_names), pictures.indices)
    # Ignored pixels are a part of the mean, with a loss of 0.
    labelled = 1 - ignored / (sum(counts) + ignored)
    last = read_curve(tmp_path / "log" / CURVE_NAME)[-1]
    assert last["loss"] < 0.8 * labelled * entropy(np.array(counts) / sum(counts))
