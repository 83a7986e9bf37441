# SPDX-License-Identifier: Apache-2.0
"""Prompts -> text features, each prompt encoded once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch

from clip_seg_ros.models.base import TextFeatures


class TextCache:
    """Keeps the text features of the prompts that were used last. It is safe to use from several threads.

    Args:
        encode: Returns the features of P prompts, all padded to one length, which is the same in every call.
        capacity: The number of prompts that are kept, at least 1; the least recently used one is dropped first.
    """

    def __init__(self, encode: Callable[[Sequence[str]], TextFeatures], capacity: int = 256) -> None:
        if capacity < 1:
            raise ValueError(f"a text cache keeps at least one prompt, got a capacity of {capacity}")
        self._encode = encode
        self._capacity = capacity
        # Each entry has the features of one prompt; the prompt that was used last is at the end.
        self._kept: OrderedDict[str, TextFeatures] = OrderedDict()
        self._pinned: dict[str, TextFeatures] = {}
        self._lock = threading.Lock()

    def __call__(self, prompts: Sequence[str]) -> TextFeatures:
        """Returns the features of at least one prompt, in their order; the missing ones are encoded in one call."""
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
        """Gives ``prompt`` these features (1, ...) instead of those of its words, until ``unpin``."""
        with self._lock:
            self._pinned[prompt] = features

    def unpin(self, prompt: str) -> None:
        """Removes the pinned features: ``prompt`` means its words again. Raises KeyError if it was not pinned."""
        with self._lock:
            del self._pinned[prompt]


def _split(features: TextFeatures) -> list[TextFeatures]:
    """Splits the features of P prompts into copies for each prompt, so that no batch is kept alive."""

    def row(tensor: torch.Tensor | None, index: int) -> torch.Tensor | None:
        return None if tensor is None else tensor[index : index + 1].clone()

    return [
        TextFeatures(row(features.pooled, i), row(features.tokens, i), row(features.padding_mask, i))
        for i in range(len(features.pooled))
    ]


def _join(parts: Sequence[TextFeatures]) -> TextFeatures:
    """Concatenates features along the prompts."""

    def stack(tensors: list[torch.Tensor | None]) -> torch.Tensor | None:
        return None if tensors[0] is None else torch.cat(tensors)

    return TextFeatures(
        stack([part.pooled for part in parts]),
        stack([part.tokens for part in parts]),
        stack([part.padding_mask for part in parts]),
    )
