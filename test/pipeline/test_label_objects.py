# SPDX-License-Identifier: Apache-2.0
"""The objects of all labels at once, beside those of one mask for each label."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from clip_seg_ros.pipeline.label_objects import label_objects
from clip_seg_ros.pipeline.postprocess import MAX_REGIONS, regions
from clip_seg_ros.types import MaskSet, ObjectRegion, ProbabilityMaps
from nearness import assert_near

NAMES = ("cup", "box", "table")


def by_masks(labels: np.ndarray, values: np.ndarray, least_px: int) -> list[ObjectRegion]:
    inside = np.stack([labels == index for index in range(len(NAMES))])
    maps = ProbabilityMaps(NAMES, np.stack([values] * len(NAMES)))
    return regions(maps, MaskSet(NAMES, inside, 0.0), least_px)


def assert_equal(found: list[ObjectRegion], expected: list[ObjectRegion]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one.prompt, one.id, one.box_px, one.area_px) == (other.prompt, other.id, other.box_px, other.area_px)
        np.testing.assert_array_equal(one.mask, other.mask)
        assert_near(one.score, other.score)
        assert_near(np.array(one.centroid_px), np.array(other.centroid_px), scale=float(max(one.mask.shape)))


@pytest.mark.parametrize("seed", range(20))
def test_objects_are_those_of_one_mask_for_each_label(seed: int) -> None:
    random = np.random.default_rng(seed)
    height, width = (int(side) for side in random.integers(1, 40, 2))
    coarse = random.choice([0, 1, 2, 255], (random.integers(1, 12), random.integers(1, 12))).astype(np.uint8)
    labels = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)
    values = random.random((height, width), dtype=np.float32)
    least_px = int(random.integers(1, 6))
    assert_equal(label_objects(labels, values, NAMES, least_px), by_masks(labels, values, least_px))


def test_noise_has_no_more_objects_than_ids() -> None:
    random = np.random.default_rng(0)
    labels = random.choice([0, 1, 2, 255], (120, 160)).astype(np.uint8)
    values = random.random(labels.shape, dtype=np.float32)
    found = label_objects(labels, values, NAMES, 1)
    assert len(found) == MAX_REGIONS
    assert [region.score for region in found] == sorted((region.score for region in found), reverse=True)


def test_a_spiral_is_one_object() -> None:
    labels = np.full((9, 9), 255, np.uint8)
    for ring in (0, 2, 4):
        labels[ring : 9 - ring, ring] = labels[8 - ring, ring : 9 - ring] = 0
        labels[ring : 9 - ring, 8 - ring] = labels[ring, ring + 2 : 9 - ring] = 0
        labels[ring + 2, ring : ring + 3] = 0
    values = np.ones(labels.shape, np.float32)
    assert_equal(label_objects(labels, values, NAMES, 1), by_masks(labels, values, 1))


def test_rows_do_not_run_into_one_another() -> None:
    labels = np.array([[255, 255, 0], [255, 255, 255], [0, 255, 255]], np.uint8)
    found = label_objects(labels, np.ones(labels.shape, np.float32), NAMES, 1)
    assert [region.box_px for region in found] == [(2, 0, 3, 1), (0, 2, 1, 3)]


def test_equal_scores_keep_the_order_of_the_names() -> None:
    labels = np.array([[2, 255, 0, 255, 1]], np.uint8)
    found = label_objects(labels, np.ones(labels.shape, np.float32), NAMES, 1)
    assert [region.prompt for region in found] == ["cup", "box", "table"]


def test_without_labels_there_are_no_objects() -> None:
    labels = np.full((4, 5), 255, np.uint8)
    assert label_objects(labels, np.ones(labels.shape, np.float32), NAMES, 1) == []
