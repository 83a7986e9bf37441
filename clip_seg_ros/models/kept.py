# SPDX-License-Identifier: Apache-2.0
"""Keeps tensors that depend on sizes and weights alone, so that they are not made anew for every image."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

import torch

_used = threading.local()


@contextlib.contextmanager
def noting_use() -> Iterator[list[torch.Tensor]]:
    """Yields a list to which every kept tensor is added that this thread uses meanwhile.

    A CUDA graph refers to the memory of what it uses: whoever records one must keep this list as long as the graph.
    """
    before = getattr(_used, "tensors", None)
    _used.tensors = []
    try:
        yield _used.tensors
    finally:
        _used.tensors = before


@dataclass(frozen=True)
class _Entry:
    made: torch.Tensor
    weight: torch.Tensor | None
    """Shares its memory with the weight, so that no other tensor can come to lie at the same address."""
    version: int


class KeptTensors:
    """The last few tensors that were made of sizes and, perhaps, of one weight. It is safe to use from several threads.

    A tensor is made anew if its weight was changed in place, as optimizers and ``load_state_dict`` do, or was moved or
    replaced. A change through ``weight.data`` is not noticed. Nothing is kept where gradients are recorded, because
    they must reach the weight, and where torch traces a model for another program. While a CUDA graph is recorded,
    nothing new is kept, and only within ``noting_use`` is used what was kept before. A copy of this object is empty.

    Args:
        capacity: The number of tensors that are kept, at least 1; the one that was made first is dropped first.
    """

    def __init__(self, capacity: int = 8) -> None:
        self._capacity = capacity
        # It is replaced and never changed, so that several threads read it without a lock.
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
        if torch.is_grad_enabled() or is_traced() or (weight is not None and weight.is_inference()):
            return make()
        key, used = (key, device), getattr(_used, "tensors", None)
        entry = self._entries.get(key)
        fresh = entry is not None and _is_fresh(entry, weight)
        if _recorded(device) and not (fresh and used is not None):
            return make()
        if entry is None or not fresh:
            version = 0 if weight is None else weight._version
            entry = _Entry(make(), None if weight is None else weight.detach(), version)
            others = {other: kept for other, kept in self._entries.items() if other != key}
            if len(others) >= self._capacity:
                del others[next(iter(others))]
            self._entries = {**others, key: entry}
        if used is not None:
            used.append(entry.made)
        return entry.made

    def __reduce__(self) -> tuple[type[KeptTensors], tuple[int]]:
        return KeptTensors, (self._capacity,)


def is_traced() -> bool:
    """Returns whether torch traces a model at the moment, to compile it or to make a program for another runtime."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def _recorded(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _is_fresh(entry: _Entry, weight: torch.Tensor | None) -> bool:
    if entry.weight is None or weight is None:
        return entry.weight is weight
    same_memory = entry.weight.data_ptr() == weight.data_ptr() and entry.weight.dtype == weight.dtype
    return same_memory and entry.version == weight._version
