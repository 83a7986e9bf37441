# SPDX-License-Identifier: Apache-2.0
"""Boxes as examples for SAM 3, against transformers' own model and processor, on a small network of random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from clip_seg_ros.api import Instance, Predictor, instances_like
from clip_seg_ros.models.operators import complete_torchvision
from clip_seg_ros.models.sam3.model import SAM3
from clip_seg_ros.pipeline.instances import MASK_THRESHOLD, distinct
from clip_seg_ros.runtime.eager import EagerEngine
from nearness import assert_near

SIZE = (90, 130)
BOXES = ((20, 10, 50, 40), (70, 30, 121, 90), (0, 0, 12, 80))
CASES = [
    (BOXES[:1], None, None),
    (BOXES, (True, False, True), None),
    (BOXES[:2], (True, True), "the red cup"),
    (BOXES[1:2], (False,), "cup"),
]


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    blocks = np.random.default_rng(1).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    return blocks.repeat(10, axis=0).repeat(10, axis=1)


@pytest.fixture(scope="module")
def predictor(make: Callable[..., SAM3]) -> Predictor:
    complete_torchvision()  # what transformers calls would else need a compiler in some environments
    return Predictor(EagerEngine(make(), "cpu"))


def theirs(network: Any, processor: Any, image: np.ndarray, case: tuple) -> tuple[dict[str, torch.Tensor], Any]:
    boxes, positive, phrase = case
    inputs = processor(
        images=image,
        text=phrase,
        input_boxes=[[list(map(float, box)) for box in boxes]],
        input_boxes_labels=None if positive is None else [[int(each) for each in positive]],
        return_tensors="pt",
    )
    with torch.inference_mode():
        output = network(**inputs)
    (found,) = processor.post_process_instance_segmentation(output, 0.05, MASK_THRESHOLD, [SIZE])
    return found, output


def middle_of(output: Any) -> float:
    """A score that half of the objects exceed, as far as can be from the nearest ones."""
    scores = (output.pred_logits.sigmoid() * output.presence_logits.sigmoid()).flatten().sort().values[3:-3]
    widest = scores.diff().argmax()
    return float(scores[widest] + scores[widest + 1]) / 2


@pytest.mark.parametrize("case", CASES)
def test_objects(predictor: Predictor, network: Any, processor: Any, image: np.ndarray, case: tuple) -> None:
    expected, output = theirs(network, processor, image, case)
    threshold = middle_of(output)
    shown = expected["masks"].flatten(1).any(dim=1) & (expected["scores"] >= threshold)
    order = expected["scores"][shown].argsort(descending=True)
    scores, boxes, masks = (expected[key][shown][order] for key in ("scores", "boxes", "masks"))
    name = case[2] or "thing"
    right = distinct(
        [
            Instance(name, float(score), tuple(box.tolist()), (0, 0, SIZE[1], SIZE[0]), mask.numpy().astype(bool), SIZE)
            for score, box, mask in zip(scores, boxes, masks, strict=True)
        ]
    )
    found = instances_like(predictor, predictor.encode(image), *case, least_score=threshold)
    assert found
    assert [item.name for item in found] == [name] * len(right)
    assert_near(torch.tensor([item.score for item in found]), torch.tensor([item.score for item in right]))
    assert_near(torch.tensor([item.box for item in found]), torch.tensor([item.box for item in right]))
    for item, other in zip(found, right, strict=True):
        assert (item.region(1).mask == other.inside).mean() > 0.999


def test_boxes_and_what_they_hold_make_a_difference(predictor: Predictor, image: np.ndarray) -> None:
    encoded = predictor.encode(image)
    ways = [((BOXES[:1]), None), ((BOXES[1:2]), None), (BOXES[:2], (True, False)), (BOXES[:2], (True, True))]
    best = [instances_like(predictor, encoded, *way, least_score=0.0)[0].score for way in ways]
    assert len({round(score, 4) for score in best}) == len(ways)


@pytest.mark.parametrize(
    ("boxes", "positive", "phrase", "words"),
    [
        ((), None, None, "no box shows what is meant"),
        ((), None, "cup", "no box shows what is meant"),
        (BOXES[:1], (False,), None, "no box shows what is meant"),
        (BOXES[:2], (True,), None, "a value for each of the 2 boxes, got 1"),
        (((5, 5, 5, 9),), None, None, "the box is empty: 0x4"),
        (((5, 5, 131, 9),), None, None, "reaches out of the picture of 130x90"),
        (BOXES[:1], None, " ", "a prompt must be a phrase"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    predictor: Predictor, image: np.ndarray, boxes: tuple, positive: tuple | None, phrase: str | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        instances_like(predictor, predictor.encode(image), boxes, positive, phrase)
