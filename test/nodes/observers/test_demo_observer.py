# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from clip_seg_ros.msg import SegmentedObject
from clip_seg_ros.nodes.observers.demo_observer import compare


def thing(prompt, id, area, centroid, position=None, score=0.9):
    item = SegmentedObject(prompt=prompt, id=id, area=area, score=score, has_position=position is not None)
    item.centroid_x, item.centroid_y = centroid
    if position:
        item.position.x, item.position.y, item.position.z = position
    return item


@pytest.fixture
def labels():
    image = np.zeros(12, np.uint8)
    image[:4] = 1
    return image


def test_an_answer_is_measured_against_the_truth(labels):
    true_labels = np.zeros(12, np.uint8)
    true_labels[2:6] = 7
    found = [thing("red cup", 1, 4, (1.5, 0.0), (0.0, 0.0, 1.0))]
    true = [thing("red cup", 7, 4, (4.5, 4.0), (0.0, 0.3, 1.4)), thing("red box", 8, 0, (1.5, 0.0))]
    result = compare("red cup", found, labels, true, true_labels)
    assert (result["found"], result["present"]) == (1, 1)
    assert result["iou"] == pytest.approx(2 / 6)
    assert result["centroid_error_px"] == pytest.approx(5.0)
    assert result["position_error_m"] == pytest.approx(0.5)


def test_the_nearest_of_several_true_objects_counts(labels):
    true_labels = np.repeat(np.array([1, 1, 2, 2, 3, 3], np.uint8), 2)
    true = [thing("red cup", 1, 4, (90.0, 0.0)), thing("blue cup", 2, 4, (2.0, 0.0))]
    true.append(thing("red box", 3, 4, (1.5, 0.0)))
    result = compare("cup", [thing("cup", 1, 4, (1.5, 0.0))], labels, true, true_labels)
    assert result["present"] == 2
    assert result["iou"] == pytest.approx(4 / 8)
    assert result["centroid_error_px"] == pytest.approx(0.5)
    assert result["position_error_m"] is None


def test_pixels_that_another_prompt_took_are_not_held_against_an_answer(labels):
    true_labels = np.zeros(12, np.uint8)
    true_labels[:6] = 1
    # Of the six pixels of the cup, two went to an answer for another prompt.
    result = compare("cup", [thing("cup", 1, 6, (1.5, 0.0))], labels, [thing("red cup", 1, 6, (1.5, 0.0))], true_labels)
    assert result["iou"] is None
    assert result["centroid_error_px"] == 0


def test_what_is_absent_or_not_found_has_no_figures(labels):
    for found, true in (([], [thing("red cup", 1, 4, (0.0, 0.0))]), ([thing("red cup", 1, 4, (0.0, 0.0))], [])):
        result = compare("red cup", found, labels, true, labels)
        assert result["iou"] is None
        assert result["centroid_error_px"] is None


def test_the_truth_of_a_phrase_beyond_it_is_unknown(labels):
    found = [thing("cup left of the box", 1, 4, (1.5, 0.0))]
    assert (
        compare("cup left of the box", found, labels, [thing("red cup", 1, 4, (1.5, 0.0))], labels)["present"] is None
    )
    assert compare("blue cup", [], labels, [thing("red cup", 1, 4, (1.5, 0.0))], labels)["present"] == 0
