# SPDX-License-Identifier: Apache-2.0
"""Prompts -> text features, each prompt encoded once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch

from clip_seg_ros.models.base import TextFeatures

_KEPT_LISTS = 16
"""The number of lists of prompts whose joined features are kept: several questions may be asked about each image."""


class TextCache:
    """Keeps the text features of the prompts that were used last. It is safe to use from several threads.

    The features of the last few lists of prompts are kept joined, too: the prompts of a video are those of the image
    before. They are shared by all who ask, and nobody may change them.

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
        # Lists of prompts, with the features of each prompt that were joined, and the result; the last used at the end.
        self._joined: OrderedDict[tuple[str, ...], tuple[list[TextFeatures], TextFeatures]] = OrderedDict()
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
            features = self._join(
                tuple(prompts), [self._pinned.get(prompt) or self._kept[prompt] for prompt in prompts]
            )
            while len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
            return features

    def _join(self, prompts: tuple[str, ...], parts: list[TextFeatures]) -> TextFeatures:
        """Returns ``parts`` joined: the features kept for this list, unless a prompt has got other features since."""
        before, joined = self._joined.get(prompts, ([], None))
        if joined is None or any(part is not other for part, other in zip(parts, before, strict=True)):
            joined = parts[0] if len(parts) == 1 else _join(parts)
        self._joined[prompts] = parts, joined
        self._joined.move_to_end(prompts)
        if len(self._joined) > _KEPT_LISTS:
            self._joined.popitem(last=False)
        return joined

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
