# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from clip_seg_ros.data.tabletop import is_unseen
from clip_seg_ros.evaluation.metrics.referring import PRECISION_LEVELS
from clip_seg_ros.evaluation.suites.embedded_relations import (
    EXPRESSIONS_A_SCENE,
    MIN_RELATED_SHARE,
    RelationExaminer,
    scene_expressions,
)
from clip_seg_ros.sim.renderer import SceneRenderer
from clip_seg_ros.sim.scene import sample_scene


def expression_of(scene, view, text):
    return next(each for each in scene_expressions(scene, view) if each.text == text)


def truth(scene, view, prompt):
    return view.labels == expression_of(scene, view, prompt).label


def figures_of(models, scenes):
    examiner = RelationExaminer(models)
    for scene, view in scenes:
        examiner.examine(scene, view)
    return {figure.name.removeprefix("embedded."): figure.value for figure in examiner.figures()}


def test_a_scene_is_asked_a_few_different_expressions_always_the_same(held_out):
    for scene, view in held_out:
        expressions = scene_expressions(scene, view)
        assert expressions == scene_expressions(scene, view)
        texts = [expression.text for expression in expressions]
        assert 1 <= len(texts) <= EXPRESSIONS_A_SCENE
        assert len(set(texts)) == len(texts)
        for expression in expressions:
            assert (view.labels == expression.label).mean() >= MIN_RELATED_SHARE


def test_all_right_and_all_wrong_are_told_apart(held_out, by_rule):
    asked = sum(len(scene_expressions(*each)) for each in held_out)
    right, nothing, other = (
        by_rule(rule)
        for rule in (
            truth,
            lambda scene, view, prompt: view.labels > 255,
            lambda scene, view, prompt: (view.labels > 0) & ~truth(scene, view, prompt),
        )
    )
    figures = figures_of({"right": (right, 0.5), "nothing": (nothing, 0.5), "other": (other, 0.5)}, held_out)
    assert right.asked == nothing.asked == other.asked
    assert figures["relations.count"] == asked == sum(map(len, right.asked))
    levels = [f"pr_at_{level * 100:.0f}" for level in PRECISION_LEVELS]
    for model, score in (("right", 1), ("nothing", 0), ("other", 0)):
        assert figures[f"{model}.relations.mean_iou"] == score
        assert [figures[f"{model}.relations.{level}"] for level in levels] == [score] * 5
        for place in ("usual_scenes", "unseen_scenes"):
            assert figures[f"{model}.relations.{place}.mean_iou"] == score


def test_figures_are_grouped_by_relation_and_by_place(held_out, by_rule):
    expressions = [(scene, each) for scene, view in held_out for each in scene_expressions(scene, view)]
    relation = expressions[0][1].relation
    assert {each.relation for _, each in expressions} != {relation}

    def only_one_relation(scene, view, prompt):
        expression = expression_of(scene, view, prompt)
        return (view.labels == expression.label) & (expression.relation == relation)

    figures = figures_of({"cris": (by_rule(only_one_relation), 0.35)}, held_out)

    def expected(chosen):
        chosen = [each.relation == relation for scene, each in expressions if chosen(scene, each)]
        return pytest.approx(sum(chosen) / len(chosen), abs=1e-4)

    assert figures["cris.relations.mean_iou"] == expected(lambda scene, each: True)
    assert figures["cris.relations.unseen_scenes.mean_iou"] == expected(lambda scene, each: is_unseen(scene.seed))
    assert figures["cris.relations.usual_scenes.pr_at_50"] == expected(lambda scene, each: not is_unseen(scene.seed))
    for name in {each.relation for _, each in expressions}:
        score = figures[f"cris.relations.{name.replace(' ', '_')}.mean_iou"]
        assert score == expected(lambda scene, each, name=name: each.relation == name)
        assert score in (0, 1)


def test_every_model_has_a_threshold_of_its_own(held_out, by_rule):
    # The rule's probabilities are 0.1 and 0.9.
    figures = figures_of({"low": (by_rule(truth), 0.05), "high": (by_rule(truth), 0.95)}, held_out)
    assert 0 < figures["low.relations.mean_iou"] < 0.3, "everything is answered"
    assert figures["high.relations.mean_iou"] == 0


def test_a_scene_of_which_nothing_can_be_said_is_passed_over(by_rule):
    scene = sample_scene(3, objects=(1, 1))
    with SceneRenderer(160, 120) as renderer:
        view = renderer.render(scene, depth=False)
    predictor = by_rule(truth)
    examiner = RelationExaminer({"cris": (predictor, 0.35)})
    examiner.examine(scene, view)
    assert predictor.asked == []
    assert scene_expressions(scene, view) == []
    assert [(figure.name, figure.value) for figure in examiner.figures()] == [("embedded.relations.count", 0)]
    assert examiner.pictures() == {}


def test_answers_become_pictures(held_out, by_rule):
    examiner = RelationExaminer({"cris": (by_rule(truth), 0.35), "clipseg": (by_rule(truth), 0.5)})
    examiner.examine(*held_out[0])
    pictures = examiner.pictures()
    assert list(pictures) == ["cris_relations", "clipseg_relations"]
    assert all(picture.shape[1:] == (4 * 320, 3) and picture.any() for picture in pictures.values())
