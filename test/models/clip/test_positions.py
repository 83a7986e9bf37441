# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import nn

from clip_seg_ros.models.clip.positions import PositionTable, resize_position_table
from nearness import assert_near


class Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        values = torch.randn(1 + 4 * 4, 6, generator=torch.Generator().manual_seed(0))
        self.positional_embedding = nn.Parameter(values)


def test_position_table_keeps_its_first_row_and_the_order_of_axes() -> None:
    # One channel rises with the row, the other with the column.
    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
    table = torch.cat([torch.full((1, 2), 9.0), torch.stack([rows.flatten(), columns.flatten()], dim=1)])
    resized = resize_position_table(table, (4, 4), (2, 8))
    assert torch.equal(resized[0], table[0])
    grid = resized[1:].view(2, 8, 2)
    assert (grid[1, :, 0] > grid[0, :, 0] + 1).all()
    assert (grid[:, 1:, 1] > grid[:, :-1, 1]).all()
    assert resize_position_table(table, (4, 4), (4, 4)) is table


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_every_grid_has_its_own_table(mode: str) -> None:
    tower = Tower()
    positions = PositionTable(tower, (4, 4), mode)
    with torch.inference_mode():
        for grid in ((4, 4), (3, 5), (5, 3), (3, 5), (4, 4)):
            expected = resize_position_table(tower.positional_embedding, (4, 4), grid, mode)
            assert_near(positions(grid, torch.float32), expected)
        assert positions((3, 5), torch.float32) is positions((3, 5), torch.float32)


def test_a_trained_table_is_interpolated_anew() -> None:
    tower = Tower()
    positions = PositionTable(tower, (4, 4))
    with torch.no_grad():
        before = positions((3, 5), torch.float32).clone()
    positions((3, 5), torch.float32).square().sum().backward()
    assert tower.positional_embedding.grad.abs().sum(dim=1).min() > 0
    torch.optim.SGD(tower.parameters(), lr=0.1).step()
    with torch.no_grad():
        after = positions((3, 5), torch.float32)
    assert (after - before).abs().max() > 1e-2


def test_half_precision_rounds_once() -> None:
    tower = Tower().half()
    exact = resize_position_table(tower.positional_embedding.float(), (4, 4), (3, 5))
    with torch.inference_mode():
        found = PositionTable(tower, (4, 4))((3, 5), torch.float16)
    assert found.dtype == torch.float16
    assert_near(found, exact.half(), relative=1e-7)
