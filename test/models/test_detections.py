# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from clip_seg_ros.models.detections import in_window
from nearness import assert_near


def test_cells_of_whole_pixels_are_laid_over_them_as_they_are() -> None:
    mask = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
    (rows, columns), inside = in_window(mask, torch.tensor([3.0, 5.0, 9.0, 9.0]), (20, 30))
    assert (rows, columns) == (slice(5, 9), slice(3, 9))
    assert_near(inside, mask)


def test_values_between_the_middles_of_cells_are_interpolated() -> None:
    mask = torch.tensor([[0.0, 1.0]])
    _, inside = in_window(mask, torch.tensor([0.0, 0.0, 8.0, 1.0]), (1, 8))
    # The middles of the cells are at 2 and 6; outside the outermost ones the values fall to 0.
    assert_near(inside[0, 2:6], torch.tensor([0.125, 0.375, 0.625, 0.875]))
    assert inside[0, 7] < inside[0, 6]


@pytest.mark.parametrize("mask", [torch.ones(3, 3), None])
def test_windows_stay_in_the_image_and_have_a_pixel(mask) -> None:
    (rows, columns), inside = in_window(mask, torch.tensor([-4.0, 3.2, 2.5, 12.0]), (8, 8))
    assert (rows, columns) == (slice(3, 8), slice(0, 3))
    assert inside.shape == (5, 3)
    (rows, columns), inside = in_window(mask, torch.tensor([7.2, 7.2, 7.4, 7.4]), (8, 8))
    assert inside.shape == (1, 1)
    (rows, columns), _ = in_window(mask, torch.tensor([8.0, 0.0, 9.0, 8.0]), (8, 8))
    assert columns == slice(7, 8), "a box at the edge keeps the last column"


def test_without_a_mask_the_box_has_the_pixels_whose_centres_it_holds() -> None:
    (_, columns), inside = in_window(None, torch.tensor([1.4, 0.0, 4.6, 2.0]), (2, 8))
    assert columns == slice(1, 5)
    assert inside.tolist() == [[1, 1, 1, 1]] * 2
    _, inside = in_window(None, torch.tensor([1.6, 0.0, 4.4, 2.0]), (2, 8))
    assert inside.tolist() == [[0, 1, 1, 0]] * 2
