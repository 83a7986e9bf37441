# SPDX-License-Identifier: Apache-2.0
"""The position tables of CLIP's image towers, interpolated to images of any size."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from clip_seg_ros.models.kept import KeptTensors

Mode = Literal["bicubic", "bilinear"]
_SIZES = 8
"""The number of image sizes for which a table is kept."""


def resize_position_table(
    table: torch.Tensor,
    native_grid: tuple[int, int],
    grid: tuple[int, int],
    mode: Mode = "bicubic",
) -> torch.Tensor:
    """Interpolates a position table to another grid, with ``align_corners=False``; the first row is kept.

    The interpolation is done in float32 at least, whatever the weights are.

    Args:
        table: (1 + h0 * w0, C); row 0 belongs to the class or mean token.
        native_grid: (h0, w0) of the table.
        grid: (h, w) of the result.
        mode: Mode of the interpolation.

    Returns:
        (1 + h * w, C), float32 at least; ``table`` itself if the grids are equal.
    """
    if grid == native_grid:
        return table
    table = table.to(torch.promote_types(table.dtype, torch.float32))
    patches = table[1:].reshape(1, *native_grid, -1).permute(0, 3, 1, 2)
    patches = F.interpolate(patches, size=grid, mode=mode, align_corners=False)
    return torch.cat([table[:1], patches.flatten(2).transpose(1, 2)[0]])


class PositionTable:
    """The position table of a tower at any grid. Without gradients, those of the last few grids are kept.

    It refers to the tower and has no weights of its own.
    """

    def __init__(self, owner: nn.Module, native_grid: tuple[int, int], mode: Mode = "bicubic") -> None:
        """Reads ``owner.positional_embedding``, (1 + h0 * w0, C) for the grid (h0, w0); interpolates with ``mode``."""
        self._owner, self._native_grid, self._mode = owner, native_grid, mode
        self._kept = KeptTensors(_SIZES)

    def __call__(self, grid: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
        """Returns the table (1 + h * w, C) at ``grid`` (h, w); its first row belongs to the class or mean token."""
        table = self._owner.positional_embedding

        def resized() -> torch.Tensor:
            return resize_position_table(table, self._native_grid, grid, self._mode).to(dtype)

        if grid == self._native_grid:
            return resized()
        return self._kept((grid, dtype), resized, table.device, table)
