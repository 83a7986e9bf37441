# SPDX-License-Identifier: Apache-2.0
"""Things cut out of their surroundings by colours, in drawn pictures."""

from __future__ import annotations

import numpy as np
import pytest

from clip_seg_ros.evaluation.metrics.masks import mask_iou
from clip_seg_ros.pipeline.cutting import cut_around, cut_in, enlarged, largest_part, part_at, sharpened

SIZE = (120, 160)
CENTER, RADIUS = (70, 60), 25


@pytest.fixture
def disk() -> np.ndarray:
    rows, columns = np.indices(SIZE)
    return np.hypot(columns - CENTER[0], rows - CENTER[1]) <= RADIUS


@pytest.fixture
def picture(disk) -> np.ndarray:
    """A noisy red disk on noisy grey."""
    rgb = np.where(disk[..., None], (200, 40, 40), (120, 120, 120)) + np.random.default_rng(0).normal(0, 8, (*SIZE, 3))
    return rgb.clip(0, 255).astype(np.uint8)


def test_a_first_guess_grows_to_the_edges_of_the_thing(picture, disk):
    guess = np.zeros(SIZE, np.bool_)
    guess[50:70, 60:80] = True
    none = np.zeros(SIZE, np.bool_)
    assert mask_iou(cut_around(picture, guess, none, CENTER), disk) > 0.95
    assert mask_iou(cut_around(picture, none, none, CENTER), disk) < 0.95, "without a guess, colours around are unknown"


def test_what_is_surely_something_else_is_left_out(picture, disk):
    right = np.zeros(SIZE, np.bool_)
    right[:, CENTER[0] + 18 :] = True
    mask = cut_around(picture, disk & ~right, right, (CENTER[0] - 8, CENTER[1]))
    assert not (mask & right).any()
    assert mask_iou(mask, disk & ~right) > 0.8


def test_a_careless_box_gives_the_thing(picture, disk):
    assert mask_iou(cut_in(picture, (48, 33, 93, 88), 0.3), disk) > 0.95


def test_the_thing_in_a_large_box_is_found_in_a_reduced_picture(picture, disk):
    large, truth = np.kron(picture, np.ones((8, 8, 1), np.uint8)), np.kron(disk, np.ones((8, 8), np.bool_))
    assert mask_iou(cut_in(large, (8 * 48, 8 * 33, 8 * 93, 8 * 88), 0.3), truth) > 0.95


def test_the_same_picture_gives_the_same_mask(picture):
    first, second = (cut_in(picture, (48, 33, 93, 88), 0.3) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_box_of_the_whole_picture_has_no_surroundings_and_gives_nothing(picture):
    assert not cut_in(picture, (0, 0, 160, 120), 0.3).any()


def test_a_border_moves_to_the_edge_but_not_farther(picture, disk):
    shifted = np.roll(disk, 2, axis=1)
    assert mask_iou(sharpened(picture, shifted, 3), disk) > mask_iou(shifted, disk) + 0.03
    far = np.roll(disk, 20, axis=1)
    moved = sharpened(picture, far, 3)
    assert not moved[:, : 20 + CENTER[0] - RADIUS - 4].any()


def test_parts_of_a_mask():
    mask = np.zeros((6, 8), np.bool_)
    mask[1, 1] = mask[3:5, 4:7] = True
    assert part_at(mask, (1, 1)).sum() == 1
    assert part_at(mask, (5, 3)).sum() == 6
    assert not part_at(mask, (0, 0)).any()
    assert largest_part(mask).sum() == 6
    assert enlarged(mask, (12, 16)).sum() == pytest.approx(4 * mask.sum(), abs=6)
