# SPDX-License-Identifier: Apache-2.0
"""Questions to a model that finds objects one by one: its objects are the answer, and not the parts of a mask."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clip_seg_ros.api import (
    Answer,
    CameraFrame,
    ObjectRegion,
    Predictor,
    Question,
    Refinement,
    Separator,
    Stream,
    answer,
    class_regions,
)
from clip_seg_ros.evaluation.metrics.masks import mask_iou
from clip_seg_ros.pipeline.answering import answered, asked_each
from clip_seg_ros.pipeline.describing import describe
from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import sample_scene
from finder import SPEC, Finder, detections

IMAGE = np.zeros((64, 96, 3), np.uint8)
BOXES = [[10, 10, 30, 40], [30, 10, 50, 40], [30, 10, 50, 39], [11, 10, 30, 40], [60, 5, 80, 20]]
SCORES = [0.9, 0.8, 0.7, 0.6, 0.2]
LABELS = [0, 0, 1, 0, 1]
"""Two cups side by side, of which the first is found twice, the second once more as a box, and a doubtful box."""


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(Finder(detections(BOXES, SCORES, LABELS), replace(SPEC, class_names=None)))


def seen(found: Answer) -> list[tuple[int, str, float, int]]:
    """(id, phrase, score, left edge) of every object."""
    return [(item.id, item.prompt, round(item.score, 3), item.box_px[0]) for item in found.regions]


def test_objects_that_touch_are_apart_and_come_of_one_pass(predictor: Predictor) -> None:
    found = answer(predictor, predictor.encode(IMAGE), Question(("cup", "box")))
    assert seen(found) == [(1, "cup", 0.9, 10), (2, "cup", 0.8, 30), (3, "box", 0.7, 30)]
    assert predictor.engine.passes == 1
    assert found.best_score() == pytest.approx(0.9, abs=1e-3)
    assert found.maps.prompts == ("cup", "box")


@pytest.mark.parametrize(("threshold", "count"), [(0.1, 4), (0.5, 3), (0.75, 2), (0.85, 1), (0.95, 0)])
def test_the_threshold_is_one_of_scores(predictor: Predictor, threshold: float, count: int) -> None:
    question = Question(("cup", "box"), threshold=threshold)
    assert len(answer(predictor, predictor.encode(IMAGE), question).regions) == count


def test_small_objects_are_left_out_and_ids_have_no_gaps(predictor: Predictor) -> None:
    found = answer(predictor, predictor.encode(IMAGE), Question(("cup", "box"), (), 0.1, 0.09))
    assert seen(found) == [(1, "cup", 0.9, 10), (2, "cup", 0.8, 30), (3, "box", 0.7, 30)]
    assert answer(predictor, predictor.encode(IMAGE), Question(("cup",), (), 0.1, 0.2)).regions == ()


def test_a_negative_leaves_out_the_objects_that_it_names(predictor: Predictor) -> None:
    found = answer(predictor, predictor.encode(IMAGE), Question(("cup",), ("box",)))
    assert seen(found) == [(1, "cup", 0.9, 10)]
    assert found.maps.prompts == ("cup",)


def test_questions_of_their_own_share_a_pass(predictor: Predictor) -> None:
    questions = [Question(("cup",)), Question(("box",), threshold=0.1)]
    maps = asked_each(predictor, predictor.encode(IMAGE), questions)
    assert predictor.engine.passes == 1
    found = [answered(question, each, predictor.spec) for question, each in zip(questions, maps, strict=True)]
    assert seen(found[0]) == [(1, "cup", 0.9, 10), (2, "cup", 0.8, 30)]
    assert seen(found[1]) == [(1, "box", 0.7, 30), (2, "box", 0.2, 60)]


def test_each_object_is_described_by_the_name_that_fits_it_best(predictor: Predictor) -> None:
    (sighting,) = describe(predictor, IMAGE, ("cup", "box"), None, 0.0)
    assert (sighting.phrase, sighting.count) == ("cup", 2)


def test_a_stream_tracks_objects_and_never_averages_them(predictor: Predictor) -> None:
    stream = Stream(0.9, 0.05, 1.0)
    engine, encoded = predictor.engine, predictor.encode(IMAGE)
    first = stream.answer(predictor, encoded, Question(("cup",)), IMAGE, 0)
    assert seen(first) == [(1, "cup", 0.9, 10), (2, "cup", 0.8, 30)]
    engine.found = detections(BOXES[1:2], [0.55], [0])
    later = stream.answer(predictor, encoded, Question(("cup",)), IMAGE, 30_000_000)
    assert seen(later) == [(2, "cup", 0.55, 30)], "it keeps its id, and its score is that of this image"
    assert later.best_score() == pytest.approx(0.55, abs=1e-3)


def test_objects_are_not_taken_apart_again(predictor: Predictor) -> None:
    class Refusing(Separator):
        def __init__(self) -> None:
            pass

        def separate(self, *args: object) -> list[ObjectRegion]:
            raise AssertionError("objects of a detector were to be taken apart")

    refinement, encoded = Refinement(separator=Refusing()), predictor.encode(IMAGE)
    found = answer(predictor, encoded, Question(("cup",)), CameraFrame(IMAGE, 0, ""), refinement)
    assert seen(found) == [(1, "cup", 0.9, 10), (2, "cup", 0.8, 30)]
    stream = Stream(0.0, 0.0, 0.0, refinement)
    assert seen(stream.answer(predictor, encoded, Question(("cup",)), IMAGE, 0)) == seen(found)


@pytest.fixture(scope="module")
def pair() -> RenderedView:
    """A table with two cups, one partly before the other."""
    with SceneRenderer() as renderer:
        return renderer.render(sample_scene(11_500, alike=True, objects=(5, 8)), depth=False)


def test_the_embedded_detector_finds_two_cups_where_they_touch(pair: RenderedView) -> None:
    predictor = Predictor.from_name("denseclip-instances-pocket", "cpu", engine="eager")
    encoded = predictor.encode(pair.rgb)
    found = answer(predictor, encoded, Question(("cup",)))
    truths = [pair.labels == number for number, item in enumerate(pair.objects, start=1) if item.kind == "cup"]
    assert len(found.regions) == len(truths) == 2
    for truth in truths:
        assert max(mask_iou(region.mask, truth) for region in found.regions) > 0.6
    labelled = class_regions(predictor.classify(encoded, ["cup"]), 1)
    assert [region.score for region in found.regions] == [region.score for region in labelled]
    edges = answer(predictor, encoded, Question(("cup",)), CameraFrame(pair.rgb, 0, ""), Refinement(edges=True))
    assert not (edges.regions[0].mask & edges.regions[1].mask).any()
