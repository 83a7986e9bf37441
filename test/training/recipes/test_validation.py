# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from clip_seg_ros.data.samples import IGNORED, ReferringSample, SemanticSample
from clip_seg_ros.evaluation.metrics.classes import ConfusionMatrix
from clip_seg_ros.evaluation.metrics.referring import sentence_iou
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.training import distributed
from clip_seg_ros.training.recipes.validation import ValidationSettings, referring_score, semantic_score
from small_models import CLASSES, small_model

COUNT = 5


class Phrases:
    """Two sentences for each of the first two objects, then one that is absent."""

    objects = ("a", "b", "a", "b", "c")

    def __init__(self, with_ignored: bool = False) -> None:
        self.read: list[int] = []
        self._with_ignored = with_ignored

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> ReferringSample:
        self.read.append(index)
        rgb = np.random.default_rng(index).integers(0, 256, (40, 50, 3), np.uint8)
        mask = np.zeros((40, 50), bool)
        if self.objects[index] != "c":
            mask[5 : 20 + index, 10:30] = True
        ignored = np.zeros_like(mask)
        ignored[:, 25:] = True
        return ReferringSample(
            rgb, ("red cup", "the box")[index % 2], mask, str(index), None, ignored if self._with_ignored else None
        )


class Classes:
    class_names = CLASSES

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> SemanticSample:
        rng = np.random.default_rng(index)
        labels = rng.integers(0, len(CLASSES), (40, 50)).astype(np.uint8)
        labels[:3] = IGNORED
        return SemanticSample(rng.integers(0, 256, (40, 50, 3), np.uint8), labels, str(index))


@pytest.mark.parametrize("with_ignored", [False, True])
def test_objects_are_asked_for_with_their_first_sentence(with_ignored: bool) -> None:
    model, data = small_model("cris"), Phrases(with_ignored)
    found = referring_score(model, data)()
    assert data.read == [0, 1, 4]
    predictor, ious = Predictor.from_model(model, "cpu"), []
    for index in (0, 1):  # the third object is absent and does not count
        sample = data[index]
        counted = slice(None) if sample.ignored is None else ~sample.ignored
        predicted = predictor.predict(sample.rgb, [sample.phrase]).values[0] > model.threshold
        ious.append(sentence_iou(predicted[counted], sample.mask[counted]))
    assert found == pytest.approx(np.mean(ious))
    assert found > 0


def test_classes_are_scored_by_their_mean_iou() -> None:
    model, data = small_model("denseclip-resnet"), Classes()
    predictor, matrix = Predictor.from_model(model, "cpu"), ConfusionMatrix(len(CLASSES))
    for index in (0, 2):
        sample = data[index]
        matrix.add(predictor.predict(sample.rgb, CLASSES).values.argmax(axis=0), sample.labels)
    assert semantic_score(model, data, limit=2)() == pytest.approx(matrix.scores().mean_iou)


def test_the_model_is_scored_as_it_is() -> None:
    model, data = small_model("denseclip-resnet"), Classes()
    score = semantic_score(model, data)
    before = score()
    with torch.no_grad():
        model.decode_head.conv_seg.weight.mul_(-1)
        model.text_encoder.text_projection.mul_(-1)
    assert score() != before


@pytest.mark.parametrize("kind", ["phrases", "classes"])
def test_processes_share_the_work(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "phrases":
        score = referring_score(small_model("cris"), Phrases())
    else:
        score = semantic_score(small_model("denseclip-resnet"), Classes())
    whole = score()
    sums: list[torch.Tensor] = []
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(distributed, "mean", lambda values: sums.append(values) or values)
        score()
    monkeypatch.setattr(distributed, "mean", lambda values: (sums[0] + sums[1]) / 2)
    assert score() == pytest.approx(whole)
    assert not torch.equal(sums[0], sums[1])


def test_nothing_to_measure_is_no_number() -> None:
    class Absent(Phrases):
        objects = ("c",) * COUNT

    assert np.isnan(referring_score(small_model("cris"), Absent())())


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="every and limit must be at least 1, got 5 and 0"):
        ValidationSettings({"kind": "voc"}, 5, 0)
