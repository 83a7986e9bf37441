# SPDX-License-Identifier: Apache-2.0
"""Files of exactly the published layouts, filled with numbers of no meaning."""

from __future__ import annotations

import functools
import gzip
import json
import zlib
from pathlib import Path

import torch

LAYOUTS = Path(__file__).parents[1] / "data" / "layouts"
_OFFSETS = 1 << 20
_LARGEST = 49408 * 512
"""Numbers in the largest tensor of all, the table of words."""


@functools.cache
def _noise() -> torch.Tensor:
    # The same million of numbers again and again: drawing all of them takes longer than the tests.
    million = 0.02 * torch.randn(_OFFSETS, generator=torch.Generator().manual_seed(0))
    return million.repeat(_LARGEST // _OFFSETS + 2)


def _filled(key: str, shape: list[int], dtype: str) -> torch.Tensor:
    if dtype != "float32":
        return torch.zeros(shape, dtype=getattr(torch, dtype))
    # A piece of one noise and no copy of it, another for each key.
    size, first = torch.Size(shape).numel(), zlib.crc32(key.encode()) % _OFFSETS
    values = _noise()[first : first + size].view(shape)
    if key.endswith("running_var") or (len(shape) == 1 and key.endswith("weight")):
        return 1 + values
    return values


def published(name: str, empty: bool = False) -> dict[str, torch.Tensor]:
    """Returns the tensors of a layout by its name, as "cris_r50"; ``empty`` gives their shapes alone."""
    layout = json.loads(gzip.decompress((LAYOUTS / f"{name}.json.gz").read_bytes()))
    if empty:
        return {key: torch.empty(shape, device="meta") for key, (shape, _) in layout.items()}
    return {key: _filled(key, shape, dtype) for key, (shape, dtype) in layout.items()}
