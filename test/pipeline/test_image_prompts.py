# SPDX-License-Identifier: Apache-2.0
"""Prompts by example, through the embedded CLIPSeg on a rendered scene."""

from __future__ import annotations

import numpy as np
import pytest

from clip_seg_ros.data.tabletop import TEST_SEEDS
from clip_seg_ros.evaluation.metrics.masks import mask_iou
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import sample_scene
from nearness import assert_near


@pytest.fixture(scope="module")
def view() -> RenderedView:
    with SceneRenderer() as renderer:
        return renderer.render(sample_scene(TEST_SEEDS[0]), depth=False)


@pytest.fixture
def predictor() -> Predictor:
    return Predictor.from_name("clipseg-pocket", "cpu", engine="eager")


def largest_object(view: RenderedView) -> tuple[str, np.ndarray]:
    """(its phrase, its mask)"""
    masks = [view.labels == index + 1 for index in range(len(view.objects))]
    index = int(np.argmax([np.count_nonzero(mask) for mask in masks]))
    thing = view.objects[index]
    return f"{thing.color} {thing.kind}", masks[index]


def test_a_mix_that_is_all_text_is_the_phrase(predictor: Predictor, view: RenderedView) -> None:
    phrase, mask = largest_object(view)
    predictor.add_image_prompt("it", view.rgb, mask, text=phrase, text_weight=1.0)
    by_name, by_phrase = predictor.predict(view.rgb, ["it", phrase]).values
    assert_near(by_name, by_phrase, relative=2e-5)


def test_an_example_finds_its_object(predictor: Predictor, view: RenderedView) -> None:
    phrase, mask = largest_object(view)
    predictor.add_image_prompt("it", view.rgb, mask, text=phrase, text_weight=0.7)
    found = predictor.predict(view.rgb, ["it"]).values[0] > 0.5
    assert mask_iou(found, mask) > 0.5


def test_a_name_can_be_forgotten(predictor: Predictor, view: RenderedView) -> None:
    _, mask = largest_object(view)
    before = predictor.predict(view.rgb, ["ball"]).values
    predictor.add_image_prompt("ball", view.rgb, mask)
    assert not np.allclose(predictor.predict(view.rgb, ["ball"]).values, before, atol=1e-3)
    predictor.remove_image_prompt("ball")
    assert_near(predictor.predict(view.rgb, ["ball"]).values, before)
    with pytest.raises(KeyError):
        predictor.remove_image_prompt("ball")


def test_bad_examples_are_refused(predictor: Predictor, view: RenderedView) -> None:
    mask = np.ones(view.rgb.shape[:2], bool)
    with pytest.raises(ValueError, match="hold the object"):
        predictor.add_image_prompt("it", view.rgb, ~mask)
    with pytest.raises(ValueError, match="hold the object"):
        predictor.add_image_prompt("it", view.rgb, mask[1:])
    with pytest.raises(ValueError, match=r"text_weight must lie in 0\.\.1, got 2"):
        predictor.add_image_prompt("it", view.rgb, mask, text="cup", text_weight=2)


def test_models_of_phrases_alone_say_so(view: RenderedView) -> None:
    predictor = Predictor.from_name("maskclip-pocket", "cpu", engine="eager")
    with pytest.raises(ValueError, match="maskclip-pocket understands phrases alone"):
        predictor.add_image_prompt("it", view.rgb, np.ones(view.rgb.shape[:2], bool))
