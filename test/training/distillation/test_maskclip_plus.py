# SPDX-License-Identifier: Apache-2.0
import cv2
import numpy as np
import pytest
import torch
from torch import nn

from clip_seg_ros.data.samples import IGNORED, DataError
from clip_seg_ros.models.student.model import Student, StudentConfig, imagenet_input
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.training import runner
from clip_seg_ros.training.distillation.maskclip_plus import MaskCLIPPlus, TrainSettings
from clip_seg_ros.training.distillation.pseudo_labels import LabelledPictures, Labeller, LabelSettings
from clip_seg_ros.training.runner import Runner
from color_segmenter import ColorSegmenter
from nearness import assert_same_training

CLASSES = ("red", "green", "blue", "background")
COLORS = np.array([(200, 30, 30), (30, 200, 30), (30, 30, 200), (120, 120, 120)], np.uint8)


@pytest.fixture
def labelled(tmp_path):
    """Twelve pictures of squares on grey, as labelling leaves them."""
    pictures = LabelledPictures(tmp_path / "work", tuple(range(12)), ())
    (pictures.folder / "pictures").mkdir(parents=True)
    for index in pictures.indices:
        rng = np.random.default_rng(index)
        labels = np.full((64, 80), 3, np.uint8)
        for left, place in zip((4, 30, 56), rng.permutation(3), strict=True):
            top = int(rng.integers(4, 40))
            labels[top : top + 20, left : left + 20] = place
        rgb = COLORS[labels] + rng.integers(0, 20, (64, 80, 3), np.uint8)
        cv2.imwrite(str(pictures.folder / "pictures" / f"{index:06d}.png"), rgb[..., ::-1])
        labels[:, 28:30] = IGNORED
        pictures.write_labels(index, "labels", labels)
    return pictures


def make_student():
    """A student whose network is enough for colours, and fast."""
    torch.manual_seed(0)
    student = Student("s", StudentConfig("timm:mobilenetv3_small_050", CLASSES, imagenet_input(64)))
    layers = nn.Conv2d(3, 16, 3, padding=1, stride=2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, len(CLASSES), 1)
    student.network = nn.Sequential(*layers)
    return student


class Killed(Exception):
    pass


def train(labelled, settings, state_file, die_at=None):
    student = make_student()
    trainer = MaskCLIPPlus(student, labelled, labelled.split().trained, settings)
    judge, calls = trainer._terms, iter(range(10**6))

    def terms(part, rng):
        if next(calls) == die_at:
            raise Killed
        return judge(part, rng)

    trainer._terms = terms
    trainer.run(Runner(student, state_file, 0))
    return student, trainer


@pytest.mark.parametrize("die_at", [1, 3, 4, 6])
@pytest.mark.parametrize("save_every_s", [-1.0, 1e9])
def test_a_killed_run_ends_where_an_undisturbed_one_does(labelled, tmp_path, monkeypatch, die_at, save_every_s):
    monkeypatch.setattr(runner, "_SAVE_EVERY_S", save_every_s)
    settings = TrainSettings(7, self_share=0.57, batch=2, confidence=0.0)  # 3, 2 and 2 steps
    whole, _ = train(labelled, settings, tmp_path / "whole.pt")
    with pytest.raises(Killed):
        train(labelled, settings, tmp_path / "broken.pt", die_at)
    resumed, _ = train(labelled, settings, tmp_path / "broken.pt")
    assert not resumed.training
    start = make_student().state_dict()
    assert_same_training(whole.state_dict(), resumed.state_dict(), start)
    again, _ = train(labelled, settings, tmp_path / "broken.pt", die_at=0)
    assert_same_training(whole.state_dict(), again.state_dict(), start)


def test_the_student_learns_classes_that_hold_on_pictures_it_never_saw(labelled, tmp_path):
    settings = TrainSettings(80, self_share=0.2, batch=4, learning_rate=0.03)
    student, _ = train(labelled, settings, tmp_path / "state.pt")
    predictor = Predictor.from_model(student, "cpu")
    held_out = labelled.split().measured
    found = np.stack([predictor.predict(labelled.rgb(i), CLASSES).values.argmax(axis=0) for i in held_out])
    true = np.stack([labelled.labels(i) for i in held_out])
    for place, name in enumerate(CLASSES):
        assert (found[true == place] == place).mean() > 0.7, name


def test_self_training_takes_the_labels_of_the_round_and_no_others(labelled, tmp_path):
    settings = TrainSettings(4, self_share=0.5, rounds=2, batch=2, confidence=0.0)
    _, trainer = train(labelled, settings, tmp_path / "state.pt")
    guided = make_student()
    guided.load_state_dict(trainer.guided_weights())
    first = MaskCLIPPlus(guided, labelled, (1,), settings).own_labels(labelled.rgb(1))
    # Rounding may tip a pixel where two classes are equal.
    assert np.mean(labelled.labels(1, "self_1") == first) > 0.99
    assert labelled.has_labels(1, "self_2")
    assert np.mean(labelled.labels(1) == first) < 0.9
    assert not labelled.has_labels(0, "self_1")  # held out
    # Without the teacher's labels the second phase goes on, the first does not.
    for path in (labelled.folder / "labels").glob("*.png"):
        path.unlink()
    trainer._terms("self_1", np.random.default_rng(0))
    with pytest.raises(DataError, match="is missing"):
        trainer._terms("labels", np.random.default_rng(0))


def test_own_labels_are_what_a_predictor_says_where_the_student_is_sure(labelled):
    student, rgb = make_student(), labelled.rgb(2)
    trainer = MaskCLIPPlus(student, labelled, (1,), TrainSettings(1, confidence=0.3))
    values = Predictor.from_model(student, "cpu").predict(rgb, CLASSES).values
    expected = np.where(values.max(axis=0) >= 0.3, values.argmax(axis=0), IGNORED)
    assert set(np.unique(expected)) > {IGNORED}
    assert (trainer.own_labels(rgb) == expected).mean() > 0.99  # a picture may be resized twice, or once


def test_a_training_from_the_start_forgets_the_rounds_of_an_earlier_one(labelled, tmp_path):
    settings = TrainSettings(4, self_share=0.5, batch=2, confidence=0.0)
    train(labelled, settings, tmp_path / "state.pt")
    labelled.write_labels(1, "self_1", np.zeros((64, 80), np.uint8))
    (tmp_path / "state.pt").unlink()
    _, trainer = train(labelled, settings, tmp_path / "state.pt")
    assert labelled.labels(1, "self_1").any()
    assert trainer.guided_weights() is not None
    (tmp_path / "state.pt").unlink()
    _, trainer = train(labelled, TrainSettings(2, self_share=0.0, batch=2), tmp_path / "state.pt")
    assert trainer.guided_weights() is None
    assert not list(labelled.folder.glob("self_*"))


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": 9, "rounds": 0}, {"steps": 9, "self_share": 1.0}])
def test_settings_that_cannot_be_trained_with(wrong):
    with pytest.raises(ValueError, match=r"needed are|needs 1 round|must lie"):
        TrainSettings(**wrong)


def test_the_teacher_may_label_the_views_of_each_step(labelled, tmp_path, monkeypatch):
    for path in (labelled.folder / "labels").glob("*.png"):
        path.unlink()
    # Only colours in full are the teacher's, so that it labels squares alone.
    color = Predictor.from_model(ColorSegmenter("softmax"), "cpu")
    teacher = Labeller(color, ("red", "green", "blue"), LabelSettings(0.0, 0.0, 0.0), background=False)
    seen, batch = [], Labeller.batch
    monkeypatch.setattr(Labeller, "batch", lambda self, views: seen.append((views, batch(self, views))) or seen[-1][1])
    settings = TrainSettings(3, batch=2, crop_px=32)
    student = make_student()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    trainer = MaskCLIPPlus(student, labelled, (1, 2, 3), settings, teacher)
    trainer.run(Runner(student, tmp_path / "state.pt", 0))
    assert len(seen) == 3
    assert any(not value.equal(before[name]) for name, value in student.state_dict().items())
    views, labels = (np.stack([each for batch in part for each in batch]) for part in zip(*seen, strict=True))
    assert views.shape == (6, 32, 32, 3)
    # Where a channel clearly leads, it is the label of that pixel.
    ordered = np.sort(views, axis=3)
    clear = ordered[..., 2].astype(int) - ordered[..., 1] > 60
    assert np.mean(labels[clear] == views.argmax(axis=3)[clear]) > 0.95
