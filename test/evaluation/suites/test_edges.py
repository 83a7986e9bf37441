# SPDX-License-Identifier: Apache-2.0
"""What the suite says of a model that answers the truth, smoothly."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from clip_seg_ros.evaluation.suite import Figure
from clip_seg_ros.evaluation.suites.edges import DECODED_PX, EdgeExaminer, coarse
from clip_seg_ros.models.spec import NOTHING_CORRECTED
from clip_seg_ros.pipeline.cell_maps import CellMaps
from clip_seg_ros.pipeline.preprocess import Geometry
from clip_seg_ros.sim.naming import pair_of


class Honest:
    """Answers pairs of colour and kind with the truth, at a third of the image's resolution."""

    spec = SimpleNamespace(threshold=0.5, calibration=NOTHING_CORRECTED)

    def __init__(self, views):
        self._views = views

    def encode(self, rgb):
        return next(view for view in self._views if view.rgb is rgb)

    def ask_cells(self, view, prompts):
        masks = [view.mask_of(*pair_of(prompt)).astype(np.float32) for prompt in prompts]
        height, width = view.labels.shape
        size = (height // 3, width // 3)
        values = np.stack([cv2.resize(mask, size[::-1], interpolation=cv2.INTER_AREA) for mask in masks])
        return CellMaps(tuple(prompts), values, Geometry((height, width), size))


@pytest.fixture(scope="module")
def examined(held_out):
    examiner = EdgeExaminer(Honest([view for _, view in held_out]))
    for scene, view in held_out:
        examiner.examine(scene, view)
    return examiner


def test_refined_masks_of_coarse_answers_fit_better(examined):
    figures = {figure.name: figure.value for figure in examined.figures()}
    assert figures["edges.refined.boundary_f"] > figures["edges.unrefined.boundary_f"] + 0.03
    assert figures["edges.refined.mean_iou"] > figures["edges.unrefined.mean_iou"]
    assert figures["edges.own_unrefined.boundary_f"] > figures["edges.unrefined.boundary_f"], "it is not as coarse"
    for name in ("refined", "unrefined", "own_refined", "own_unrefined"):
        assert figures[f"edges.{name}.boundary_f"] <= figures[f"edges.{name}.boundary_f_davis"] <= 1
        assert figures[f"edges.{name}.count"] == figures["edges.refined.count"] > 0
    assert all(figures[f"edges.{size}.cpu_ms"] > 0 for size in ("vga", "1080p"))
    assert all(0 < figures[f"edges.{size}.least_ms"] <= figures[f"edges.{size}.ms"] for size in ("vga", "1080p"))


def test_pictures_show_masks_before_and_after(examined):
    (picture,) = examined.pictures().values()
    assert picture.shape[1:] == (4 * 320, 3)
    assert picture.shape[0] % 480 == 0


def test_nothing_asked_is_nothing_measured():
    examiner = EdgeExaminer(Honest([]))
    assert examiner.figures() == [Figure("edges.scenes", 0, "scenes")]
    assert examiner.pictures() == {}


def test_coarse_probabilities_are_those_of_22_cells():
    geometry = Geometry((480, 640), (220, 220))
    values = np.zeros((1, 220, 220), np.float32)
    values[0, :, :110] = 1.0
    found = coarse(CellMaps(("a",), values, geometry))
    assert found.values.shape == (1, DECODED_PX, DECODED_PX)
    assert found.size == (480, 640)
    row = found.values[0, DECODED_PX // 2]
    assert row.min() >= 0
    assert row.max() <= 1
    # From one cell's middle to the next one's, 16 places on, the probability falls from 1 to 0.
    assert row[DECODED_PX // 2 - 9] > 0.95
    assert row[DECODED_PX // 2 + 8] < 0.05
    assert 0.2 < row[DECODED_PX // 2 - 4] - row[DECODED_PX // 2 + 4] < 0.9
