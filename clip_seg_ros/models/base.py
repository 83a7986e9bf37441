# SPDX-License-Identifier: Apache-2.0
"""The interface of every model: encode an image once, then decode many prompts.

A model is a ``torch.nn.Module`` whose constructor only builds its layers. It never opens a file or chooses a device;
``zoo.factory`` and ``models.checkpoints`` do that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import torch
from torch import nn

from clip_seg_ros.models.calibration import Calibration
from clip_seg_ros.models.detections import Detections
from clip_seg_ros.models.spec import BEST_STYLE, NOTHING_CORRECTED, ExampleStyle, InputSpec, ModelSpec

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class ImageFeatures:
    """The features of one batch of images; each model defines a subclass with its fields.

    A field is a tensor, a tuple of tensors, ``None``, or a plain value for the whole batch. The first axis of every
    tensor is the batch.
    """

    def rows(self, first: int, end: int) -> Self:
        """Returns the features of the images ``first`` to ``end - 1`` of the batch."""
        return self.mapped(lambda tensor: tensor[first:end])

    def mapped(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        """Returns the same features with ``change`` applied to every tensor."""
        return replace(self, **{item.name: _mapped(getattr(self, item.name), change) for item in fields(self)})

    def places(self) -> torch.Tensor | None:
        """Returns what tells the places of the images apart, (B, C, h, w); ``None`` if the model keeps no such map."""
        return None


def _mapped(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, tuple):
        return tuple(_mapped(part, change) for part in value)
    return value


@dataclass(frozen=True)
class TextFeatures:
    """The features of P prompts."""

    pooled: torch.Tensor
    """(P, D) text embeddings, not normalised."""
    tokens: torch.Tensor | None = None
    """(P, L, C) features of the tokens, for models that attend to words."""
    padding_mask: torch.Tensor | None = None
    """(P, L) bool, True where a token is padding."""


FeaturesT = TypeVar("FeaturesT", bound=ImageFeatures)


class PromptableSegmenter(nn.Module, ABC, Generic[FeaturesT]):
    """An image encoder, a text encoder, and a decoder that combines them."""

    name: str
    input_spec: InputSpec
    competition: Literal["sigmoid", "softmax"]
    """``sigmoid``: each prompt is decided alone. ``softmax``: prompts compete for a pixel."""
    class_names: tuple[str, ...] | None = None
    """The fixed list of classes, if the weights have one: only these may be prompts, and all of them must be decoded
    together, in this order. ``None``: any phrase may be a prompt."""
    background_prompts: tuple[str, ...] = ()
    """Phrases that compete with the prompts, for a model whose prompts compete and may all be absent from a pixel."""
    threshold: float = 0.5
    """The default threshold on probabilities, 0..1: that of the paper's authors, unless the figures of the weights were
    measured with another one."""
    calibration: Calibration = NOTHING_CORRECTED
    """How logits are corrected before they become probabilities; only for phrases that are decided alone."""
    for_real_pictures: str | None = None
    """For embedded weights, which know only the simulated table: the name of published weights for real images.
    ``None`` for all other weights, including those that a user trained."""
    understands_relations: bool = False
    """Whether phrases may relate one object to others: "the cup left of the box", "the largest ball"."""

    light_decode: bool = False
    """Whether ``decode`` is a few operations in float32, for which no other engine than torch is worth while."""

    @property
    def open_vocabulary(self) -> bool:
        """Whether any phrase may be a prompt."""
        return self.class_names is None

    takes_examples: bool = False
    """Whether ``encode_example`` makes prompts of example images."""
    example_px: int | None = None
    """Side of the square to which an example image is resized; ``None``: the size of all other images."""
    example_style: ExampleStyle = BEST_STYLE
    """How an example image is changed before it is a prompt."""

    finds_objects: bool = False
    """Whether ``detect`` finds objects one by one, also where they touch."""
    box_phrase: str | None = None
    """The phrase for ``detect_like`` where only boxes say what is meant; ``None``: the model takes no boxes."""

    @property
    def spec(self) -> ModelSpec:
        """The present properties of the model that its users must know."""
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
            example_style=self.example_style,
            finds_objects=self.finds_objects,
            box_phrase=self.box_phrase,
            known_words=self.known_words,
            unknown_words=self.unknown_words,
            calibration=self.calibration,
            for_real_pictures=self.for_real_pictures,
        )

    @abstractmethod
    def encode_image(self, pixels: torch.Tensor) -> FeaturesT:
        """Encodes normalised ``pixels`` (B, 3, h, w) once, for any number of prompts."""

    @abstractmethod
    def encode_text(self, prompts: Sequence[str]) -> TextFeatures:
        """Encodes P prompts; each row depends only on its own prompt, and all calls pad to the same length.

        Prompts are encoded verbatim, unless templates are part of the model's method.
        """

    def encode_token_ids(self, token_ids: torch.Tensor) -> TextFeatures:
        """Encodes P prompts that were tokenised, for a model with a text tower and an open vocabulary.

        Args:
            token_ids: int64, P rows of ``tokenizer``, (P, context length); for a model with templates (P, T, context
                length), each prompt in its T templates.
        """
        raise NotImplementedError

    @abstractmethod
    def decode(self, image: FeaturesT, text: TextFeatures) -> torch.Tensor:
        """Returns logits (B, P, h, w) for every prompt on every image, in one pass."""

    def detect(self, image: FeaturesT, text: TextFeatures) -> list[Detections]:
        """Returns the objects of every image, for a model with ``finds_objects``; ``text`` has all its classes, if it
        has a list of them."""
        raise NotImplementedError

    def detect_like(
        self, image: FeaturesT, text: TextFeatures, boxes: torch.Tensor, is_positive: torch.Tensor
    ) -> Detections:
        """Returns the objects of an image that are like those in some boxes of it, for a model with ``box_phrase``.

        Args:
            image: The features of one image.
            text: The features of one phrase, which the objects must fit, too.
            boxes: (N, 4), left, top, right, bottom in pixels of the model's image.
            is_positive: (N,) bool, whether a box holds what is meant; otherwise it holds what is not.
        """
        raise NotImplementedError

    def encode_example(self, pixels: torch.Tensor, text: str | None, text_weight: float) -> TextFeatures:
        """Makes a prompt of an example image, for a model with ``takes_examples``.

        Args:
            pixels: (1, 3, h, w), normalised, with the background subdued.
            text: A phrase to mix in, or ``None`` for the example alone.
            text_weight: The share of the phrase, 0..1.
        """
        raise NotImplementedError

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Converts logits (B, P, h, w) of ``decode``, resized or not, to probabilities 0..1 of the same shape."""
        return logits.softmax(dim=1) if self.competition == "softmax" else logits.sigmoid()

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        """Returns the words of ``prompt`` that these weights never learnt; empty for an open vocabulary."""
        return ()

    @property
    def known_words(self) -> tuple[str, ...]:
        """All words that these weights learnt; empty for a model with an open vocabulary."""
        return getattr(getattr(self, "tokenizer", None), "known_words", ())
