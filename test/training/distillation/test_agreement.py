# SPDX-License-Identifier: Apache-2.0
import copy
import shutil

import pytest
import torch

from clip_seg_ros.data.samples import read_rgb
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.training.distillation.agreement import agreement, keep_the_better, likeliest, median_ms
from clip_seg_ros.training.distillation.examples import example_grid
from clip_seg_ros.training.distillation.pseudo_labels import LabelledPictures
from clip_seg_ros.zoo.factory import build_segmenter
from small_teacher import save_teacher, write_pictures


@pytest.fixture
def teacher(tmp_path):
    return save_teacher(tmp_path / "teacher.safetensors")


@pytest.fixture
def labelled(teacher, tmp_path):
    """One picture, labelled by the teacher without a doubt."""
    pictures = write_pictures(tmp_path / "pictures", 1)
    found = LabelledPictures(tmp_path / "work", (0,), ())
    found.write_labels(
        0, "labels", likeliest(Predictor.from_name(str(teacher), "cpu", engine="eager"), read_rgb(pictures / "0.png"))
    )
    (tmp_path / "work" / "pictures").mkdir()
    shutil.copy(pictures / "0.png", tmp_path / "work" / "pictures" / "000000.png")
    return found


def test_agreement_counts_sure_pixels_alone(teacher, labelled):
    predictor = Predictor.from_name(str(teacher), "cpu", engine="eager")
    labels = labelled.labels(0)
    labels[16:] = (labels[16:] + 1) % 3
    labels[32:] = 255
    labelled.write_labels(0, "labels", labels)
    assert agreement(predictor, labelled, [0]).pixel_accuracy == 0.5
    grid = example_grid(predictor, labelled, [0])
    assert grid.shape == (284, 960, 3)
    # Ignored pixels are dark.
    assert (grid[22 + 200, 320 + 100] <= 0.35 * grid[22 + 200, 100] + 0.65 * 40 + 3).all()


def test_whole_answers_are_timed(teacher, labelled):
    predictor = Predictor.from_name(str(teacher), "cpu", engine="eager")
    assert 0 < median_ms(predictor, predictor.spec.class_names, labelled, [0, 0]) < 1e5


def test_self_training_that_forgets_is_undone(teacher, labelled, capsys):
    good = build_segmenter(str(teacher))
    bad = build_segmenter(str(teacher))
    bad.network.head.conv_seg.bias.data[:] = torch.tensor([0.0, 0.0, 1e4])
    for student, guided, kept in ((bad, good, good), (good, bad, good), (good, None, good)):
        student, wanted = copy.deepcopy(student), kept.network.head.conv_seg.bias.clone()
        keep_the_better(student, guided and guided.state_dict(), "cpu", labelled, [0])
        assert student.network.head.conv_seg.bias.equal(wanted)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2
    assert "the network from before is kept" in said[0]
    assert "kept" not in said[1]
