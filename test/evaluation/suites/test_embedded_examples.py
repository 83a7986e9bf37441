# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from clip_seg_ros.data.tabletop import FIRST_TRAIN_SEED, TEST_SEEDS
from clip_seg_ros.evaluation.suites.embedded_examples import FIRST_EXAMPLE_SEED, WAYS, ExampleExaminer
from clip_seg_ros.models.clipseg.visual_prompts import crop_to_object, fade_background
from clip_seg_ros.sim.naming import pair_of
from clip_seg_ros.sim.renderer import SceneRenderer
from clip_seg_ros.sim.scene import SCENES_PER_SHAPE_SET, sample_scene
from clip_seg_ros.types import ProbabilityMaps
from nearness import assert_near


class Taught:
    """Remembers the examples that it is taught. It answers the truth for one pair a view, or nothing without pairs."""

    def __init__(self, views, pairs):
        self._views, self._pairs = views, pairs
        self.examples, self.prompts, self.known = [], [], set()

    def add_image_prompt(self, name, rgb, mask, text=None):
        self.examples.append((rgb, mask, text))
        self.known.add(name)

    def remove_image_prompt(self, name):
        self.known.remove(name)

    def predict(self, rgb, prompts):
        index = next(index for index, view in enumerate(self._views) if view.rgb is rgb)
        self.prompts += prompts
        assert all(pair_of(prompt) or prompt in self.known for prompt in prompts), "an example must have been shown"
        mask = self._views[index].mask_of(*self._pairs[index]) if self._pairs else np.zeros(rgb.shape[:2], bool)
        return ProbabilityMaps(tuple(prompts), np.repeat(mask[None].astype(np.float32), len(prompts), axis=0))


def examined(scenes, pairs=()):
    predictor = Taught([view for _, view in scenes], pairs)
    examiner = ExampleExaminer(predictor)
    for scene, view in scenes:
        examiner.examine(scene, view)
    figures = {figure.name.removeprefix("embedded.clipseg.example."): figure.value for figure in examiner.figures()}
    return predictor, figures


@pytest.fixture(scope="module")
def two_scenes(held_out):
    """One of the usual scenes and one of the unseen ones."""
    return held_out[::2]


@pytest.fixture(scope="module")
def taught(two_scenes):
    """A predictor that answered nothing, and the figures of that."""
    return examined(two_scenes)


def asked_pairs(predictor):
    return [pair_of(prompt) for prompt in predictor.prompts if pair_of(prompt)]


def test_examples_come_from_scenes_that_are_neither_trained_on_nor_tested():
    seeds = range(FIRST_EXAMPLE_SEED + TEST_SEEDS.start, FIRST_EXAMPLE_SEED + TEST_SEEDS.stop)
    assert TEST_SEEDS[-1] // SCENES_PER_SHAPE_SET < seeds[0] // SCENES_PER_SHAPE_SET
    assert seeds[-1] // SCENES_PER_SHAPE_SET < FIRST_TRAIN_SEED // SCENES_PER_SHAPE_SET


def test_one_visible_object_a_scene_is_asked_for_in_every_way(two_scenes, taught):
    predictor, _ = taught
    assert len(predictor.examples) == len(two_scenes) * (len(WAYS) + 1)
    assert len(predictor.prompts) == len(two_scenes) * (len(WAYS) + 2)
    assert not predictor.known
    pairs = asked_pairs(predictor)
    assert len(pairs) == len(two_scenes)
    for (_, view), pair in zip(two_scenes, pairs, strict=True):
        assert view.mask_of(*pair).mean() >= 0.001


def test_the_example_is_an_object_of_that_name_in_another_scene(two_scenes, taught):
    predictor, _ = taught
    with SceneRenderer() as renderer:
        for index, ((scene, _), pair) in enumerate(zip(two_scenes, asked_pairs(predictor), strict=True)):
            example = renderer.render(sample_scene(FIRST_EXAMPLE_SEED + scene.seed, required=[pair]), depth=False)
            first, *_, mixed = predictor.examples[index * (len(WAYS) + 1) :][: len(WAYS) + 1]
            for rgb, mask, _ in (first, mixed):
                assert (rgb == example.rgb).all()
                assert (mask == example.mask_of(*pair)).all()
                assert mask.mean() > 0.001
            assert first[2] is None
            assert mixed[2] == " ".join(pair)


def as_pixels(rgb):
    return torch.from_numpy(rgb.astype(np.float32)).permute(2, 0, 1)[None]


def test_each_way_does_only_a_part_of_what_is_done_to_examples(two_scenes, taught):
    predictor, _ = taught
    assert WAYS == ("blur_dark_crop", "crop", "blur_dark", "none")
    for index in range(len(two_scenes)):
        shown = dict(zip(WAYS, predictor.examples[index * (len(WAYS) + 1) :], strict=False))
        rgb, mask, _ = shown["blur_dark_crop"]
        for way in WAYS[1:]:
            assert shown[way][1].all(), "nothing is blurred, darkened or cut away any more"
            assert shown[way][1].shape == shown[way][0].shape[:2]
        assert (shown["none"][0] == rgb).all()
        assert (shown["blur_dark"][0] == fade_background(rgb, mask)).all()
        # Cut out as CLIPSeg's own preparation does.
        cut = shown["crop"][0]
        own = crop_to_object(as_pixels(rgb), torch.from_numpy(mask)[None], 64)
        again = crop_to_object(as_pixels(cut), torch.ones(1, *cut.shape[:2], dtype=torch.bool), 64)
        assert_near(again, own)


def test_all_right_and_all_wrong_are_told_apart(two_scenes, taught):
    predictor, nothing = taught
    _, right = examined(two_scenes, asked_pairs(predictor))
    assert right.keys() == nothing.keys() == {f"{way}.mean_iou" for way in (*WAYS, "mixed", "text")} | {"count"}
    assert right.pop("count") == nothing.pop("count") == len(two_scenes)
    assert set(right.values()) == {1}
    assert set(nothing.values()) == {0}


def test_an_example_is_forgotten_although_asking_fails(two_scenes):
    class Failing(Taught):
        def predict(self, rgb, prompts):
            raise RuntimeError("out of memory")

    predictor = Failing([], ())
    with pytest.raises(RuntimeError, match="out of memory"):
        ExampleExaminer(predictor).examine(*two_scenes[0])
    assert predictor.examples
    assert not predictor.known


def test_no_scene_gives_no_figure_but_the_count():
    assert [(figure.name, figure.value) for figure in ExampleExaminer(Taught([], ())).figures()] == [
        ("embedded.clipseg.example.count", 0)
    ]


def test_the_shipped_weights_find_what_an_example_shows(two_scenes, clipseg):
    examiner = ExampleExaminer(clipseg)
    for scene, view in two_scenes:
        examiner.examine(scene, view)
    figures = {figure.name.removeprefix("embedded.clipseg.example."): figure.value for figure in examiner.figures()}
    assert figures["count"] == len(two_scenes)
    assert figures["text.mean_iou"] > 0.3
    assert figures["mixed.mean_iou"] > 0.3
    assert figures["blur_dark_crop.mean_iou"] > figures["none.mean_iou"]
