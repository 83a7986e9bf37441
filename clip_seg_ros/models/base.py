# SPDX-License-Identifier: Apache-2.0
"""The contract that every model keeps: encode an image once, ask about many prompts.

A model is a ``torch.nn.Module`` whose constructor only builds. It never opens a file or picks a device; that is the
work of ``zoo.factory`` and ``models.checkpoints``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import torch
from torch import nn

from clip_seg_ros.models.spec import InputSpec, ModelSpec

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class ImageFeatures:
    """What a model keeps of one batch of images; each model's own subclass says what.

    Every tensor's first axis is the batch. Fields are tensors, tuples of tensors, ``None``, or plain values of the
    whole batch.
    """

    def rows(self, first: int, end: int) -> Self:
        """Returns the features of the images ``first`` to ``end - 1`` of the batch."""
        return self.mapped(lambda tensor: tensor[first:end])

    def mapped(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        """Returns the same features with every tensor changed."""
        return replace(self, **{item.name: _mapped(getattr(self, item.name), change) for item in fields(self)})


def _mapped(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, tuple):
        return tuple(_mapped(part, change) for part in value)
    return value


@dataclass(frozen=True)
class TextFeatures:
    """What a model keeps of P prompts."""

    pooled: torch.Tensor
    """(P, D) text embedding, not normalised."""
    tokens: torch.Tensor | None = None
    """(P, L, C) word features, for models that attend to words."""
    padding_mask: torch.Tensor | None = None
    """(P, L) bool, True where a token is padding."""


FeaturesT = TypeVar("FeaturesT", bound=ImageFeatures)


class PromptableSegmenter(nn.Module, ABC, Generic[FeaturesT]):
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

    takes_examples: bool = False
    """Whether ``encode_example`` makes prompts of example images."""
    example_px: int | None = None
    """Side of the square that an example image is brought to; ``None``: the size of the images in use."""

    @property
    def spec(self) -> ModelSpec:
        """What whoever asks the model must know of it, as it is now."""
        return ModelSpec(
            name=self.name,
            input=self.input_spec,
            competition=self.competition,
            threshold=self.threshold,
            class_names=self.class_names,
            background_prompts=self.background_prompts,
            understands_relations=self.understands_relations,
            takes_examples=self.takes_examples,
            example_px=self.example_px,
            known_words=self.known_words,
            unknown_words=self.unknown_words,
            for_real_pictures=self.for_real_pictures,
        )

    @abstractmethod
    def encode_image(self, pixels: torch.Tensor) -> FeaturesT:
        """Encodes normalised ``pixels`` (B, 3, h, w) once, for any number of prompts."""

    @abstractmethod
    def encode_text(self, prompts: Sequence[str]) -> TextFeatures:
        """Encodes P prompts; each row depends on its own prompt only, and all calls pad to the same length.

        Prompts are taken verbatim, unless templates are part of the model's method.
        """

    @abstractmethod
    def decode(self, image: FeaturesT, text: TextFeatures) -> torch.Tensor:
        """Returns logits (B, P, h, w) for every prompt on every image, in one pass."""

    def encode_example(self, pixels: torch.Tensor, text: str | None, text_weight: float) -> TextFeatures:
        """Makes a prompt of an example image, where ``takes_examples`` says that the model can.

        Args:
            pixels: (1, 3, h, w), normalised, with everything but the object subdued.
            text: A phrase to mix in, or ``None`` for the example alone.
            text_weight: Its share, 0..1.
        """
        raise NotImplementedError

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
