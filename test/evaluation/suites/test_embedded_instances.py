# SPDX-License-Identifier: Apache-2.0
"""The detector's part of the suite, with detectors that know the scenes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from clip_seg_ros.data.rendered_instances import mask_boxes
from clip_seg_ros.evaluation.suites.embedded_instances import InstanceExaminer
from clip_seg_ros.models.spec import InputSpec, ModelSpec
from clip_seg_ros.pipeline.class_labels import UNLABELLED, ClassMap
from clip_seg_ros.pipeline.instances import Instance
from clip_seg_ros.sim.renderer import RenderedView
from clip_seg_ros.sim.scene import KINDS
from clip_seg_ros.types import window_of

SPEC = ModelSpec("knowing", InputSpec(64, "short_side", 32, (0, 0, 0), (1, 1, 1)), "sigmoid", class_names=KINDS)


class Knowing:
    """A detector that answers with the truth, changed by a rule; an image stands for its features."""

    spec = replace(SPEC, finds_objects=True)

    def __init__(self, views: Sequence[RenderedView], rule: Callable[[int, Instance], Instance | None]) -> None:
        self._views, self._rule = views, rule

    def encode(self, rgb: np.ndarray) -> np.ndarray:
        return rgb

    def _view(self, rgb: np.ndarray) -> RenderedView:
        return next(view for view in self._views if view.rgb is rgb)

    def instances(self, encoded, names, least_score, keep_same) -> list[Instance]:
        assert (tuple(names), least_score, keep_same) == (KINDS, 0.0, True)
        view, answers = self._view(encoded), []
        for number, item in enumerate(view.objects):
            mask = view.labels == number + 1
            if mask.any():
                box = tuple(mask_boxes(mask[None])[0].astype(int).tolist())
                true = Instance(item.kind, 0.9, tuple(map(float, box)), box, mask[window_of(box)], mask.shape)
                answers.append(self._rule(number, true))
        return [answer for answer in answers if answer is not None]

    def classify(self, encoded, names) -> ClassMap:
        """The true classes, of which connected parts are not the true objects where these touch."""
        view = self._view(encoded)
        kinds = np.array([UNLABELLED, *(KINDS.index(item.kind) for item in view.objects)], np.uint8)
        nothing = np.zeros(0, np.int64)
        return ClassMap(KINDS, kinds[view.labels], np.ones(view.labels.shape, np.float32), False, nothing, nothing)


@pytest.fixture
def touching(held_out):
    """The scenes, of which the first has two objects of one kind that touch."""
    (scene, view), *rest = held_out
    labels = view.labels.copy()
    labels[:30, :30], labels[:30, 30:60] = 1, 2
    objects = (replace(view.objects[0], kind="book"), replace(view.objects[1], kind="book"), *view.objects[2:])
    return [(scene, replace(view, labels=labels, objects=objects)), *rest]


def examined(scenes, rule: Callable[[int, Instance], Instance | None]) -> dict[str, float]:
    predictor = Knowing([view for _, view in scenes], rule)
    examiner = InstanceExaminer(predictor, predictor)
    for scene, view in scenes:
        examiner.examine(scene, view)
    assert examiner.pictures()["denseclip_instances"].dtype == np.uint8
    return {figure.name.removeprefix("embedded.denseclip_instances."): figure.value for figure in examiner.figures()}


def test_who_knows_all_objects_finds_all_also_where_they_touch(touching) -> None:
    found = examined(touching, lambda number, true: true)
    assert found["ap"] == found["ap50"] == found["box.ap50"] == 1
    assert found["usual_scenes.ap50"] == found["unseen_scenes.ap50"] == 1
    assert found["touching.found"] == 1
    assert found["touching.count"] >= 2
    assert found["touching.found_by_connected_parts"] < 1
    assert all(found[f"class.{kind}"] == 1 for kind in KINDS if f"class.{kind}" in found)


def test_doubtful_answers_count_for_precision_and_not_as_found(touching) -> None:
    found = examined(touching, lambda number, true: replace(true, score=0.3))
    assert found["ap50"] == 1
    assert found["touching.found"] == 0


def test_what_is_missed_costs_precision(touching) -> None:
    found = examined(touching, lambda number, true: None if number == 0 else true)
    assert found["ap50"] < 1
    assert found["touching.found"] < 1
