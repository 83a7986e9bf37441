# SPDX-License-Identifier: Apache-2.0
"""Keeps tensors that depend on sizes and weights alone, so that they are not made anew for every image."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class _Entry:
    made: torch.Tensor
    weight: torch.Tensor | None
    """Shares its memory with the weight, so that no other tensor can come to lie at the same address."""
    version: int


class KeptTensors:
    """The last few tensors that were made of sizes and, perhaps, of one weight. It is safe to use from several threads.

    A tensor is made anew if its weight was changed in place, as optimizers and ``load_state_dict`` do, or was moved or
    replaced. Nothing is kept where gradients are recorded, because they must reach the weight; where torch traces a
    model for another program; and while a CUDA graph is recorded, which must not refer to memory that is given back.

    Args:
        capacity: The number of tensors that are kept, at least 1; the one that was made first is dropped first.
    """

    def __init__(self, capacity: int = 8) -> None:
        self._capacity = capacity
        # It is replaced and never changed: several threads read it without a lock, and models can be copied.
        self._entries: dict[Hashable, _Entry] = {}

    def __call__(
        self, key: Hashable, make: Callable[[], torch.Tensor], device: torch.device, weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Returns the tensor of ``key``, which nobody may change.

        Args:
            key: Everything that determines the tensor besides ``weight`` and ``device``.
            make: Makes it.
            device: The device of the tensor.
            weight: What the tensor is made of, the same one in every call; ``None`` if ``key`` says all.
        """
        if torch.is_grad_enabled() or _traced(device) or (weight is not None and weight.is_inference()):
            return make()
        key = (key, device)
        entry = self._entries.get(key)
        if entry is None or not _is_fresh(entry, weight):
            version = 0 if weight is None else weight._version
            entry = _Entry(make(), None if weight is None else weight.detach(), version)
            others = {other: kept for other, kept in self._entries.items() if other != key}
            if len(others) >= self._capacity:
                del others[next(iter(others))]
            self._entries = {**others, key: entry}
        return entry.made


def _traced(device: torch.device) -> bool:
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return True
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _is_fresh(entry: _Entry, weight: torch.Tensor | None) -> bool:
    if entry.weight is None or weight is None:
        return entry.weight is weight
    same_memory = entry.weight.data_ptr() == weight.data_ptr() and entry.weight.dtype == weight.dtype
    return same_memory and entry.version == weight._version
