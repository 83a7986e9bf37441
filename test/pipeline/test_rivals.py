# SPDX-License-Identifier: Apache-2.0
"""Which phrases can win, beside which ones do."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clip_seg_ros.pipeline.blocks import Blocks
from clip_seg_ros.pipeline.mixing import mixing
from clip_seg_ros.pipeline.rivals import OPEN, find_duels, first_equal, runner_up, weakest_rival

NO_LIMIT = torch.tensor(-torch.inf)


def smooth(phrases: int) -> tuple[torch.Tensor, Blocks]:
    """Returns smooth values (P, 16, 20), and all blocks of an image of them."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, phrases, 4, 5, generator=random)
    values = F.interpolate(coarse, size=(16, 20), mode="bicubic", align_corners=False)[0]
    mixed = mixing((16, 20), None, (64, 80), (100, 130), torch.device("cpu"))
    chosen = torch.ones(mixed.columns.places.shape[1], mixed.rows.places.shape[1], dtype=torch.bool)
    return values, Blocks.of(chosen, mixed)


def winners_at_pixels(values: torch.Tensor, blocks: Blocks) -> torch.Tensor:
    """Returns (pixels of a block, n), the best phrase of each pixel."""
    return blocks.values(values.flatten(1)[:, blocks.places]).argmax(dim=0).flatten(0, 1)


@pytest.mark.parametrize("count", [3, 255, 256, 600])
def test_the_first_of_equal_phrases(count: int) -> None:
    values = torch.randint(0, 3, (count, 7, 9), generator=torch.Generator().manual_seed(0)).float()
    values[-1, 0, 0] = 5.0
    values[1, 2, 3] = torch.nan
    top = values.amax(dim=0)
    expected = values.argmax(dim=0)
    expected[2, 3] = OPEN
    assert torch.equal(first_equal(values, top).long(), expected)


def test_the_second_best_phrase() -> None:
    values = torch.tensor([[3.0, 1.0, 2.0, 2.0], [2.0, 3.0, 2.0, torch.nan], [1.0, 2.0, 1.0, 1.0]])[:, None]
    winner = first_equal(values, values.amax(dim=0))
    assert runner_up(values, winner, NO_LIMIT).tolist() == [[1, 2, 1, OPEN]]
    assert runner_up(values, winner, torch.tensor(2.5)).tolist() == [[OPEN] * 4]


@pytest.mark.parametrize("phrases", [2, 3, 8, 30])
def test_no_third_phrase_wins_a_duel(phrases: int) -> None:
    values, blocks = smooth(phrases)
    winner = first_equal(values, values.amax(dim=0))
    duels, rivals, others = find_duels(blocks, winner, runner_up(values, winner, NO_LIMIT))
    won = winners_at_pixels(values, duels)
    assert ((won == rivals[0]) | (won == rivals[1])).all()
    assert (won == rivals[0]).any()
    assert (won == rivals[1]).any()
    assert len(duels.row_run) + len(others.row_run) == len(blocks.row_run)
    assert len(duels.row_run) > 0.3 * len(blocks.row_run)


def test_where_something_is_not_a_number_there_is_no_duel() -> None:
    values, blocks = smooth(3)
    values[1, 5, 6] = torch.nan
    winner = first_equal(values, values.amax(dim=0))
    duels, _, others = find_duels(blocks, winner, runner_up(values, winner, NO_LIMIT))
    assert not (duels.places == 5 * 20 + 6).any()
    assert (others.places == 5 * 20 + 6).any()


def test_phrases_below_the_weakest_rival_win_nothing() -> None:
    values, blocks = smooth(30)
    # Most phrases are far below the others.
    values[6:] -= 6.0
    winner = first_equal(values, values.amax(dim=0))
    weakest = weakest_rival(values, winner, blocks)
    below = (values.amax(dim=(1, 2)) < weakest).nonzero()[:, 0]
    assert 0 < len(below) < 30
    assert not torch.isin(winners_at_pixels(values, blocks), below).any()
    assert weakest_rival(values, winner, blocks.part(below[:0])) == torch.inf
