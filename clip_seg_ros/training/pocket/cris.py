# SPDX-License-Identifier: Apache-2.0
"""Trains the embedded CRIS from the embedded CLIP, on rendered scenes and expressions that relate objects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clip_seg_ros.data.expressions import expression_words
from clip_seg_ros.data.tabletop import TabletopScenes
from clip_seg_ros.models.cris.model import CRIS, CRISConfig
from clip_seg_ros.models.spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from clip_seg_ros.training.pocket.batches import expression_batch
from clip_seg_ros.training.pocket.clip import pocket_clip
from clip_seg_ros.training.pocket.phrases import known_words
from clip_seg_ros.training.recipes.batch import ExpressionBatch
from clip_seg_ros.training.recipes.cris import CRISRecipe, CRISSettings, calm
from clip_seg_ros.training.settings import RecipeSettings

_CONTEXT_LENGTH = 16
"""The context length in tokens; the longest expressions have twelve words and marks."""


@dataclass(frozen=True)
class CRISPocketSettings(RecipeSettings):
    """The recipe of the embedded CRIS."""

    scenes: int
    train: CRISSettings
    phrases: int = 3
    """The number of phrases per image."""
    scene_px: tuple[int, int] = (192, 256)
    """The (height, width) of the window that is cropped from a scene; both are multiples of 32."""
    plain_share: float = 0.3
    """The share of phrases that name a colour, a kind or both, and no relation."""
    next_to_share: float = 0.0
    """The share of expressions that prefer "next to", besides those that draw it by chance."""
    first_scene_px: tuple[int, int] = (128, 160)
    first_plain_share: float = 0.8
    fpn_out: tuple[int, int, int] = (96, 128, 256)
    feed_forward: int = 512
    detail_channels: int = 32
    input_px: int = 256
    """The short side of the input images in pixels."""
    seed: int = 0


def cris_pocket(settings: CRISPocketSettings, scenes: TabletopScenes, clip_path: Path) -> CRISRecipe:
    """Makes the recipe.

    Args:
        settings: Settings of the recipe.
        scenes: Scenes, at least as many as the settings require.
        clip_path: Path of ``clip_pocket.safetensors``, with whose weights the towers begin.

    Raises:
        WeightsError: The towers' file is missing or damaged.
    """
    s = settings
    torch.manual_seed(s.seed)
    model, config = build_cris_pocket(s, clip_path)

    def draw(rng: np.random.Generator) -> ExpressionBatch:
        return expression_batch(
            scenes, rng, s.train.batch, s.scene_px, s.phrases, s.plain_share, s.next_to_share
        ).share()

    def first_draw(rng: np.random.Generator) -> ExpressionBatch:
        return expression_batch(scenes, rng, s.train.batch, s.first_scene_px, s.phrases, s.first_plain_share).share()

    return CRISRecipe(s.train, model, config, draw, first_draw)


def build_cris_pocket(settings: CRISPocketSettings, clip_path: Path) -> tuple[CRIS, dict[str, Any]]:
    """Builds CRIS on the embedded CLIP; all other weights are random.

    Returns:
        The model, and the configuration from which ``factory.build_from_config`` builds it.
    """
    words = (*known_words(), *expression_words())
    clip, clip_config, tokenizer = pocket_clip(clip_path, words, _CONTEXT_LENGTH)
    spec = InputSpec(settings.input_px, "short_side", 32, IMAGENET_MEAN, IMAGENET_STD)
    own = CRISConfig(
        settings.fpn_out,
        spec,
        n_layers=3,
        n_heads=4,
        feed_forward=settings.feed_forward,
        dropout=0.0,
        detail_channels=settings.detail_channels,
    )
    model = CRIS("cris_pocket", clip, own, tokenizer)
    calm(model)
    config = {
        "kind": "cris",
        "cris": own.to_dict(),
        "clip": clip_config.to_dict(),
        "tokenizer": {
            "kind": "compact",
            "known_words": list(tokenizer.known_words),
            "context_length": _CONTEXT_LENGTH,
        },
    }
    return model, config
