# SPDX-License-Identifier: Apache-2.0
"""From a detector's boxes to objects, labels and regions, with a detector that finds what it is told to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from clip_seg_ros.models.detections import Detections
from clip_seg_ros.pipeline.class_labels import UNLABELLED, class_regions
from clip_seg_ros.pipeline.instances import Instance, class_map_of, distinct, instances_of
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.pipeline.preprocess import Geometry
from clip_seg_ros.zoo.factory import build_segmenter
from finder import NAMES, SPEC, Finder, detections
from nearness import assert_near


def touching(masked: bool = True) -> Predictor:
    """Two cups side by side, a box that is one of them again, and something doubtful."""
    return Predictor(
        Finder(
            detections(
                [[10, 10, 30, 40], [30, 10, 50, 40], [30, 10, 50, 38], [60, 5, 80, 20]],
                [0.9, 0.8, 0.7, 0.2],
                [0, 0, 1, 1],
                masked,
            )
        )
    )


IMAGE = np.zeros((128, 192, 3), np.uint8)


@pytest.mark.parametrize("masked", [True, False])
def test_touching_objects_of_one_class_are_apart(masked: bool) -> None:
    predictor = touching(masked)
    one, other = predictor.instances(predictor.encode(IMAGE))
    assert (one.name, other.name) == ("cup", "cup")
    # The image is twice as large as the model's.
    assert one.box == pytest.approx((20, 20, 60, 80))
    assert other.box == pytest.approx((60, 20, 100, 80))
    # Masks are interpolated between cells, which rounds the edges by a pixel.
    assert_near(np.array(one.box_px), np.array([20, 20, 60, 80]), relative=0.03)
    regions = [item.region(number) for number, item in enumerate((one, other), start=1)]
    assert not (regions[0].mask & regions[1].mask).any()
    assert [region.id for region in regions] == [1, 2]
    assert regions[0].area_px == regions[0].mask.sum()
    assert regions[0].centroid_px == pytest.approx((39.5, 49.5), abs=0.6)


def test_masks_of_the_whole_image_reach_beyond_their_boxes_and_to_the_border() -> None:
    masks = torch.zeros(1, 16, 24)
    masks[0, :8, 12:] = 0.6
    box, score, label = torch.tensor([[50.0, 8, 90, 20]]), torch.tensor([0.9]), torch.tensor([1])
    found = Detections(box, score, label, masks, torch.zeros(2, 16, 24), of_image=True)
    predictor = Predictor(Finder(found))
    (item,) = predictor.instances(predictor.encode(IMAGE))
    assert item.box == pytest.approx((100, 16, 180, 40))
    # A cell has 8 pixels; between 0.6 and 0, which are in the middles of theirs, 0.5 is a sixth of the way.
    assert item.box_px == (99, 0, 192, 61)
    assert item.inside.all()


def test_any_phrases_can_be_asked_of_a_model_without_classes() -> None:
    found = detections([[10, 10, 30, 40], [50, 10, 60, 40]], [0.9, 0.8], [1, 0])
    predictor = Predictor(Finder(found, replace(SPEC, class_names=None)))
    encoded = predictor.encode(IMAGE)
    assert [item.name for item in predictor.instances(encoded, ["jug", "spoon"])] == ["spoon", "jug"]
    labels = predictor.classify(encoded, ["jug", "spoon"]).labels
    assert (labels[50, 40], labels[50, 110], labels[5, 5]) == (1, 0, UNLABELLED)
    with pytest.raises(ValueError, match="no prompts"):
        predictor.instances(encoded)


def test_what_is_returned_can_be_chosen() -> None:
    predictor = touching()
    encoded = predictor.encode(IMAGE)
    assert [item.score for item in predictor.instances(encoded, least_score=0.1)] == pytest.approx([0.9, 0.8, 0.2])
    assert len(predictor.instances(encoded, least_score=0.1, keep_same=True)) == 4
    assert [item.name for item in predictor.instances(encoded, ["box"], 0.1)] == ["box", "box"]
    with pytest.raises(ValueError, match='"plate" is not one of the 2 classes of finder: cup, box'):
        predictor.instances(encoded, ["plate"])
    before = predictor.seconds
    predictor.instances(encoded)
    assert predictor.seconds > before


def test_classes_are_those_of_the_objects_and_nothing_elsewhere() -> None:
    predictor = touching()
    found = predictor.classify(predictor.encode(IMAGE), ["box", "cup"])
    assert found.labels[50, 40] == found.labels[50, 80] == 1
    assert found.labels[5, 5] == UNLABELLED
    assert found.labels[20, 140] == UNLABELLED, "a score of 0.2 is below the threshold"
    assert found.confidence[50, 40] == pytest.approx(0.9)
    assert found.confidence[5, 5] == 0
    first, second = class_regions(found, 10)
    assert (first.prompt, first.id, first.score) == ("cup", 1, pytest.approx(0.9))
    assert (second.prompt, second.id) == ("cup", 2)
    assert class_regions(found, 10_000) == []
    low = predictor.classify(predictor.encode(IMAGE), ["box", "cup"], 0.15)
    assert low.labels[20, 140] == 0


def test_objects_below_the_least_area_leave_no_gap_in_the_ids() -> None:
    small = detections([[0, 0, 4, 4], [20, 20, 60, 60]], [0.9, 0.8], [0, 1])
    predictor = Predictor(Finder(small))
    (region,) = class_regions(predictor.classify(predictor.encode(IMAGE), NAMES), 200)
    assert (region.prompt, region.id) == ("box", 1)


def test_masks_stay_in_their_windows() -> None:
    mask = torch.zeros(1, 28, 28)
    mask[0, :, :14] = 1
    found = replace(detections([[8, 8, 36, 36]], [0.9], [1]), masks=mask)
    (item,) = instances_of(found, NAMES, Geometry((64, 96), (64, 96)), 0.0)
    assert item.box_px == (8, 8, 22, 36), "only the left half of the box is covered"
    assert item.inside.shape == (28, 14)
    assert item.inside.all()
    nothing = replace(found, masks=torch.zeros(1, 28, 28))
    assert instances_of(nothing, NAMES, Geometry((64, 96), (64, 96)), 0.0) == []


def test_only_answers_with_nearly_the_same_mask_are_one_object() -> None:
    def square(left: int, name: str, score: float) -> Instance:
        box = (left, 0, left + 10, 10)
        return Instance(name, score, tuple(map(float, box)), box, np.ones((10, 10), bool), (20, 60))

    items = [square(0, "cup", 0.9), square(1, "box", 0.8), square(6, "cup", 0.7), square(30, "cup", 0.6)]
    assert [item.box_px[0] for item in distinct(items)] == [0, 6, 30]
    labels = class_map_of(items[2:], NAMES, (20, 60)).labels
    assert (labels[:10, 6:16] == 0).all()


def test_the_best_object_gets_the_pixels_that_several_cover() -> None:
    found = detections([[0, 0, 40, 40], [20, 0, 60, 40]], [0.9, 0.8], [1, 0], masked=False)
    items = instances_of(found, NAMES, Geometry((64, 96), (64, 96)), 0.0)
    labels = class_map_of(items, NAMES, (64, 96)).labels
    assert (labels[:40, :40] == 1).all()
    assert (labels[:40, 40:60] == 0).all()


def test_other_models_find_no_objects() -> None:
    predictor = Predictor.from_model(build_segmenter("denseclip-pocket"), "cpu")
    with pytest.raises(ValueError, match="denseclip-pocket does not find objects one by one: use a detector"):
        predictor.instances(predictor.encode(IMAGE))
