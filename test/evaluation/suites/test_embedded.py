# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from clip_seg_ros.data.tabletop import is_unseen
from clip_seg_ros.evaluation.suites.embedded import PhraseExaminer, Question, phrase_of, scene_questions, summarise
from clip_seg_ros.models.calibration import Calibration
from clip_seg_ros.sim.naming import pair_of
from clip_seg_ros.sim.renderer import SceneRenderer
from clip_seg_ros.sim.scene import HELD_OUT_PAIRS, sample_scene


@pytest.fixture(scope="module")
def views():
    with SceneRenderer(160, 120) as renderer:
        return [renderer.render(sample_scene(seed), depth=False) for seed in range(8)]


def truth(scene, view, prompt):
    return view.mask_of(*pair_of(prompt))


def examined(predictor, held_out, **options):
    examiner = PhraseExaminer(predictor, **options)
    for scene, view in held_out:
        examiner.examine(scene, view)
    return examiner


def figures_of(examiner):
    return {figure.name.removeprefix("embedded.clipseg."): figure.value for figure in examiner.figures()}


def test_phrases():
    assert [phrase_of(p) for p in (("red", "cup"), (None, "cup"), ("red", None))] == ["red cup", "cup", "red object"]


def test_questions_tell_what_is_there_from_what_is_not(views):
    for view in views:
        for group, pattern in scene_questions(view, np.random.default_rng(0)):
            visible = view.mask_of(*pattern).mean()
            if group.startswith("absent"):
                assert visible == 0
                assert pattern not in [(o.color, o.kind) for o in view.objects]
            else:
                assert visible >= 0.001
            if group == "unseen pair":
                assert pattern in HELD_OUT_PAIRS
            if group == "absent hard":
                assert view.mask_of(pattern[0]).any()
                assert view.mask_of(kind=pattern[1]).any()


def test_every_visible_pair_is_asked_for_once(views):
    for view in views:
        asked = [p for group, p in scene_questions(view, np.random.default_rng(0)) if group.endswith("pair")]
        expected = {(o.color, o.kind) for o in view.objects if view.mask_of(o.color, o.kind).mean() >= 0.001}
        assert sorted(asked) == sorted(expected)


def test_a_predictor_that_knows_everything_scores_full_marks(held_out, by_rule):
    figures = figures_of(examined(by_rule(truth), held_out))
    assert figures["scenes"] == 4
    for name in ("named", "named_usual_scenes", "named_unseen_scenes", "seen_pairs", "kind_only", "color_only"):
        assert figures[f"{name}.mean_iou"] == figures[f"{name}.over_half"] == 1
    assert figures["absent_random.answered"] == figures["absent_hard.answered"] == 0


def test_a_predictor_that_sees_nothing_scores_nothing(held_out, by_rule):
    figures = figures_of(examined(by_rule(lambda scene, view, prompt: view.labels > 255), held_out))
    assert figures["named.mean_iou"] == figures["kind_only.over_half"] == 0
    assert figures["absent_random.answered"] == 0


def test_a_predictor_that_sees_everything_everywhere_is_caught(held_out, by_rule):
    examiner = examined(by_rule(lambda scene, view, prompt: view.labels >= 0), held_out)
    figures = figures_of(examiner)
    assert figures["absent_random.answered"] == figures["absent_hard.answered"] == 1
    assert figures["named.mean_iou"] < 0.15
    assert all(math.isnan(q.iou) == q.group.startswith("absent") for q in examiner.questions)


def test_usual_and_unseen_scenes_are_told_apart(held_out, by_rule):
    predictor = by_rule(lambda scene, view, prompt: truth(scene, view, prompt) & (not is_unseen(scene.seed)))
    figures = figures_of(examined(predictor, held_out))
    assert figures["named_usual_scenes.mean_iou"] == 1
    assert figures["named_unseen_scenes.mean_iou"] == 0
    counts = [figures[f"named_{place}_scenes.count"] for place in ("usual", "unseen")]
    assert min(counts) > 4
    assert sum(counts) == figures["named.count"]
    assert figures["named.mean_iou"] == pytest.approx(counts[0] / sum(counts), abs=1e-4)


def test_the_threshold_decides_and_the_figures_carry_the_models_name(held_out, by_rule):
    # The rule's probabilities are 0.1 and 0.9.
    examiner = examined(by_rule(truth), held_out[:1], threshold=0.95, model="other")
    assert {figure.name.split(".")[1] for figure in examiner.figures()} == {"other"}
    assert next(figure.value for figure in examiner.figures() if figure.name == "embedded.other.named.mean_iou") == 0


def test_objects_below_the_least_score_do_not_count(held_out, by_rule):
    for least_score, expected in ((0.85, 1.0), (0.95, 0.0)):
        predictor = by_rule(truth)
        predictor.spec = SimpleNamespace(calibration=Calibration(least_score=least_score))
        figures = {figure.name: figure.value for figure in examined(predictor, held_out[:1]).figures()}
        assert figures["embedded.clipseg.named.mean_iou"] == pytest.approx(expected, abs=0.02)


def test_the_same_scene_is_asked_the_same_questions_again(held_out, by_rule):
    first, again = by_rule(truth), by_rule(truth)
    examined(first, held_out), examined(again, held_out[::-1])
    assert first.asked == again.asked[::-1]


def test_answers_become_pictures(held_out, by_rule):
    pictures = examined(by_rule(truth), held_out).pictures()
    assert list(pictures) == ["clipseg"]
    # Two rows at random, the worst, and the absent.
    assert pictures["clipseg"].shape == (4 * 240, 4 * 320, 3)
    assert pictures["clipseg"].dtype == np.uint8


def test_the_summary_is_the_mean_of_its_groups():
    pattern, usual, unseen = ("red", "cup"), 10_000, 10_025
    questions = [
        Question(usual, "seen pair", pattern, 0.9, 0.1),
        Question(unseen, "seen pair", pattern, 0.5, 0.1),
        Question(usual, "unseen pair", pattern, 0.1, 0.1),
        Question(usual, "kind", (None, "cup"), 0.2, 0.1),
        Question(unseen, "colour", ("red", None), 0.3, 0.1),
        Question(unseen, "absent random", pattern, float("nan"), 0.0051),
        Question(unseen, "absent random", pattern, float("nan"), 0.0049),
    ]
    figures = {f.name.removeprefix("embedded.clipseg."): f.value for f in summarise(questions)}
    assert figures == pytest.approx(
        {
            "scenes": 2,
            "named.mean_iou": 0.5,
            "named.over_half": 0.3333,
            "named.count": 3,
            "named_usual_scenes.mean_iou": 0.5,
            "named_usual_scenes.over_half": 0.5,
            "named_usual_scenes.count": 2,
            "named_unseen_scenes.mean_iou": 0.5,
            "named_unseen_scenes.over_half": 0,
            "named_unseen_scenes.count": 1,
            "seen_pairs.mean_iou": 0.7,
            "seen_pairs.over_half": 0.5,
            "seen_pairs.count": 2,
            "unseen_pairs.mean_iou": 0.1,
            "unseen_pairs.over_half": 0,
            "unseen_pairs.count": 1,
            "kind_only.mean_iou": 0.2,
            "kind_only.over_half": 0,
            "kind_only.count": 1,
            "color_only.mean_iou": 0.3,
            "color_only.over_half": 0,
            "color_only.count": 1,
            "absent_random.answered": 0.5,
            "absent_random.count": 2,
        }
    )


def test_the_shipped_weights_find_most_of_what_is_named(held_out, clipseg):
    figures = figures_of(examined(clipseg, held_out))
    assert figures["named.mean_iou"] > 0.4
