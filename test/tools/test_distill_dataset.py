# SPDX-License-Identifier: Apache-2.0
"""`clip-seg distill --dataset`: a network from annotations, without a teacher."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from annotated_run import PHRASES, Run, rendered_run
from clip_seg_ros.annotation.formats import FORMATS
from clip_seg_ros.annotation.layout import COCO
from clip_seg_ros.data.samples import IGNORED, read_labels
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.tools.cli import main
from small_teacher import SMALL

Call = Callable[..., int]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = rendered_run(tmp_path_factory.mktemp("run"), {"kitchen.left": 10})
    FORMATS["coco"](made.out, made.frames, made.job)
    return made


@pytest.fixture
def call(run: Run, tmp_path: Path) -> Call:
    """Calls the command with few steps; later arguments win over earlier ones."""

    def call(*more: object) -> int:
        few = ["--network", SMALL, "--size", 64, "--steps", 2, "--batch", 2, "--device", "cpu"]
        usual = ["distill", "--dataset", run.out, "--out", tmp_path / "mine.safetensors", *few]
        return main([str(value) for value in (*usual, *more)])

    return call


def test_from_annotations_to_a_model_that_is_served(
    call: Call, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert call() == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "10 annotated pictures" in said
    assert "on 2 pictures of the last fifth of the time" in said
    assert "mean IoU" in said
    predictor = Predictor.from_name(str(tmp_path / "mine.safetensors"), "cpu", engine="eager")
    assert predictor.spec.class_names == ("background", *PHRASES)
    assert predictor.predict(np.zeros((48, 64, 3), np.uint8), ["book"]).values.shape == (1, 48, 64)


def test_doubtful_pixels_are_not_learnt(call: Call, run: Run, tmp_path: Path) -> None:
    assert call() == 0
    for number, frame in enumerate(run.images):
        labels = read_labels(tmp_path / "mine.work" / "labels" / f"{number:06d}.png")
        doubtful = [thing.mask(frame.size) for thing in frame.objects if thing.band == "doubtful"]
        assert np.array_equal(labels == IGNORED, np.logical_or.reduce([np.zeros(frame.size, bool), *doubtful]))


def test_some_of_the_phrases(call: Call, tmp_path: Path) -> None:
    assert call("--classes", "cup,book") == 0
    predictor = Predictor.from_name(str(tmp_path / "mine.safetensors"), "cpu", engine="eager")
    assert predictor.spec.class_names == ("background", "cup", "book")


def test_self_training_chooses_on_other_pictures_than_it_measures(call: Call, capsys: pytest.CaptureFixture) -> None:
    assert call("--self-share", 0.5, "--steps", 4) == 0
    said = capsys.readouterr().out
    assert "before self-training" in said
    assert "on 1 pictures of the last fifth" in said


def test_other_annotations_need_another_folder(
    call: Call, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert call() == 0
    before = (run.out / COCO).read_text(encoding="utf-8")
    content = json.loads(before)
    content["annotations"].pop()
    (run.out / COCO).write_text(json.dumps(content), encoding="utf-8")
    try:
        assert call() == 2
    finally:
        (run.out / COCO).write_text(before, encoding="utf-8")
    assert "labels that were made with other dataset" in capsys.readouterr().err


@pytest.mark.parametrize("option", [("--labels", "views"), ("--denoising", 0.1), ("--unseen", "cup"), ("--every", 2)])
def test_options_of_a_teacher_are_refused(
    call: Call, option: tuple[str, object], capsys: pytest.CaptureFixture
) -> None:
    assert call(*option) == 2
    assert f"{option[0]} does not go with --dataset" in capsys.readouterr().err


def test_a_folder_that_holds_no_annotations(call: Call, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert call("--dataset", tmp_path) == 2
    assert "clip-seg annotate writes it" in capsys.readouterr().err
