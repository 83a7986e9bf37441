# SPDX-License-Identifier: Apache-2.0
"""COCO's protocol with a detector of known answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clip_seg_ros.data.rendered_instances import mask_boxes
from clip_seg_ros.data.samples import DataError, InstanceSample
from clip_seg_ros.evaluation.instances import evaluate_instances
from clip_seg_ros.models.spec import InputSpec, ModelSpec
from clip_seg_ros.pipeline.instances import Instance
from clip_seg_ros.types import window_of

NAMES = ("cup", "box")
SPEC = ModelSpec(
    "given", InputSpec(64, "short_side", 32, (0, 0, 0), (1, 1, 1)), "sigmoid", class_names=NAMES, finds_objects=True
)


def sample(masks: bool = True) -> InstanceSample:
    """Two cups that touch, and a box that is a crowd."""
    drawn = np.zeros((3, 60, 80), bool)
    drawn[0, 10:30, 10:30] = drawn[1, 10:30, 30:50] = drawn[2, 40:60, 40:80] = True
    return InstanceSample(
        rgb=np.zeros((60, 80, 3), np.uint8),
        labels=np.array([0, 0, 1]),
        boxes_px=mask_boxes(drawn),
        masks=drawn if masks else None,
        areas_px=np.array([400, 400, 800], np.float32),
        crowd=np.array([False, False, True]),
        name="two cups",
    )


class Shown:
    class_names = NAMES

    def __init__(self, *samples: InstanceSample) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> InstanceSample:
        return self._samples[index]


class Given:
    """Answers with the first cup surely, with the second one doubtfully, and with nothing else."""

    spec = SPEC

    def encode(self, rgb: np.ndarray) -> np.ndarray:
        return rgb

    def instances(self, encoded, names, least_score, keep_same) -> list[Instance]:
        assert (names, least_score, keep_same) == (NAMES, 0.0, True)
        answers = []
        for box, score in (((10, 10, 30, 30), 0.9), ((30, 10, 50, 30), 0.4)):
            answers.append(
                Instance("cup", score, tuple(map(float, box)), box, sample().masks.any(0)[window_of(box)], (60, 80))
            )
        return answers


def test_masks_and_boxes_are_measured() -> None:
    evaluation = evaluate_instances(Given(), Shown(sample(), sample()), [0, 1])
    figures = {figure.name.removeprefix("instances."): figure.value for figure in evaluation.figures}
    assert figures["ap"] == figures["ap50"] == figures["box.ap75"] == pytest.approx(1)
    assert figures["ap_small"] == pytest.approx(1)
    assert np.isnan(figures["ap_large"])
    assert figures["touching.found"] == 0.5, "of the second cup the model is not sure"
    assert (figures["touching.count"], figures["count"]) == (4, 2)
    (first, _) = evaluation.samples
    assert (first.index, first.name, first.objects, first.answers, first.found) == (0, "two cups", 2, 1, 1)
    assert evaluation.class_ap50[0] == pytest.approx(1)
    assert np.isnan(evaluation.class_ap50[1]), "there are crowds of boxes alone"


def test_data_sets_of_boxes_are_measured_by_boxes() -> None:
    evaluation = evaluate_instances(Given(), Shown(sample(masks=False)), [0])
    names = {figure.name for figure in evaluation.figures}
    assert "instances.box.ap50" in names
    assert "instances.ap50" not in names
    assert evaluation.samples == ()


def test_what_does_not_fit_is_said() -> None:
    wrong = replace(sample(), masks=np.zeros((3, 10, 10), bool))
    with pytest.raises(DataError, match=r"the picture is \(60, 80\) \(H, W\), but its masks are \(10, 10\)"):
        evaluate_instances(Given(), Shown(wrong), [0])
    other = Given()
    other.spec = replace(SPEC, finds_objects=False)
    with pytest.raises(ValueError, match="given does not find objects one by one: use a detector"):
        evaluate_instances(other, Shown(sample()), [0])
    other.spec = replace(SPEC, class_names=("cup",))
    with pytest.raises(ValueError, match=r"1 of the data set's 2 are not among them \(box\)"):
        evaluate_instances(other, Shown(sample()), [0])
