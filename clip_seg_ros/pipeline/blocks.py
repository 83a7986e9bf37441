# SPDX-License-Identifier: Apache-2.0
"""Blocks of pixels that are mixed of the same places.

A run of columns and a run of rows (``mixing``) cross in one block, of about four by four pixels at 640x480 and nine by
nine at 1080p. What holds at all places of a block often decides all its pixels at once. The values of single pixels are
mixed only for the other blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from clip_seg_ros.pipeline.mixing import Mixing


def at_once(device: torch.device) -> int:
    """Returns about how many float32 values to work on at once.

    On a processor they should stay in its cache. Elsewhere, fewer and larger steps are faster, as long as they fit.
    """
    return 1 << 18 if device.type == "cpu" else 1 << 26


@dataclass(frozen=True)
class Blocks:
    """Some n blocks of an image.

    All tensors have the blocks as their last axis, because what runs along the others is short.
    """

    mixed: Mixing
    column_run: torch.Tensor
    """(n,) int64."""
    row_run: torch.Tensor
    """(n,) int64."""
    places: torch.Tensor
    """(k, n) int64, the places of each block, as indices into the arranged places; some of them are repeated."""

    @classmethod
    def of(cls, chosen: torch.Tensor, mixed: Mixing) -> Blocks:
        """Takes those blocks for which ``chosen`` (runs of columns, runs of rows) bool is True."""
        index = chosen.flatten().nonzero()[:, 0]
        column_run = index // chosen.shape[1]
        row_run = index - column_run * chosen.shape[1]
        rows = (mixed.rows.places * mixed.across).index_select(1, row_run)
        columns = mixed.columns.places.index_select(1, column_run)
        return cls(mixed, column_run, row_run, (rows[:, None] + columns).flatten(0, 1))

    def part(self, index: torch.Tensor) -> Blocks:
        """Takes some of these blocks, given by their indices."""
        return Blocks(self.mixed, self.column_run[index], self.row_run[index], self.places.index_select(1, index))

    def within(self, window: slice) -> Blocks:
        """Takes those of a window of ``windows``."""
        return Blocks(self.mixed, self.column_run[window], self.row_run[window], self.places[:, window])

    def windows(self, kinds: int) -> Iterator[slice]:
        """Splits the blocks so that ``kinds`` values of all pixels of a part are about as many as ``at_once`` says."""
        block_px = self.mixed.rows.pixels.shape[0] * self.mixed.columns.pixels.shape[0]
        step = max(1, at_once(self.places.device) // (kinds * block_px))
        return (slice(start, start + step) for start in range(0, len(self.row_run), step))

    @property
    def pixels(self) -> torch.Tensor:
        """(l, m, n) int64, the pixels of each block, as indices into the flat image; some of them are repeated."""
        rows = (self.mixed.rows.pixels * len(self.mixed.columns.run)).index_select(1, self.row_run)
        return rows[:, None] + self.mixed.columns.pixels.index_select(1, self.column_run)

    def values(self, of_places: torch.Tensor) -> torch.Tensor:
        """Mixes the values of the pixels.

        Args:
            of_places: (K, k, n) float32, K values at the places of each block.

        Returns:
            (K, l, m, n) float32, the values at the ``pixels`` of each block.
        """
        rows = _of_runs(self.mixed.rows.weights, self.row_run)  # (places of rows, l, n)
        columns = _of_runs(self.mixed.columns.weights, self.column_run)  # (places of columns, m, n)
        grid = of_places.unflatten(1, (len(rows), len(columns)))
        across = _weighted_sum(grid[:, :, :, None].unbind(2), columns)  # (K, places of rows, m, n)
        return _weighted_sum(across[:, :, None].unbind(1), rows[:, :, None])


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
        # Whole rows are selected and then turned, because selecting columns takes several times as long. The bits in
        # which values differ are collected, because that takes less time than to compare the values.
        first, *others = axis.places.unbind(0)
        one, bits = values.index_select(0, first), differ.index_select(0, first)
        for other in others:
            bits |= differ.index_select(0, other)
            bits |= values.index_select(0, other).bitwise_xor_(one)
        values, differ = one.t().contiguous(), bits.t().contiguous()
    return values.t().masked_fill(differ.t() != 0, otherwise)


def _of_runs(weights: torch.Tensor, run: torch.Tensor) -> torch.Tensor:
    """Does what ``weights.index_select(2, run)`` does, in a fifth of the time on a processor."""
    return weights.flatten(0, 1).index_select(1, run).unflatten(0, weights.shape[:2])


def _weighted_sum(values: Sequence[torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
    total = values[0] * weights[0]
    for value, weight in zip(values[1:], weights[1:]):
        total.addcmul_(value, weight)
    return total
