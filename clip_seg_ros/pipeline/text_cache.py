# SPDX-License-Identifier: Apache-2.0
"""Prompts -> text features, each prompt encoded once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch

from clip_seg_ros.models.base import TextFeatures


class TextCache:
    """Keeps the features of the prompts used last. Safe to use from several threads.

    Args:
        encode: P prompts -> their features; pads all prompts to one length, the same in every call.
        capacity: Prompts kept, at least 1; the one unused for longest goes first.
    """

    def __init__(self, encode: Callable[[Sequence[str]], TextFeatures], capacity: int = 256) -> None:
        if capacity < 1:
            raise ValueError(f"a text cache keeps at least one prompt, got a capacity of {capacity}")
        self._encode = encode
        self._capacity = capacity
        self._kept: OrderedDict[str, TextFeatures] = OrderedDict()  # each of one prompt, the last used at the end
        self._pinned: dict[str, TextFeatures] = {}  # each of one prompt, until it is unpinned
        self._lock = threading.Lock()

    def __call__(self, prompts: Sequence[str]) -> TextFeatures:
        """Returns the features of ``prompts`` (at least one) in their order; encodes the missing ones in one call."""
        with self._lock:
            unpinned = [prompt for prompt in prompts if prompt not in self._pinned]
            missing = [prompt for prompt in dict.fromkeys(unpinned) if prompt not in self._kept]
            if missing:
                self._kept.update(zip(missing, _split(self._encode(missing)), strict=True))
            for prompt in unpinned:
                self._kept.move_to_end(prompt)
            features = _join([self._pinned.get(prompt) or self._kept[prompt] for prompt in prompts])
            while len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
            return features

    def pin(self, prompt: str, features: TextFeatures) -> None:
        """Gives ``prompt`` the features (1, ...) that it shall have, whatever its words; it is never dropped."""
        with self._lock:
            self._pinned[prompt] = features

    def unpin(self, prompt: str) -> None:
        """Lets ``prompt`` be its words again. Raises KeyError where it was not pinned."""
        with self._lock:
            del self._pinned[prompt]


def _split(features: TextFeatures) -> list[TextFeatures]:
    """Takes the features of P prompts apart into P features of one prompt; copies, so that no batch is kept alive."""

    def row(tensor: torch.Tensor | None, index: int) -> torch.Tensor | None:
        return None if tensor is None else tensor[index : index + 1].clone()

    return [
        TextFeatures(row(features.pooled, i), row(features.tokens, i), row(features.padding_mask, i))
        for i in range(len(features.pooled))
    ]


def _join(parts: Sequence[TextFeatures]) -> TextFeatures:
    """Stacks features along the prompts."""

    def stack(tensors: list[torch.Tensor | None]) -> torch.Tensor | None:
        return None if tensors[0] is None else torch.cat(tensors)

    return TextFeatures(
        stack([part.pooled for part in parts]),
        stack([part.tokens for part in parts]),
        stack([part.padding_mask for part in parts]),
    )
