# SPDX-License-Identifier: Apache-2.0
"""Trains the embeddings of new words without changing those of all other words."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn


class NewWords(nn.Module):
    """Replaces a text tower's table of word embeddings while some of its rows are trained.

    Args:
        table: The table, (V, C).
        rows: The rows of the new words.
    """

    def __init__(self, table: nn.Embedding, rows: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("_table", table.weight.detach().clone(), persistent=False)
        self.register_buffer("_rows", torch.tensor(rows, dtype=torch.int64), persistent=False)
        self.rows = nn.Parameter(self._table[self._rows].clone())

    @property
    def weight(self) -> torch.Tensor:
        """The whole table (V, C) with the present new rows."""
        return self._table.index_copy(0, self._rows, self.rows)

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Returns the embeddings (..., C) of token ids of any shape."""
        return F.embedding(token_ids, self.weight)
