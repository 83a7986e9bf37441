# SPDX-License-Identifier: Apache-2.0
"""What a negative takes away, with small arrays and with the embedded model on a rendered scene."""

from __future__ import annotations

import numpy as np
import pytest

from clip_seg_ros.pipeline.answering import Question, answer
from clip_seg_ros.pipeline.leaving_out import leave_out
from clip_seg_ros.pipeline.postprocess import masks, regions
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.sim.renderer import SceneRenderer
from clip_seg_ros.sim.scene import sample_scene
from clip_seg_ros.types import ProbabilityMaps


def found_in(values: np.ndarray):
    maps = ProbabilityMaps(("box",), values[None].astype(np.float32))
    return regions(maps, masks(maps, 0.5))


def probabilities(*parts: tuple[slice, slice, float]) -> np.ndarray:
    values = np.zeros((30, 60), np.float32)
    for rows, columns, value in parts:
        values[rows, columns] = value
    return values


ROWS = slice(5, 25)
BOXES = probabilities((ROWS, slice(2, 22), 0.9), (ROWS, slice(30, 50), 0.8))


def test_what_the_negative_does_not_name_stays_as_it_is() -> None:
    boxes = found_in(BOXES)
    assert leave_out(boxes, probabilities(), 0.5) == boxes
    assert leave_out(boxes, probabilities((ROWS, slice(52, 60), 0.9)), 0.5) == boxes


def test_a_doubtful_part_goes_with_the_sure_one_beside_it() -> None:
    """The shaded side of the thing is hardly the negative's: no scrap of it stays."""
    unwanted = probabilities((ROWS, slice(24, 34), 0.9), (ROWS, slice(34, 50), 0.25))
    assert [region.box_px[0] for region in leave_out(found_in(BOXES), unwanted, 0.5)] == [2]
    # By itself it is no reason.
    assert len(leave_out(found_in(BOXES), probabilities((ROWS, slice(30, 50), 0.25)), 0.5)) == 2


def test_two_things_in_one_mask_are_parted() -> None:
    merged = found_in(probabilities((ROWS, slice(2, 40), 0.9)))
    (left,) = leave_out(merged, probabilities((ROWS, slice(25, 60), 0.9)), 0.5)
    assert left.box_px == (2, 5, 25, 25)
    assert left.area_px == left.mask.sum() == 23 * 20
    assert left.centroid_px == pytest.approx((13.0, 14.5))
    assert left.id == merged[0].id


def test_no_scrap_of_the_white_box_stays() -> None:
    with SceneRenderer() as renderer:
        scene = sample_scene(4, required=[("white", "box"), ("red", "box")], objects=(4, 6))
        view = renderer.render(scene, depth=False)
    predictor = Predictor.from_name("clipseg-pocket", "cpu", engine="eager")
    question = Question(("boxes",), ("white boxes",), 0.5, 0.002)
    found = answer(predictor, predictor.encode(view.rgb), question).regions
    assert len(found) == 1
    assert not (found[0].mask & view.mask_of("white", "box")).any()
    assert (found[0].mask & view.mask_of("red", "box")).sum() > 0.9 * found[0].area_px
