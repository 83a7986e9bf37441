# SPDX-License-Identifier: Apache-2.0
"""New words are trained, and the others stay exactly as they are."""

from __future__ import annotations

import torch
from torch import nn

from clip_seg_ros.training.recipes.new_words import NewWords


def test_only_the_new_rows_learn() -> None:
    torch.manual_seed(0)
    table = nn.Embedding(6, 4)
    before = table.weight.detach().clone()
    words = NewWords(table, [1, 4])
    assert [name for name, _ in words.named_parameters()] == ["rows"]
    assert set(words.state_dict()) == {"rows"}
    ids = torch.tensor([[0, 1, 4], [5, 5, 1]])
    assert torch.equal(words(ids), table(ids))
    optimizer = torch.optim.AdamW(words.parameters(), lr=0.1, weight_decay=0.5)
    words(ids).square().sum().backward()
    optimizer.step()
    moved = (words.weight != before).any(dim=1)
    assert moved.tolist() == [False, True, False, False, True, False]
    assert torch.equal(table.weight, before), "the table that it stands in for is left alone"


def test_a_state_goes_on_where_it_was() -> None:
    table = nn.Embedding(5, 3)
    first, again = NewWords(table, [2]), NewWords(table, [2])
    with torch.no_grad():
        first.rows += 1
    again.load_state_dict(first.state_dict())
    assert torch.equal(again.weight, first.weight)
