# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from torch import nn

from clip_seg_ros.data.samples import IGNORED, DataError, SemanticSample
from clip_seg_ros.models.student.model import Student, StudentConfig, imagenet_input
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.training.distillation import zero_shot
from clip_seg_ros.training.distillation.pseudo_labels import Labeller, LabelSettings
from clip_seg_ros.training.distillation.zero_shot import ZeroShot, ZeroShotSettings
from clip_seg_ros.training.runner import Runner
from color_segmenter import ColorSegmenter
from nearness import assert_same_training

CLASSES = ("grey", "red", "green", "blue")
COLORS = np.array([(120, 120, 120), (220, 20, 20), (20, 220, 20), (20, 20, 220)], np.uint8)
UNSEEN = ("blue", "green")


class Squares:
    """Pictures of squares on grey; true labels of green and blue must never reach a loss."""

    class_names = CLASSES
    names = tuple(map(str, range(8)))

    def __len__(self):
        return 8

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        labels = np.zeros((64, 80), np.uint8)
        for left, kind in zip((4, 30, 56), rng.permutation(3) + 1, strict=True):
            top = int(rng.integers(4, 40))
            labels[top : top + 20, left : left + 20] = kind
        rgb = COLORS[labels] + rng.integers(0, 20, (64, 80, 3), np.uint8)
        labels[:, 28:30] = IGNORED
        return SemanticSample(rgb, labels, str(index))


def make_student():
    torch.manual_seed(0)
    student = Student("s", StudentConfig("timm:mobilenetv3_small_050", CLASSES, imagenet_input(64)))
    student.network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, stride=2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, len(CLASSES), 1)
    )
    return student


def make_teacher(unseen=UNSEEN):
    predictor = Predictor.from_model(ColorSegmenter("softmax"), "cpu")
    return Labeller(predictor, unseen, LabelSettings(0.0, 0.0, 0.0), background=False)


def train(settings, state_file, student=None):
    student = student or make_student()
    trainer = ZeroShot(student, Squares(), UNSEEN, make_teacher(), settings)
    trainer.run(Runner(student, state_file, 0))
    return student


def truths(settings, number):
    """Returns the labels that the loss of one batch sees, and the true ones."""
    kept = []
    trainer = ZeroShot(make_student(), Squares(), UNSEEN, make_teacher(), settings)
    trainer._begin_batch(number)

    def entropy(logits, truth, ignored):
        kept.append(truth)
        return logits.sum()

    original, zero_shot.dense_cross_entropy = zero_shot.dense_cross_entropy, entropy
    view, views = trainer._training.view, []

    def spied(rgb, labels, rng):
        # Unseen classes are hidden before anything else happens.
        assert not np.isin(labels, (2, 3)).any()
        views.append(view(rgb, labels, rng))
        return views[-1]

    trainer._training.view = spied
    try:
        trainer._terms(np.random.default_rng(0))
    finally:
        zero_shot.dense_cross_entropy = original
    return kept[0].numpy(), views


def test_the_teacher_labels_the_unseen_pixels_first():
    found, views = truths(ZeroShotSettings(10, batch=4, guided_share=0.5), number=4)
    seen, shown = (np.stack(part) for part in zip(*views, strict=True))
    hidden = shown == 254
    assert np.array_equal(found[~hidden], shown[~hidden])
    assert set(np.unique(found[hidden])) == {2, 3}
    # Within squares the colour says which one it is, even after the light and colours were changed.
    channel = seen.argmax(axis=3)
    clear = hidden & (seen.max(axis=3).astype(int) - np.median(seen, axis=3) > 60) & (channel > 0)
    assert np.mean(found[clear] == channel[clear] + 1) > 0.9
    assert (found == IGNORED).any()


def test_the_student_labels_them_afterwards(monkeypatch):
    monkeypatch.setattr(Labeller, "batch", lambda *_: pytest.fail("the teacher is asked no more"))
    found, views = truths(ZeroShotSettings(10, batch=4, guided_share=0.5), number=5)
    hidden = np.stack([shown for _, shown in views]) == 254
    assert set(np.unique(found[hidden])) <= {2, 3}
    assert hidden.any()


def test_without_pseudo_labels_unseen_pixels_are_ignored():
    found, views = truths(ZeroShotSettings(10, batch=4, pseudo_labels=False), number=0)
    hidden = np.stack([shown for _, shown in views]) == 254
    assert (found[hidden] == IGNORED).all()
    assert hidden.any()


def test_the_student_learns_classes_without_a_true_label(tmp_path):
    rates = {"batch": 4, "learning_rate": 0.03}
    scores = {}
    for pseudo in (True, False):
        student = train(ZeroShotSettings(60, pseudo_labels=pseudo, **rates), tmp_path / f"{pseudo}.pt")
        predictor = Predictor.from_model(student, "cpu")
        samples = [Squares()[index] for index in range(4)]
        found = np.stack([predictor.predict(one.rgb, CLASSES).values.argmax(axis=0) for one in samples])
        true = np.stack([one.labels for one in samples])
        scores[pseudo] = [np.mean(found[true == place] == place) for place in range(4)]
    assert min(scores[True]) > 0.7
    assert max(scores[False][2:]) < 0.3
    assert min(scores[False][:2]) > 0.7


def test_a_stopped_run_goes_on_where_it_was(tmp_path, monkeypatch):
    from clip_seg_ros.training import runner

    settings = ZeroShotSettings(4, batch=2, guided_share=0.5)
    whole = train(settings, tmp_path / "whole.pt")
    monkeypatch.setattr(runner, "_SAVE_EVERY_S", -1.0)
    terms, calls = ZeroShot._terms, iter(range(9))
    monkeypatch.setattr(ZeroShot, "_terms", lambda self, rng: terms(self, rng) if next(calls) < 3 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(settings, tmp_path / "broken.pt")
    monkeypatch.setattr(ZeroShot, "_terms", terms)
    resumed = train(settings, tmp_path / "broken.pt")
    assert_same_training(whole.state_dict(), resumed.state_dict(), make_student().state_dict())


def test_what_does_not_fit_is_refused():
    with pytest.raises(DataError, match="a student for the classes of the data set"):
        ZeroShot(make_student(), Squares(), UNSEEN, make_teacher(UNSEEN[:1]), ZeroShotSettings(1))
    with pytest.raises(ValueError, match=r"share of guided steps must lie in 0..1"):
        ZeroShotSettings(1, guided_share=2.0)
    windowless = make_teacher()
    windowless.teacher = Predictor.from_model(ColorSegmenter("softmax", "squash"), "cpu")
    with pytest.raises(ValueError, match="color cannot label the views of each step"):
        ZeroShot(make_student(), Squares(), UNSEEN, windowless, ZeroShotSettings(1))
