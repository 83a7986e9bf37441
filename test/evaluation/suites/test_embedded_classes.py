# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest

from clip_seg_ros.data.samples import IGNORED
from clip_seg_ros.data.tabletop import SEMANTIC_CLASSES, class_map, is_unseen
from clip_seg_ros.evaluation.suites.embedded_classes import ClassExaminer
from clip_seg_ros.sim.scene import KINDS


def truth(scene, view, prompt):
    return class_map(scene, view.labels) == SEMANTIC_CLASSES.index(prompt)


def everything_is(name):
    return lambda scene, view, prompt: np.full(view.labels.shape, prompt == name)


def lower_half_is_floor(scene, view, prompt):
    """Right in the upper half."""
    lower = np.arange(view.labels.shape[0])[:, None] >= view.labels.shape[0] // 2
    return np.where(lower, prompt == "floor", truth(scene, view, prompt))


def figures_of(predictor, scenes):
    examiner = ClassExaminer({"model": predictor})
    for scene, view in scenes:
        examiner.examine(scene, view)
    figures = {figure.name.removeprefix("embedded.model."): figure.value for figure in examiner.figures()}
    assert not any(math.isnan(value) for value in figures.values())
    return figures


def by_loops(rule, scenes):
    """(IoU by class, share of right pixels), counted class by class over all scenes."""
    answers = [np.stack([rule(scene, view, name) for name in SEMANTIC_CLASSES]).argmax(0) for scene, view in scenes]
    truths = [class_map(scene, view.labels) for scene, view in scenes]
    ious = {}
    for index, name in enumerate(SEMANTIC_CLASSES):
        both = union = 0
        for answer, true in zip(answers, truths, strict=True):
            labelled = true != IGNORED
            both += int(((answer == index) & (true == index) & labelled).sum())
            union += int((((answer == index) | (true == index)) & labelled).sum())
        if union:
            ious[name] = both / union
    right = sum(int((answer == true).sum()) for answer, true in zip(answers, truths, strict=True))
    return ious, right / sum(int((true != IGNORED).sum()) for true in truths)


def test_a_predictor_that_knows_everything_scores_full_marks(held_out, by_rule):
    figures = figures_of(by_rule(truth), held_out)
    assert set(figures.values()) == {1.0}
    assert {"miou", "usual_scenes.miou", "unseen_scenes.miou", "kinds.miou", "pixel_accuracy"} <= figures.keys()
    present = set(np.unique([class_map(scene, view.labels) for scene, view in held_out])) - {IGNORED}
    named = {name.removeprefix("class.") for name in figures if name.startswith("class.")}
    assert named == {SEMANTIC_CLASSES[index] for index in present}


@pytest.mark.parametrize("rule", [everything_is("table"), everything_is("cup"), lower_half_is_floor])
def test_figures_are_those_of_plain_counting(held_out, by_rule, rule):
    figures = figures_of(by_rule(rule), held_out)
    ious, accuracy = by_loops(rule, held_out)
    assert figures["pixel_accuracy"] == pytest.approx(accuracy, abs=1e-4)
    assert figures["miou"] == pytest.approx(np.mean(list(ious.values())), abs=1e-4)
    kinds = [ious[kind] for kind in KINDS if kind in ious]
    assert figures["kinds.miou"] == pytest.approx(np.mean(kinds), abs=1e-4)
    for name, iou in ious.items():
        assert figures[f"class.{name}"] == pytest.approx(iou, abs=1e-4)
    for place, unseen in (("usual_scenes", False), ("unseen_scenes", True)):
        part, _ = by_loops(rule, [each for each in held_out if is_unseen(each[0].seed) == unseen])
        assert figures[f"{place}.miou"] == pytest.approx(np.mean(list(part.values())), abs=1e-4)


def test_unseen_classes_are_measured_apart(held_out, by_rule):
    examiner = ClassExaminer({"zero": by_rule(lower_half_is_floor)}, unseen=("floor", "cup"))
    for scene, view in held_out:
        examiner.examine(scene, view)
    figures = {figure.name.removeprefix("embedded.zero."): figure.value for figure in examiner.figures()}
    ious, _ = by_loops(lower_half_is_floor, held_out)
    unseen = np.mean([ious[name] for name in ("floor", "cup") if name in ious])
    seen = np.mean([iou for name, iou in ious.items() if name not in ("floor", "cup")])
    assert unseen > 0
    assert figures["unseen_iou"] == pytest.approx(unseen, abs=1e-4)
    assert figures["seen_iou"] == pytest.approx(seen, abs=1e-4)
    assert figures["harmonic_iou"] == pytest.approx(2 * seen * unseen / (seen + unseen), abs=1e-4)
    assert "unseen_iou" not in figures_of(by_rule(truth), held_out)


def test_pixels_beyond_the_floor_count_nowhere(held_out, by_rule):
    def wrong_beyond(scene, view, prompt):
        return truth(scene, view, prompt) | ((class_map(scene, view.labels) == IGNORED) & (prompt == "cup"))

    assert figures_of(by_rule(wrong_beyond), held_out)["miou"] == 1


def test_of_scenes_not_shown_and_classes_not_there_nothing_is_said(held_out, by_rule):
    scene, view = held_out[0]
    figures = figures_of(by_rule(truth), [(scene, view)])
    assert "unseen_scenes.miou" not in figures
    assert figures["usual_scenes.miou"] == 1
    absent = set(KINDS) - {item.kind for item in view.objects}
    assert absent
    assert not any(f"class.{name}" in figures for name in absent)


def test_models_are_asked_for_all_classes_and_each_gets_its_figures_and_pictures(held_out, by_rule):
    models = {"denseclip": by_rule(truth), "maskclip_plus": by_rule(everything_is("table"))}
    examiner = ClassExaminer(models)
    examiner.examine(*held_out[0])
    assert all(model.asked == [SEMANTIC_CLASSES] for model in models.values())
    figures = {figure.name: figure.value for figure in examiner.figures()}
    assert figures["embedded.denseclip.kinds.miou"] == 1
    assert figures["embedded.maskclip_plus.kinds.miou"] == 0
    pictures = examiner.pictures()
    assert list(pictures) == list(models)
    assert all(picture.shape == (240, 4 * 320, 3) for picture in pictures.values()), "one at random, and the worst"
