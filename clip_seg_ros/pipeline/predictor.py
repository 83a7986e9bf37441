"""The one public entry to the models: encode an image once, ask about many prompts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from clip_seg_ros.models.base import ImageFeatures, PromptableSegmenter
from clip_seg_ros.pipeline.preprocess import Geometry, Preprocessor
from clip_seg_ros.pipeline.text_cache import TextCache
from clip_seg_ros.types import ProbabilityMaps


@dataclass(frozen=True)
class EncodedImage:
    """An image as the model remembers it; made by ``Predictor.encode`` for ``Predictor.ask``."""

    features: ImageFeatures
    geometry: Geometry


class Predictor:
    """Finds what phrases name in images.

    It holds no image: ``encode`` returns what was understood of one, and ``ask`` takes that back with the prompts, as
    often as there are questions. Text features are cached. Safe to use from several threads.

    Args:
        model: Its weights are loaded. It is moved to the device and set to evaluation.
        device: "auto" (CUDA if there is one, else the CPU), "cpu", "cuda" or "cuda:N".

    Raises:
        ValueError: The device is unknown or not available.

    Example:
        >>> predictor = Predictor.from_name("clipseg-pocket")
        >>> rgb = np.full((480, 640, 3), 127, np.uint8)
        >>> encoded = predictor.encode(rgb)
        >>> predictor.ask(encoded, ["red cup", "blue box"]).values.shape
        (2, 480, 640)
        >>> predictor.predict(rgb, ["green ball"]).prompts
        ('green ball',)
    """

    def __init__(self, model: PromptableSegmenter, device: str = "auto") -> None:
        self.device = resolve_device(device)
        self.model = model.to(self.device).eval()
        self._preprocess = Preprocessor(model.input_spec, self.device)
        self._text_features = TextCache(model.encode_text)

    @classmethod
    def from_name(
        cls, name: str = "clipseg-pocket", device: str = "auto", weights_dir: Path | None = None
    ) -> Predictor:
        """Builds the model called ``name`` with its weights, from ``weights_dir`` or the shipped ones."""
        # Here and not above: a model handed over ready needs neither the builders nor what they import.
        from clip_seg_ros.models.factory import build_segmenter

        return cls(build_segmenter(name, weights_dir), device)

    @torch.inference_mode()
    def encode(self, rgb: np.ndarray) -> EncodedImage:
        """Encodes ``rgb``, (H, W, 3) uint8, once for any number of questions.

        Raises:
            ValueError: Not such an array, empty, or too narrow for the model.
        """
        prepared = self._preprocess(rgb)
        return EncodedImage(self.model.encode_image(prepared.pixels), prepared.geometry)

    @torch.inference_mode()
    def ask(self, encoded: EncodedImage, prompts: Sequence[str]) -> ProbabilityMaps:
        """Answers all prompts in one pass.

        With a model whose prompts compete, the probabilities of a pixel sum to 1 over the prompts; asked about one
        prompt alone it answers 1 everywhere.

        Args:
            encoded: From ``encode`` of this predictor.
            prompts: P >= 1 phrases, taken verbatim.

        Returns:
            (P, H, W) probabilities at the size of the image that was encoded.

        Raises:
            ValueError: No prompt, an empty one, or one text where a list of prompts belongs.
        """
        prompts = _checked(prompts)
        logits = self.model.decode(encoded.features, self._text_features(prompts))[0].float()  # (P, h', w')
        probabilities = logits.softmax(dim=0) if self.model.competition == "softmax" else logits.sigmoid()
        return ProbabilityMaps(prompts, encoded.geometry.restore(probabilities.cpu().numpy()))

    def predict(self, rgb: np.ndarray, prompts: Sequence[str]) -> ProbabilityMaps:
        """``encode`` and ``ask`` in one call; raises what they raise."""
        # Before the expensive part.
        prompts = _checked(prompts)
        return self.ask(self.encode(rgb), prompts)


def resolve_device(name: str) -> torch.device:
    """Returns the device that ``name`` ("auto", "cpu", "cuda" or "cuda:N") stands for on this machine.

    Raises:
        ValueError: The name is unknown, or torch sees no such device here.
    """
    cuda_count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if cuda_count else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    match = re.fullmatch(r"cuda(?::(\d{1,2}))?", name)
    if match is None:
        raise ValueError(f'unknown device "{name}": use auto, cpu, cuda or cuda:N')
    if int(match[1] or 0) >= cuda_count:
        raise ValueError(f'device "{name}" is not available: torch sees {cuda_count} CUDA devices; use auto or cpu')
    return torch.device(name)


def _checked(prompts: Sequence[str]) -> tuple[str, ...]:
    if isinstance(prompts, str):
        raise ValueError(f'prompts must be a list of phrases, got the text "{prompts}": write ["{prompts}"]')
    prompts = tuple(prompts)
    if not prompts:
        raise ValueError("no prompts: ask about at least one phrase")
    for prompt in prompts:
        if not isinstance(prompt, str) or not prompt.strip():
            raise ValueError(f"a prompt must be a phrase, got {prompt!r}")
    return prompts
