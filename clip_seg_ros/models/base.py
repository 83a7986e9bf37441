"""The contract that every model keeps: encode an image once, ask about many prompts.

A model is a ``torch.nn.Module`` whose constructor only builds. It never opens a file or picks a device; that is the
work of ``models.factory`` and ``models.checkpoints``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn


@dataclass(frozen=True)
class InputSpec:
    """How a model wants its image prepared.

    ``resize="squash"`` makes it ``size`` x ``size`` whatever its shape, as CLIPSeg's authors do.
    ``resize="short_side"`` keeps the aspect ratio: the short side becomes ``size`` and both sides are rounded to a
    multiple of ``multiple``.
    ``mean`` and ``std`` are per RGB channel, for values in 0..1.
    """

    size: int
    resize: Literal["squash", "short_side"]
    multiple: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class ImageFeatures:
    """What a model keeps of one batch of images."""

    taps: tuple[torch.Tensor, ...]
    """Shallowest first; each (B, prefix + h * w, C_i), grid tokens in row-major order."""
    grid_size: tuple[int, int]
    """(h, w) of the token grid."""
    pooled: torch.Tensor | None = None
    """(B, D) image embedding, not normalised; ``None`` where the model did not need it."""


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
    open_vocabulary: bool
    """False where the class list is baked into the weights."""

    @abstractmethod
    def encode_image(self, pixels: torch.Tensor) -> ImageFeatures:
        """Encodes normalised ``pixels`` (B, 3, h, w) once, for any number of prompts."""

    @abstractmethod
    def encode_text(self, prompts: Sequence[str]) -> TextFeatures:
        """Encodes P prompts verbatim: no template is added."""

    @abstractmethod
    def decode(self, image: ImageFeatures, text: TextFeatures) -> torch.Tensor:
        """Returns logits (B, P, h, w) for every prompt on every image, in one pass."""

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        """Words of ``prompt`` that these weights never learnt; empty for models with an open vocabulary."""
        return ()
