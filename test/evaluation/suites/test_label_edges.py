# SPDX-License-Identifier: Apache-2.0
"""What refining brings for answers that are made from labels, on pictures whose edges are known."""

from __future__ import annotations

import numpy as np
import pytest

from clip_seg_ros.data.samples import IGNORED, SemanticSample
from clip_seg_ros.evaluation.suites.label_edges import label_edges

SIZE = (240, 320)
Y, X = np.mgrid[: SIZE[0], : SIZE[1]]


@pytest.fixture
def sample() -> SemanticSample:
    """A red cross on grey, with a strip without labels."""
    inside = (abs(X - 150) <= 9) & (abs(Y - 120) <= 80) | (abs(X - 150) <= 80) & (abs(Y - 120) <= 9)
    rgb = np.where(inside[..., None], (180, 60, 50), (110, 115, 120))
    noisy = (rgb + np.random.default_rng(0).normal(0, 2, rgb.shape)).clip(0, 255).astype(np.uint8)
    labels = np.where(inside, 1, 0).astype(np.uint8)
    labels[:6] = IGNORED
    return SemanticSample(noisy, labels, "cross")


def test_coarse_answers_fit_the_edges_afterwards(sample: SemanticSample) -> None:
    found = {figure.name: figure.value for figure in label_edges([sample, sample], ["table", "cup", "sky"])}

    assert found["edges.images"] == 2
    assert found["edges.coarse_refined.count"] == 4, "the sky is in no picture"
    assert found["edges.coarse_refined.boundary_f"] > found["edges.coarse_unrefined.boundary_f"] + 0.03
    assert found["edges.coarse_refined.mean_iou"] > found["edges.coarse_unrefined.mean_iou"]
    assert found["edges.blurred_unrefined.boundary_f"] > 0.9, "they are right to a pixel or two"


def test_without_pictures_nothing_is_measured() -> None:
    assert [figure.name for figure in label_edges([], ["cup"])] == ["edges.images"]
