# SPDX-License-Identifier: Apache-2.0
"""The contract of whatever runs a model: torch itself, or a file that was exported for another program."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from clip_seg_ros.models.base import ImageFeatures, TextFeatures
from clip_seg_ros.models.spec import ModelSpec


class Engine(ABC):
    """Runs one model: encodes an image once and decodes many prompts. Safe to use from several threads.

    What it returns it alone must understand: features go back into ``decode`` as they came out.
    """

    spec: ModelSpec
    device: torch.device
    """Where pixels are wanted and where logits lie."""
    precision: str
    """What it computes in, a key of ``devices.PRECISIONS``."""

    @abstractmethod
    def encode_image(self, pixels: torch.Tensor) -> ImageFeatures:
        """Encodes normalised float32 ``pixels`` (B, 3, h, w), of any memory format, once for any number of prompts."""

    @abstractmethod
    def encode_text(self, prompts: Sequence[str]) -> TextFeatures:
        """Encodes P prompts; each row depends on its own prompt only, and all calls pad to the same length."""

    @abstractmethod
    def decode(self, image: ImageFeatures, text: TextFeatures) -> torch.Tensor:
        """Returns float32 logits (B, P, h, w) for every prompt on every image."""

    @abstractmethod
    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Turns logits (B, P, h, w) of ``decode``, resized or not, into probabilities 0..1 of the same shape."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Returns 16 hexadecimal digits that other weights, under the same name too, do not share."""

    def encode_example(self, pixels: torch.Tensor, text: str | None, text_weight: float) -> TextFeatures:
        """Makes a prompt of an example image, where the spec says that the model can.

        Args:
            pixels: (1, 3, h, w), normalised float32, with everything but the object subdued.
            text: A phrase to mix in, or ``None`` for the example alone.
            text_weight: Its share, 0..1.
        """
        raise NotImplementedError
