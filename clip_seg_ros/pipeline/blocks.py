# SPDX-License-Identifier: Apache-2.0
"""Blocks of pixels that are mixed of the same places, and the values of their pixels.

A run of columns and a run of rows (``mixing``) share one block, of about two by two pixels at 640x480 and four by four
at 1080p. What holds at all places of a block can be said of all its pixels at once; the values of single pixels are
mixed only for the blocks about which there is nothing to say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from clip_seg_ros.pipeline.mixing import Axis, Mixing

_AT_ONCE = 1 << 18
"""About how many values are mixed at once; they should stay in the cache of a processor."""


@dataclass(frozen=True)
class Blocks:
    """Some n blocks of an image."""

    mixed: Mixing
    column_run: torch.Tensor
    """(n,) int64."""
    row_run: torch.Tensor
    """(n,) int64."""
    places: torch.Tensor
    """(n, k) int64, the places of each block, as indices into the arranged places; some of them are repeated."""

    @classmethod
    def of(cls, chosen: torch.Tensor, mixed: Mixing) -> Blocks:
        """Takes those blocks for which ``chosen`` (runs of columns, runs of rows) bool is True."""
        column_run, row_run = (runs.contiguous() for runs in chosen.nonzero().unbind(1))
        rows = (mixed.rows.places * mixed.across).index_select(0, row_run)
        columns = mixed.columns.places.index_select(0, column_run)
        return cls(mixed, column_run, row_run, (rows[:, :, None] + columns[:, None]).flatten(1))

    def __len__(self) -> int:
        return self.places.shape[0]

    def part(self, index: torch.Tensor) -> Blocks:
        """Takes some of these blocks, given by their indices."""
        parts = (values.index_select(0, index) for values in (self.column_run, self.row_run, self.places))
        return Blocks(self.mixed, *parts)

    def pixels(
        self, table: torch.Tensor, places: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Mixes the values of all pixels of these blocks, some at a time.

        Args:
            table: (N, K) float32, the values of N places.
            places: (n, k) int64, which rows of the table are the places of each block.

        Yields:
            Indices of p pixels into the flat image, the block of each, both (p,) int64, and their values (K, p).
        """
        rows, columns = self.mixed.rows, self.mixed.columns
        depth, taps = rows.places.shape[1], columns.places.shape[1]
        # One column of a block is a bar, whose pixels share what is mixed along the columns.
        every_block, every_column = _spread(columns, self.column_run)
        bars = max(1, _AT_ONCE // (table.shape[1] * depth))
        below = torch.arange(depth, device=table.device)
        for block, column in zip(every_block.split(bars), every_column.split(bars)):
            weights = columns.weights.index_select(0, column)[:, None].expand(-1, depth, -1)
            across = _mix(table, places.index_select(0, block).view(-1, taps), weights.reshape(-1, taps))
            bar, row = _spread(rows, self.row_run.index_select(0, block))
            values = _mix(across, (bar * depth)[:, None] + below, rows.weights.index_select(0, row))
            pixels = row * len(columns.run) + column.index_select(0, bar)
            yield pixels, block.index_select(0, bar), values.t().contiguous()


def agreed(values: torch.Tensor, mixed: Mixing, otherwise: int) -> torch.Tensor:
    """Finds where all places of a block have the same value.

    Args:
        values: (rows, columns) of integers, at the arranged places.
        mixed: The mixing of the image.
        otherwise: What to return of all other blocks.

    Returns:
        (runs of columns, runs of rows): that value, or ``otherwise``.
    """
    differ = torch.zeros_like(values)
    for axis in (mixed.rows, mixed.columns):
        # Whole rows are selected and then turned, because selecting columns takes several times as long. Bits that
        # differ are gathered, because that takes less time than to compare.
        first, *others = axis.places.unbind(1)
        one = values.index_select(0, first)
        apart = differ.index_select(0, first)
        for other in others:
            apart |= differ.index_select(0, other)
            apart |= values.index_select(0, other).bitwise_xor_(one)
        values, differ = one.t().contiguous(), apart.t().contiguous()
    return values.t().masked_fill(differ.t() != 0, otherwise)


def _spread(axis: Axis, runs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Lists the pixels along an axis of n runs: (p,) int64 each, which of the n it is, and its coordinate."""
    lengths = axis.length.index_select(0, runs)
    owner = torch.repeat_interleave(lengths)
    start = axis.first.index_select(0, runs) - (lengths.cumsum(0) - lengths)
    return owner, start.index_select(0, owner) + torch.arange(len(owner), device=owner.device)


def _mix(values: torch.Tensor, places: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Returns (n, K), the weighted sums of k rows of ``values`` (N, K); the other two are (n, k)."""
    return F.embedding_bag(places, values, mode="sum", per_sample_weights=weights)
