# SPDX-License-Identifier: Apache-2.0
"""The interface of an engine, which runs a model: by torch itself, or from a file exported for another runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from clip_seg_ros.models.base import ImageFeatures, TextFeatures
from clip_seg_ros.models.detections import Detections
from clip_seg_ros.models.spec import ModelSpec


class EngineUnavailable(ValueError):
    """An engine or one of its precisions cannot be had on this machine; the message says why and what to do."""


class Engine(ABC):
    """Runs one model: encodes an image once and decodes many prompts. It is safe to use from several threads.

    Only the engine itself needs to understand the fields of its image features, which are split by image (``rows``)
    and then passed to its ``decode``. Its text features are split and joined by prompt.
    """

    name: str = "unnamed"
    """Name of the kind of engine, one of ``config.ENGINE_NAMES`` without "auto"."""
    spec: ModelSpec
    device: torch.device
    """The device of the pixels that it takes and of the logits that it returns."""
    precision: str
    """The precision of its computations, one of ``config.PRECISION_NAMES`` without "auto"."""

    start_size: tuple[int, int] | None = None
    """(h, w) of the pixels that it is ready for at its start and is measured on; ``None`` if any are as good."""

    def prepare(self, size: tuple[int, int]) -> None:  # noqa: B027 -- nothing is a good default
        """Makes all ready for pixels of ``size`` (h, w) before images of it come; most engines need nothing.

        Raises:
            EngineUnavailable: That size cannot be had.
        """

    @abstractmethod
    def encode_image(self, pixels: torch.Tensor) -> ImageFeatures:
        """Encodes normalised float32 ``pixels`` (B, 3, h, w), of any memory format, once for any number of prompts."""

    @abstractmethod
    def encode_text(self, prompts: Sequence[str]) -> TextFeatures:
        """Encodes P prompts; each row depends only on its own prompt, and all calls pad to the same length."""

    @abstractmethod
    def decode(self, image: ImageFeatures, text: TextFeatures) -> torch.Tensor:
        """Returns float32 logits (B, P, h, w) for every prompt on every image."""

    @abstractmethod
    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Converts logits (B, P, h, w) of ``decode``, resized or not, to probabilities 0..1 of the same shape."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Returns 16 hexadecimal digits that identify the weights, also among weights of the same name."""

    def detect(self, image: ImageFeatures, text: TextFeatures) -> list[Detections]:
        """Returns the objects of every image, for a model whose spec has ``finds_objects``."""
        raise NotImplementedError

    def detect_like(
        self, image: ImageFeatures, text: TextFeatures, boxes: torch.Tensor, is_positive: torch.Tensor
    ) -> Detections:
        """Returns the objects of an image that are like those in some boxes, for a model whose spec has ``box_phrase``.

        Args:
            image: The features of one image.
            text: The features of one phrase, which the objects must fit, too.
            boxes: (N, 4), left, top, right, bottom in pixels of the model's image.
            is_positive: (N,) bool, whether a box holds what is meant; otherwise it holds what is not.
        """
        raise NotImplementedError

    def encode_example(self, pixels: torch.Tensor, text: str | None, text_weight: float) -> TextFeatures:
        """Makes a prompt of an example image, for a model whose spec has ``takes_examples``.

        Args:
            pixels: (1, 3, h, w), normalised float32, with the background subdued.
            text: A phrase to mix in, or ``None`` for the example alone.
            text_weight: The share of the phrase, 0..1.
        """
        raise NotImplementedError
