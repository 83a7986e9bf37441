"""Files of exactly the published layouts, filled with numbers of no meaning."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

LAYOUTS = Path(__file__).parents[2] / "data" / "layouts"
_NOISE = 0.02 * torch.randn(1 << 20, generator=torch.Generator().manual_seed(0))


def _filled(key: str, shape: list[int], dtype: str) -> torch.Tensor:
    if dtype != "float32":
        return torch.zeros(shape, dtype=getattr(torch, dtype))
    size = torch.Size(shape).numel()
    # The same million of numbers again and again: drawing 150 million takes longer than all else.
    values = _NOISE.repeat(size // len(_NOISE) + 1)[:size].reshape(shape)
    if key.endswith("running_var") or (len(shape) == 1 and key.endswith("weight")):
        return 1 + values
    return values


@pytest.fixture(scope="session")
def published() -> Callable[..., dict[str, torch.Tensor]]:
    """Makes the tensors of a layout by its name: ``published("cris_r50")``; ``empty=True`` gives shapes alone."""

    def make(name: str, empty: bool = False) -> dict[str, torch.Tensor]:
        layout = json.loads(gzip.decompress((LAYOUTS / f"{name}.json.gz").read_bytes()))
        if empty:
            return {key: torch.empty(shape, device="meta") for key, (shape, _) in layout.items()}
        return {key: _filled(key, shape, dtype) for key, (shape, dtype) in layout.items()}

    return make
