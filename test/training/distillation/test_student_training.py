# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from clip_seg_ros.models.student.model import Student, StudentConfig, imagenet_input
from clip_seg_ros.training.distillation.student_training import StudentSettings, StudentTraining
from nearness import assert_near


@pytest.fixture
def student():
    torch.manual_seed(0)
    return Student("s", StudentConfig("timm:mobilenetv3_small_050", ("a", "b"), imagenet_input(96)))


def test_the_authors_descent_is_theirs(student):
    stage = StudentTraining(student, StudentSettings(20_000, optimizer="sgd")).stage("fit", 20_000, lambda rng: {})
    assert (stage.learning_rate, stage.momentum, stage.weight_decay) == (0.01, 0.9, 5e-4)
    assert stage.clip_norm is None
    assert stage.warmup.share(0) == 1
    assert stage.decay == "all"
    for step in (0, 1, 10_000, 19_999):
        expected = (0.01 - 1e-4) * (1 - step / 20_000) ** 0.9 + 1e-4
        rate = stage.schedule.least + (0.01 - stage.schedule.least) * stage.schedule.share(step, 20_000)
        assert rate == pytest.approx(expected)


def test_the_usual_optimizer_is_that_of_small_runs(student):
    stage = StudentTraining(student, StudentSettings(9)).stage("fit", 9, lambda rng: {}, begin=print)
    assert (stage.learning_rate, stage.momentum, stage.weight_decay, stage.clip_norm) == (2e-3, None, 0.01, 1.0)
    assert stage.begin is print
    assert StudentTraining(student, StudentSettings(9, learning_rate=0.5)).stage("f", 9, dict).learning_rate == 0.5


def test_views_become_logits_in_training_mode(student):
    training = StudentTraining(student, StudentSettings(9, crop_px=64))
    rgb = np.random.default_rng(0).integers(0, 255, (96, 120, 3), np.uint8)
    labels = np.ones((96, 120), np.uint8)
    view, view_labels = training.view(rgb, labels, np.random.default_rng(0))
    assert view.shape == (64, 64, 3)
    assert view_labels.shape == (64, 64)
    torch.manual_seed(1)
    logits = training.logits([view, view])
    assert student.training
    assert logits.shape[:2] == (2, 2)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (student.input_spec.mean, student.input_spec.std))
    pixels = (torch.from_numpy(np.stack([view, view])).permute(0, 3, 1, 2) / 255.0 - mean) / std
    torch.manual_seed(1)
    assert_near(logits.detach(), student.encode_image(pixels).logits.detach())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"steps": 0}, "needed are 1 step"),
        ({"batch": 1}, "batches of 2"),
        ({"optimizer": "adam"}, 'no optimizer "adam": use adamw or sgd'),
        ({"scales": (2.0, 1.0)}, "from a small number to a larger one"),
        ({"crop_px": 100}, "multiple of 32 pixels, not 100"),
    ],
)
def test_settings_that_cannot_be_trained_with(wrong, said):
    with pytest.raises(ValueError, match=said):
        StudentSettings(**{"steps": 9, **wrong})
