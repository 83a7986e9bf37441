# SPDX-License-Identifier: Apache-2.0
"""Phrases with thresholds of their own are answered as if they were asked alone with these."""

from __future__ import annotations

import numpy as np
import pytest

from clip_seg_ros.pipeline.answering import Question, Refinement, answer
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.pipeline.thresholds import Thresholds
from clip_seg_ros.sim.renderer import SceneRenderer
from clip_seg_ros.sim.scene import sample_scene
from clip_seg_ros.types import CameraFrame

PHRASES = ("cup", "box", "bowl", "ball")
OWN = {"cup": 0.2, "bowl": 0.9}


@pytest.fixture(scope="module")
def predictor():
    return Predictor.from_name("clipseg-pocket", "cpu", engine="eager")


def shapes(found, prompt):
    return [
        (region.score, region.box_px, region.inside.tobytes()) for region in found.regions if region.prompt == prompt
    ]


def test_each_phrase_has_its_own_threshold(predictor):
    with SceneRenderer(160, 120) as renderer:
        frames = [CameraFrame(renderer.render(sample_scene(seed)).rgb, 0, "") for seed in (2, 3)]
    refinement, differ = Refinement(edges=True), False
    for frame in frames:
        encoded = predictor.encode(frame.rgb)
        asked = Question(PHRASES, own_thresholds=tuple(OWN.items()))
        found = answer(predictor, encoded, asked, frame, refinement)
        usual = answer(predictor, encoded, Question(PHRASES), frame, refinement)
        for prompt in PHRASES:
            alone = answer(predictor, encoded, Question(PHRASES, (), OWN.get(prompt)), frame, refinement)
            assert shapes(found, prompt) == shapes(alone, prompt)
            differ = differ or shapes(found, prompt) != shapes(usual, prompt)
        scores = [region.score for region in found.regions]
        assert scores == sorted(scores, reverse=True)
        assert [region.id for region in found.regions] == list(range(1, len(scores) + 1))
    assert differ, "the thresholds matter in none of these images"


def test_prompts_are_grouped_by_their_thresholds():
    thresholds = Thresholds(0.5, (("cup", 0.2), ("box", 0.5)))
    assert thresholds.groups(["ball", "cup", "box"]) == [(0.5, ["ball", "box"]), (0.2, ["cup"])]
    assert Thresholds(0.5).groups([]) == [(0.5, [])]


@pytest.mark.parametrize("wrong", [-0.1, 1.1, np.nan])
def test_a_threshold_that_is_none_is_refused(wrong):
    with pytest.raises(ValueError, match="threshold must lie in"):
        Thresholds(0.5, (("cup", wrong),))
