import math

import numpy as np
import pytest

from clip_seg_ros.data.tabletop import TEST_SEEDS
from clip_seg_ros.evaluation.embedded import PhraseExaminer, Question, phrase_of, scene_questions, summarise
from clip_seg_ros.evaluation.suite import run_suite
from clip_seg_ros.sim.renderer import SceneRenderer
from clip_seg_ros.sim.scene import HELD_OUT_PAIRS, sample_scene
from clip_seg_ros.types import ProbabilityMaps


class ConstantPredictor:
    """Gives every pixel the same probability."""

    def __init__(self, probability):
        self.probability = probability

    def predict(self, rgb, prompts):
        return ProbabilityMaps(tuple(prompts), np.full((len(prompts), *rgb.shape[:2]), self.probability, np.float32))


@pytest.fixture(scope="module")
def views():
    with SceneRenderer(320, 240) as renderer:
        return [renderer.render(sample_scene(seed), depth=False) for seed in range(8)]


def test_phrases():
    assert [phrase_of(p) for p in (("red", "cup"), (None, "cup"), ("red", None))] == ["red cup", "cup", "red object"]


def test_questions_tell_what_is_there_from_what_is_not(views):
    for view in views:
        for group, pattern in scene_questions(view, np.random.default_rng(0)):
            visible = view.mask_of(*pattern).mean()
            if group.startswith("absent"):
                assert visible == 0 and pattern not in [(o.color, o.kind) for o in view.objects]
            else:
                assert visible >= 0.001
            if group == "unseen pair":
                assert pattern in HELD_OUT_PAIRS
            if group == "absent hard":
                assert view.mask_of(pattern[0]).any() and view.mask_of(kind=pattern[1]).any()


def test_every_visible_pair_is_asked_for_once(views):
    for view in views:
        asked = [p for group, p in scene_questions(view, np.random.default_rng(0)) if group.endswith("pair")]
        expected = {(o.color, o.kind) for o in view.objects if view.mask_of(o.color, o.kind).mean() >= 0.001}
        assert sorted(asked) == sorted(expected)


def test_a_predictor_that_sees_nothing_scores_nothing():
    figures = {f.name: f.value for f in run_suite([PhraseExaminer(ConstantPredictor(0.0))], TEST_SEEDS[:3])}
    assert figures["embedded.clipseg.named.mean_iou"] == 0
    assert figures["embedded.clipseg.absent_random.answered"] == 0
    assert figures["embedded.clipseg.scenes"] == 3


def test_a_predictor_that_sees_everything_everywhere_is_caught():
    examiner = PhraseExaminer(ConstantPredictor(1.0))
    figures = {f.name: f.value for f in run_suite([examiner], TEST_SEEDS[:3])}
    assert figures["embedded.clipseg.absent_random.answered"] == 1
    assert figures["embedded.clipseg.named.mean_iou"] < 0.1
    assert all(math.isnan(q.iou) == q.group.startswith("absent") for q in examiner.questions)


def test_the_summary_is_the_mean_of_its_groups():
    pattern = ("red", "cup")
    questions = [
        Question(0, "seen pair", pattern, 0.9, 0.1),
        Question(0, "seen pair", pattern, 0.5, 0.1),
        Question(1, "unseen pair", pattern, 0.1, 0.1),
        Question(1, "absent random", pattern, float("nan"), 0.0051),
        Question(1, "absent random", pattern, float("nan"), 0.0049),
    ]
    figures = {f.name.removeprefix("embedded.clipseg."): f.value for f in summarise(questions)}
    assert figures["named.mean_iou"] == pytest.approx(0.5)
    assert figures["seen_pairs.mean_iou"] == pytest.approx(0.7)
    assert figures["seen_pairs.over_half"] == pytest.approx(0.5)
    assert figures["unseen_pairs.mean_iou"] == pytest.approx(0.1)
    assert figures["absent_random.answered"] == pytest.approx(0.5)
    assert "absent_hard.answered" not in figures
