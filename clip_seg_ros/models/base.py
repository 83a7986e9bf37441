# SPDX-License-Identifier: Apache-2.0
"""The contract that every model keeps: encode an image once, ask about many prompts.

A model is a ``torch.nn.Module`` whose constructor only builds. It never opens a file or picks a device; that is the
work of ``models.factory`` and ``models.checkpoints``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class InputSpec:
    """How a model wants its image prepared.

    ``resize="squash"`` makes it ``size`` x ``size`` whatever its shape, as CLIPSeg's authors do.
    ``resize="short_side"`` keeps the aspect ratio: the short side becomes ``size`` and both sides are rounded to a
    multiple of ``multiple``; a long side above ``long_side_limit`` shrinks both.
    ``resize="letterbox"`` keeps the aspect ratio inside a square of ``size`` whose rest has the colour ``mean``, as
    CRIS's authors do.
    ``mean`` and ``std`` are per RGB channel, for values in 0..1.
    """

    size: int
    resize: Literal["squash", "short_side", "letterbox"]
    multiple: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    long_side_limit: int | None = None
    window: SlidingWindow | None = None
    """Whether the model sees the image through overlapping windows instead of whole."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> InputSpec:
        """Reads what ``dataclasses.asdict`` and JSON made of one. Raises TypeError on unknown or missing names."""
        window = values.get("window")
        nested = {"mean": tuple(values["mean"]), "std": tuple(values["std"])}
        return cls(**{**values, **nested, "window": SlidingWindow(**window) if window else None})


@dataclass(frozen=True)
class SlidingWindow:
    """Square windows over an image; where they overlap, their logits are averaged."""

    crop: int
    """Side of a window in pixels of the prepared image."""
    stride: int
    """Pixels from one window to the next; less than ``crop``."""

    def __post_init__(self) -> None:
        if not 0 < self.stride <= self.crop:
            raise ValueError(f"a window's stride must lie in 1..{self.crop}, got {self.stride}")


@dataclass(frozen=True)
class ImageFeatures:
    """What a model keeps of one batch of images. Every tensor's first axis is the batch."""

    taps: tuple[torch.Tensor, ...]
    """Shallowest first; tokens (B, prefix + h * w, C_i) in row-major order, or maps (B, C_i, h_i, w_i), as the model
    likes."""
    grid_size: tuple[int, int]
    """(h, w) of the token grid."""
    pooled: torch.Tensor | None = None
    """(B, D) image embedding, not normalised; ``None`` where the model did not need it."""
    dense: torch.Tensor | None = None
    """(B, D, h, w) an embedding for every position, not normalised; ``None`` where the model has none."""
    keys: torch.Tensor | None = None
    """(B, h * w, C) attention keys; ``None`` where the model has none."""

    def rows(self, first: int, end: int) -> ImageFeatures:
        """Returns the features of the images ``first`` to ``end - 1`` of the batch."""
        return self._map(lambda tensor: tensor[first:end])

    def _map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> ImageFeatures:
        taps = tuple(change(tap) for tap in self.taps)
        named = (None if tensor is None else change(tensor) for tensor in (self.pooled, self.dense, self.keys))
        return ImageFeatures(taps, self.grid_size, *named)


@dataclass(frozen=True)
class TextFeatures:
    """What a model keeps of P prompts."""

    pooled: torch.Tensor
    """(P, D) text embedding, not normalised."""
    tokens: torch.Tensor | None = None
    """(P, L, C) word features, for models that attend to words."""
    padding_mask: torch.Tensor | None = None
    """(P, L) bool, True where a token is padding."""


class PromptableSegmenter(nn.Module, ABC):
    """An image encoder, a text encoder and a decoder that brings them together."""

    name: str
    input_spec: InputSpec
    competition: Literal["sigmoid", "softmax"]
    """``sigmoid``: each prompt is decided alone. ``softmax``: prompts compete for a pixel."""
    class_names: tuple[str, ...] | None = None
    """The only prompts there are, where the class list is baked into the weights; all of them must be decoded together,
    in this order. ``None``: any phrase will do."""
    background_prompts: tuple[str, ...] = ()
    """Phrases that compete with those asked about, where prompts compete and a pixel may belong to none of them."""
    threshold: float = 0.5
    """The probability above which a pixel counts where nobody says another, 0..1: the authors', unless the weights'
    makers measured theirs with another."""
    for_real_pictures: str | None = None
    """The name of published weights to take for real pictures, where the model's own weights come with the package and
    know the simulated table alone; ``None`` for all other weights, also for those that a user trained."""
    understands_relations: bool = False
    """Whether phrases may relate one thing to others: "the cup left of the box", "the largest ball"."""

    @property
    def open_vocabulary(self) -> bool:
        """Whether any phrase can be asked about."""
        return self.class_names is None

    @abstractmethod
    def encode_image(self, pixels: torch.Tensor) -> ImageFeatures:
        """Encodes normalised ``pixels`` (B, 3, h, w) once, for any number of prompts."""

    @abstractmethod
    def encode_text(self, prompts: Sequence[str]) -> TextFeatures:
        """Encodes P prompts; each row depends on its own prompt only, and all calls pad to the same length.

        Prompts are taken verbatim, unless templates are part of the model's method.
        """

    @abstractmethod
    def decode(self, image: ImageFeatures, text: TextFeatures) -> torch.Tensor:
        """Returns logits (B, P, h, w) for every prompt on every image, in one pass."""

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Turns logits (B, P, h, w) of ``decode``, resized or not, into probabilities 0..1 of the same shape."""
        return logits.softmax(dim=1) if self.competition == "softmax" else logits.sigmoid()

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        """Words of ``prompt`` that these weights never learnt; empty for models with an open vocabulary."""
        return ()

    @property
    def known_words(self) -> tuple[str, ...]:
        """All words that these weights learnt; empty for models with an open vocabulary."""
        return getattr(getattr(self, "tokenizer", None), "known_words", ())
