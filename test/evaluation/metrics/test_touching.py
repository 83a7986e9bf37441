# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clip_seg_ros.data.rendered_instances import mask_boxes
from clip_seg_ros.data.samples import InstanceSample
from clip_seg_ros.evaluation.metrics.touching import found_objects, pieces_of, touching_objects


@dataclass(frozen=True)
class Answer:
    inside: np.ndarray
    box_px: tuple[int, int, int, int]


def answer(left: int, top: int, right: int, bottom: int) -> Answer:
    return Answer(np.ones((bottom - top, right - left), bool), (left, top, right, bottom))


def sample(*objects: tuple[int, tuple[int, int, int, int]], crowd: tuple[int, ...] = ()) -> InstanceSample:
    masks = np.zeros((len(objects), 40, 60), bool)
    for mask, (_, (left, top, right, bottom)) in zip(masks, objects):
        mask[top:bottom, left:right] = True
    return InstanceSample(
        rgb=np.zeros((40, 60, 3), np.uint8),
        labels=np.array([label for label, _ in objects]),
        boxes_px=mask_boxes(masks),
        masks=masks,
        areas_px=masks.sum(axis=(1, 2)).astype(np.float32),
        crowd=np.array([index in crowd for index in range(len(objects))]),
        name="",
    )


def test_neighbours_of_one_class_touch_also_at_a_corner() -> None:
    side, corner = (0, (0, 0, 10, 10)), (0, (20, 10, 30, 20))
    shown = sample(side, (0, (10, 0, 20, 10)), corner, (0, (40, 0, 50, 10)), (1, (50, 0, 60, 10)))
    assert touching_objects(shown).tolist() == [True, True, True, False, False]
    assert touching_objects(sample(side, (0, (11, 0, 20, 10)))).tolist() == [False, False], "a pixel lies between"
    assert touching_objects(sample(side, (0, (10, 0, 20, 10)), crowd=(1,))).tolist() == [False, False]


def test_an_object_is_found_by_an_answer_of_its_class_that_covers_it_mostly() -> None:
    shown = sample((0, (0, 0, 10, 10)), (0, (10, 0, 20, 10)), (1, (30, 0, 40, 10)))
    assert found_objects(shown, [0, 0], [answer(0, 0, 10, 10), answer(10, 0, 19, 10)]).tolist() == [True, True, False]
    assert found_objects(shown, [0], [answer(0, 0, 20, 10)]).tolist() == [False] * 3, "half of it is another object"
    assert found_objects(shown, [0], [answer(30, 0, 40, 10)]).tolist() == [False] * 3, "of another class"
    assert found_objects(shown, [1], [answer(30, 0, 40, 10)]).tolist() == [False, False, True]
    assert found_objects(shown, [], []).tolist() == [False] * 3


def test_pieces_are_answers_of_a_class_that_lie_mostly_in_an_object() -> None:
    shown = sample((0, (0, 0, 10, 10)), (0, (10, 0, 20, 10)), (1, (30, 0, 40, 10)))
    halves = [answer(0, 0, 5, 10), answer(5, 0, 12, 10), answer(12, 0, 20, 10)]
    assert pieces_of(shown, [0, 0, 0], halves).tolist() == [2, 1, 0]
    assert pieces_of(shown, [0], [answer(0, 0, 20, 10)]).tolist() == [0, 0, 0], "half lies in either"
    assert pieces_of(shown, [1], [answer(0, 0, 10, 10)]).tolist() == [0, 0, 0], "of another class"
