# SPDX-License-Identifier: Apache-2.0
"""The engine that runs models in torch's eager mode."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import nn

from clip_seg_ros.models.base import ImageFeatures, PromptableSegmenter, TextFeatures
from clip_seg_ros.models.detections import Detections
from clip_seg_ros.runtime.devices import require_precision, resolve_device
from clip_seg_ros.runtime.engine import Engine


class EagerEngine(Engine):
    """Runs a ``PromptableSegmenter`` operation by operation, on any device that torch knows.

    Args:
        model: A model with loaded weights. It is moved to the device and set to evaluation mode.
        device: "auto" (CUDA if there is one, else the CPU), "cpu", "cuda" or "cuda:N".
        precision: "float32", "bfloat16" or "float16". The 16-bit precisions need half the memory and are faster on a
            GPU; on CPUs, bfloat16 is faster on some of those that have it, and both are slower on all others.

    Raises:
        ValueError: The device or the precision is unknown, or the device is not available.
    """

    name = "eager"

    def __init__(self, model: PromptableSegmenter, device: str = "auto", precision: str = "float32") -> None:
        self._dtype = require_precision(precision)
        self.device, self.precision = resolve_device(device), precision
        self.model = model.to(self.device, self._dtype).eval()
        _lay_out_kernels(self.model)
        self.spec = model.spec

    def encode_image(self, pixels: torch.Tensor) -> ImageFeatures:
        # Convolutions are fastest in this memory format.
        return self.model.encode_image(pixels.to(self._dtype, memory_format=torch.channels_last))

    def encode_text(self, prompts: Sequence[str]) -> TextFeatures:
        return self.model.encode_text(prompts)

    def decode(self, image: ImageFeatures, text: TextFeatures) -> torch.Tensor:
        return self.model.decode(image, text).float()

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        return self.model.probabilities(logits)

    def fingerprint(self) -> str:
        return fingerprint_of(self.model)

    def detect(self, image: ImageFeatures, text: TextFeatures) -> list[Detections]:
        return self.model.detect(image, text)

    def detect_like(
        self, image: ImageFeatures, text: TextFeatures, boxes: torch.Tensor, is_positive: torch.Tensor
    ) -> Detections:
        return self.model.detect_like(image, text, boxes.to(self.device, self._dtype), is_positive.to(self.device))

    def encode_example(self, pixels: torch.Tensor, text: str | None, text_weight: float) -> TextFeatures:
        return self.model.encode_example(pixels.to(self._dtype), text, text_weight)


def fingerprint_of(model: nn.Module) -> str:
    """Returns 16 hexadecimal digits that identify the weights of ``model``, in whatever memory format they are."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _lay_out_kernels(model: nn.Module) -> None:
    """Stores the kernels of convolutions in the memory format of the pixels; otherwise each call would copy them.

    Subclasses and transposed convolutions keep their format: some are computed as matrix products of their weights.
    """
    for module in model.modules():
        if type(module) is nn.Conv2d:
            module.to(memory_format=torch.channels_last)
