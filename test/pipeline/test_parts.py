# SPDX-License-Identifier: Apache-2.0
"""Connected parts and their holes, against OpenCV's."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from clip_seg_ros.pipeline.parts import connected, drawn, in_small_holes, in_window, parts_of
from clip_seg_ros.pipeline.runs import runs_of_masks
from nearness import assert_near


def random_masks(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    fine = random.random((2, 24, 31)) < 0.45
    coarse = np.kron(random.random((1, 6, 8)) < 0.5, np.ones((1, 4, 4), bool))[:, :, :31]
    return np.concatenate([fine, coarse, np.zeros_like(coarse), np.ones_like(coarse)])


@pytest.mark.parametrize("seed", range(6))
def test_parts_are_those_of_opencv(seed: int) -> None:
    masks = random_masks(seed)
    values = np.random.default_rng(seed).random(masks.shape).astype(np.float32)
    parts = parts_of(runs_of_masks(masks, values))
    place = 0
    for label, mask in enumerate(masks):
        count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
        # In the order of their first pixels, as OpenCV may number them otherwise.
        first = [np.flatnonzero(labels == each)[0] for each in range(1, count)]
        for each in 1 + np.argsort(first) if first else []:
            left, top, width, height, area = stats[each]
            assert parts.label[place] == label
            assert parts.area[place] == area
            assert parts.boxes[place].tolist() == [left, top, left + width, top + height]
            assert_near(parts.value[place], values[label][labels == each].mean())
            rows, columns = np.nonzero(labels == each)
            assert_near(parts.centroids[place], np.array([columns.mean(), rows.mean()]), scale=31.0)
            outside = (labels != each).view(np.uint8)
            background = cv2.connectedComponents(cv2.copyMakeBorder(outside, 1, 1, 1, 1, 0, value=1), connectivity=4)[0]
            assert parts.holes[place] == background - 2, "all but the mask itself and what is outside"
            place += 1
    assert place == len(parts)


@pytest.mark.parametrize("seed", range(8))
def test_small_holes_are_those_of_a_flood_from_outside(seed: int) -> None:
    random, box = np.random.default_rng(seed), (0, 0, 27, 22)
    masks = np.stack([cv2.dilate((random.random((22, 27)) < 0.3).astype(np.uint8), np.ones((2, 2))) for _ in range(3)])
    parts = parts_of(runs_of_masks(masks > 0, np.ones(masks.shape, np.float32)))
    spans, limits = [parts.runs_of(part) for part in range(len(parts))], random.choice([1, 3, 40], len(parts))
    number = np.repeat(np.arange(len(parts)), [len(rows) for rows, _, _ in spans])
    small = in_small_holes(number, *(np.concatenate(each) for each in zip(*spans)), masks.shape[1:], limits)
    for part, (rows, lefts, rights) in enumerate(spans):
        inside = drawn(*in_window(rows, lefts, rights, box), box)
        assert inside.sum() == parts.area[part]
        filled, expected = inside.copy(), inside.copy()
        for k in np.flatnonzero(small[number == part]):
            filled[rows[k], rights[k] : lefts[k + 1]] = True
        around = cv2.copyMakeBorder((~inside).view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
        count, labels = cv2.connectedComponents(around, connectivity=4)
        outside, labels = labels[0, 0], labels[1:-1, 1:-1]
        for each in set(range(1, count)) - {outside}:
            if (labels == each).sum() <= limits[part]:
                expected |= labels == each
        np.testing.assert_array_equal(filled, expected)
    assert small.any()


def test_runs_are_drawn_into_their_box() -> None:
    rows, lefts, rights = np.array([2, 2, 3]), np.array([4, 7, 5]), np.array([6, 8, 8])
    box = (4, 2, 8, 4)
    inside = drawn(*in_window(rows, lefts, rights, box), box)
    assert inside.tolist() == [[True, True, False, True], [False, True, True, True]]


def test_a_long_chain_is_one_group_and_groups_have_the_order_of_their_first_members() -> None:
    random = np.random.default_rng(0)
    chain = random.permutation(np.arange(1, 1000, 2))
    number, count = connected(1000, chain[1:], chain[:-1])
    assert count == 501
    assert (number[1::2] == 1).all()
    assert number[:6].tolist() == [0, 1, 2, 1, 3, 1]
    assert connected(0, chain[:0], chain[:0])[1] == 0
