# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin, ``-p rounding``: torch as on a processor that rounds in a way of its own, and each time in another.

Sums of products, norms and functions such as exp get errors of about the size that the order of additions causes. What
holds here holds on processors that nobody has tried; what compares bits, or counts on absolute limits, fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

SUMS = {
    "mm",
    "addmm",
    "bmm",
    "baddbmm",
    "mv",
    "dot",
    "linear",
    "matmul",
    "convolution",
    "convolution_backward",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention_for_cpu_backward",
    "native_layer_norm",
    "native_layer_norm_backward",
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "native_batch_norm_backward",
}
"""Added up from parts of any size: even a small result carries an error of the large ones."""
FUNCTIONS = {
    "_softmax",
    "_softmax_backward_data",
    "_log_softmax",
    "exp",
    "log",
    "tanh",
    "sigmoid",
    "gelu",
    "gelu_backward",
    "silu",
    "rsqrt",
    "sum",
    "mean",
    "linalg_vector_norm",
    "upsample_bilinear2d",
    "upsample_bicubic2d",
}
"""Results with an error of their own size."""


class Rounding(TorchDispatchMode):
    """Moves each value by about a unit of its last place."""

    def __init__(self) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(0)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        if name not in SUMS | FUNCTIONS:
            return result
        if isinstance(result, tuple):
            # The others of a forward pass are what its backward pass was computed from.
            moved = len(result) if name.endswith("backward") else 1
            return (*(self._moved(value, name) for value in result[:moved]), *result[moved:])
        return self._moved(result, name)

    def _moved(self, value: Any, name: str) -> Any:
        if not isinstance(value, torch.Tensor) or value.dtype != torch.float32 or value.numel() == 0:
            return value
        size = value.abs()
        if name in SUMS:
            # Zeros stay: they come of zeros.
            size = torch.where(size > 0, size + 0.2 * size.square().mean().sqrt(), size)
        noise = torch.randn(value.shape, generator=self._generator) * torch.finfo(value.dtype).eps
        # A probability of 1 is one divided by itself, and infinities have no last place.
        return torch.where(value.isfinite() & (value != 1), value + noise * size, value)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """Holds while a test runs; fixtures are made as ever."""
    with Rounding():
        yield
