# SPDX-License-Identifier: Apache-2.0
"""`clip-seg train` and `clip-seg distill` from one plain CLIP on a small data set in each published layout."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from clip_seg_ros.data.catalog import BUILDERS
from clip_seg_ros.models.checkpoints import load_safetensors
from clip_seg_ros.tools.cli import main
from published_classes import (
    write_ade20k,
    write_annotated,
    write_coco,
    write_coco20i,
    write_coco_stuff_10k,
    write_coco_stuff_164k,
    write_labelled_folder,
    write_panoptic,
    write_pascal5i,
    write_pascal_context,
)
from published_data import write_phrasecut, write_refcoco
from recipes import train, write_phrases, write_voc

Write = Callable[[Path], dict[str, Any]]
PHRASES: dict[str, Write] = {
    "phrasecut": write_phrasecut,
    "refcoco": write_refcoco,
    "folder": write_phrases,
    "pascal5i": write_pascal5i,
    "coco20i": write_coco20i,
    "coco": partial(write_coco, task="phrases"),
    "annotated": partial(write_annotated, task="phrases"),
    "panoptic": partial(write_panoptic, task="phrases"),
}
CLASSES: dict[str, tuple[Write, int]] = {
    "ade20k": (write_ade20k, 150),
    "voc": (write_voc, 21),
    "pascal_context": (write_pascal_context, 59),
    "coco_stuff_10k": (write_coco_stuff_10k, 171),
    "coco_stuff_164k": (write_coco_stuff_164k, 171),
    "labelled_folder": (write_labelled_folder, 2),
    "coco": (partial(write_coco, task="semantic"), 2),
    "annotated": (partial(write_annotated, task="semantic"), 2),
    "panoptic": (partial(write_panoptic, task="semantic"), 2),
}
"""How each is written, and the number of its classes."""
OBJECTS: dict[str, Write] = {
    "coco": partial(write_coco, task="instances"),
    "annotated": partial(write_annotated, task="instances"),
    "panoptic": partial(write_panoptic, task="instances"),
    "labelled_folder": lambda root: {**write_labelled_folder(root), "things": ["box"]},
}
MEASURED_ALONE = {"lvis_affordances"}
"""A test without training pictures."""


pytestmark = pytest.mark.usefixtures("settings_as_they_were")


def trained(folder: Path, method: str, clip_file: Path, data: dict[str, Any], **more: dict[str, Any]) -> dict[str, Any]:
    """Trains for two steps; returns the configuration of the weights."""
    recipe = {"steps": 2, "batch": 2, "precision": "float32"}
    values = {"method": method, "model": str(clip_file), "name": "mine", "data": data, "recipe": recipe, **more}
    assert train(folder, values) == 0
    return load_safetensors(folder / "out" / "mine.safetensors")[1]


def as_option(data: dict[str, Any]) -> str:
    """A data set as ``clip-seg evaluate --data`` takes it."""
    texts = {name: f"[{','.join(value)}]" if isinstance(value, list) else value for name, value in data.items()}
    options = "".join(f":{name}={value}" for name, value in texts.items() if name not in ("kind", "root"))
    return f"{data['kind']}:{data['root']}{options}"


def evaluate(folder: Path, data: dict[str, Any], *more: str) -> int:
    model = str(folder / "out" / "mine.safetensors")
    call = ["evaluate", "--model", model, "--data", as_option(data), "--limit", "1", "--device", "cpu"]
    return main([*call, *more])


def test_every_kind_is_trained_on() -> None:
    written = {*PHRASES, *CLASSES, *OBJECTS} - {"panoptic"}
    assert written == set(BUILDERS) - MEASURED_ALONE


@pytest.mark.parametrize("method", ["clipseg", "cris"])
@pytest.mark.parametrize("layout", PHRASES)
def test_phrases(tmp_path: Path, clip_file: Path, layout: str, method: str, capsys: pytest.CaptureFixture) -> None:
    data = PHRASES[layout](tmp_path / "data")
    assert trained(tmp_path, method, clip_file, data)["kind"] == method
    assert evaluate(tmp_path, data) == 0, capsys.readouterr().err


@pytest.mark.parametrize("layout", CLASSES)
def test_classes(tmp_path: Path, clip_file: Path, layout: str, capsys: pytest.CaptureFixture) -> None:
    write, count = CLASSES[layout]
    data = write(tmp_path / "data")
    config = trained(tmp_path, "denseclip", clip_file, data)
    assert len(config["denseclip"]["class_names"]) == count
    assert evaluate(tmp_path, data) == 0, capsys.readouterr().err


@pytest.mark.parametrize("layout", OBJECTS)
def test_objects(tmp_path: Path, clip_file: Path, layout: str, capsys: pytest.CaptureFixture) -> None:
    data = OBJECTS[layout](tmp_path / "data")
    small = {"input_px": 64, "pyramid_channels": 8, "box_channels": 16, "mask_channels": 8, "proposals": 20}
    config = trained(tmp_path, "denseclip-instances", clip_file, data, architecture=small)
    assert config["denseclip"]["class_names"] == ["box"]
    assert evaluate(tmp_path, data) == 0, capsys.readouterr().err


@pytest.mark.parametrize("layout", CLASSES)
def test_images_without_labels(tmp_path: Path, clip_file: Path, layout: str, capsys: pytest.CaptureFixture) -> None:
    write, count = CLASSES[layout]
    data, teacher, student = (
        write(tmp_path / "data"),
        tmp_path / "teacher.safetensors",
        tmp_path / "out/mine.safetensors",
    )
    assert main(["weights", "convert", str(clip_file), "--out", str(teacher)]) == 0, capsys.readouterr().err
    call = ["distill", "--teacher", str(teacher), "--data", as_option(data), "--network", "teacher", "--size", "64"]
    # A teacher of random weights is sure of nothing.
    call += [
        "--names",
        "maskclip",
        "--confidence",
        "0",
        "--denoising",
        "0",
        "--no-background",
        "--steps",
        "2",
        "--batch",
        "2",
    ]
    assert main([*call, "--out", str(student), "--device", "cpu"]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) < 500, "the classes that no picture shows are not told one by one"
    assert "nan" not in said
    assert len(load_safetensors(student)[1]["student"]["class_names"]) <= count
    assert evaluate(tmp_path, data) == 0, capsys.readouterr().err
