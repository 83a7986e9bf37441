# SPDX-License-Identifier: Apache-2.0
"""Prompts that are example images."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from clip_seg_ros.models.base import TextFeatures
from clip_seg_ros.models.clipseg.visual_prompts import visual_prompt
from clip_seg_ros.models.spec import ModelSpec
from clip_seg_ros.pipeline.preprocess import Preprocessor
from clip_seg_ros.runtime.engine import Engine


def require_examples(spec: ModelSpec) -> None:
    """Raises ValueError if the model takes no example images."""
    if not spec.takes_examples:
        raise ValueError(f"{spec.name} understands phrases alone: example images need a CLIPSeg")


def embedded_example(
    engine: Engine,
    preprocess: Preprocessor,
    rgb: np.ndarray,
    mask: np.ndarray,
    text: str | None = None,
    text_weight: float = 0.5,
) -> TextFeatures:
    """Embeds the object of an example image, whose background is first changed as the model's ``example_style`` says.

    Args:
        engine: Engine of the model.
        preprocess: Prepares images for it.
        rgb: (H, W, 3) uint8, an image that shows the object.
        mask: (H, W) bool, True where the object is.
        text: A phrase to mix in, or ``None`` for the example alone.
        text_weight: The share of the phrase, 0..1.

    Raises:
        ValueError: The model takes no example images, the mask is empty or of another size, or the weight is out of
            range.
    """
    spec = engine.spec
    require_examples(spec)
    if not 0.0 <= text_weight <= 1.0:
        raise ValueError(f"text_weight must lie in 0..1, got {text_weight}")
    mask = np.asarray(mask, dtype=bool)
    if mask.shape != rgb.shape[:2] or not mask.any():
        raise ValueError(f"mask must be {rgb.shape[:2]} and hold the object, got {mask.shape}, {mask.sum()} pixels")
    pixels = preprocess(rgb).pixels
    size = tuple(pixels.shape[2:])
    shown = F.adaptive_max_pool2d(torch.from_numpy(mask)[None, None].float(), size)[0].to(pixels.device)
    side = spec.example_px
    cut = visual_prompt(pixels, shown, max(size), spec.example_style)
    example = F.interpolate(cut, size=(side, side) if side else size, mode="bilinear", antialias=True)
    return engine.encode_example(example, text, text_weight)
