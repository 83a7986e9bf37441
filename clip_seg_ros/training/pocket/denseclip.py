# SPDX-License-Identifier: Apache-2.0
"""Trains the embedded DenseCLIP from the embedded CLIP, for kinds of objects, the table and the floor."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clip_seg_ros.data.tabletop import SEMANTIC_CLASSES, TabletopScenes
from clip_seg_ros.models.clip.backbone import TextConfig, TextTransformer, build_text_tower
from clip_seg_ros.models.clip.tokenizer import CompactTokenizer
from clip_seg_ros.models.denseclip.backbones import DenseResNet
from clip_seg_ros.models.denseclip.model import DenseCLIP, DenseCLIPConfig
from clip_seg_ros.models.spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from clip_seg_ros.training.pocket.batches import class_batch
from clip_seg_ros.training.pocket.clip import pocket_clip
from clip_seg_ros.training.recipes.batch import ClassBatch
from clip_seg_ros.training.recipes.denseclip import DenseCLIPRecipe, DenseCLIPSettings
from clip_seg_ros.training.recipes.run_settings import RunSettings
from clip_seg_ros.training.settings import RecipeSettings

POCKET_PROMPTING: dict[str, Any] = {"name_length": 4, "n_contexts": 4, "context_width": 64, "context_layers": 2}
"""The sizes of what adapts texts to images, for the small towers."""


@dataclass(frozen=True)
class PromptingPocketSettings(RecipeSettings):
    """What the recipes of the embedded DenseCLIP and of the embedded detector share."""

    scenes: int
    train: RunSettings
    scene_px: tuple[int, int] = (192, 256)
    """The (height, width) of the window that is cropped from a scene; both are multiples of 32."""
    input_px: int = 256
    """The short side of the input images in pixels."""
    context_aware: bool = True
    score_map: bool = True
    """This and ``context_aware`` are as in ``PromptingConfig``, to measure their effects."""
    seed: int = 0


@dataclass(frozen=True)
class DenseCLIPPocketSettings(PromptingPocketSettings):
    """The recipe of the embedded DenseCLIP."""

    train: DenseCLIPSettings


def denseclip_pocket(settings: DenseCLIPPocketSettings, scenes: TabletopScenes, clip_path: Path) -> DenseCLIPRecipe:
    """Makes the recipe.

    Args:
        settings: Settings of the recipe.
        scenes: Scenes, at least as many as the settings require.
        clip_path: Path of ``clip_pocket.safetensors``, with whose weights the towers begin.

    Raises:
        WeightsError: The towers' file is missing or damaged.
    """
    torch.manual_seed(settings.seed)
    model, config = build_denseclip_pocket(settings, clip_path)

    def draw(rng: np.random.Generator) -> ClassBatch:
        return class_batch(scenes, rng, settings.train.batch, settings.scene_px).share()

    return DenseCLIPRecipe(settings.train, model, config, draw)


def build_denseclip_pocket(settings: DenseCLIPPocketSettings, clip_path: Path) -> tuple[DenseCLIP, dict[str, Any]]:
    """Builds DenseCLIP on the embedded CLIP; all other weights are random.

    Returns:
        The model, and the configuration from which ``factory.build_from_config`` builds it.
    """
    towers = pocket_towers(clip_path)
    spec = InputSpec(settings.input_px, "short_side", 32, IMAGENET_MEAN, IMAGENET_STD)
    own = DenseCLIPConfig(
        SEMANTIC_CLASSES,
        spec,
        pyramid_channels=64,
        head_channels=64,
        context_aware=settings.context_aware,
        score_map=settings.score_map,
        **POCKET_PROMPTING,
    )
    model = DenseCLIP("denseclip_pocket", towers.backbone, towers.text, own, towers.tokenizer)
    return model, {"kind": "denseclip", "denseclip": own.to_dict(), **towers.config}


@dataclass(frozen=True)
class PocketTowers:
    """The embedded CLIP as DenseCLIP's towers."""

    backbone: DenseResNet
    text: TextTransformer
    tokenizer: CompactTokenizer
    config: dict[str, Any]
    """The towers' part of the configuration of a weight file."""


def pocket_towers(clip_path: Path) -> PocketTowers:
    """Loads the embedded CLIP, its image tower at stride 32 and its text tower for contexts and names.

    Raises:
        WeightsError: The file is missing or damaged.
    """
    length = POCKET_PROMPTING["name_length"] + POCKET_PROMPTING["n_contexts"]
    clip, clip_config, tokenizer = pocket_clip(clip_path, (), length)
    text_config = TextConfig(**{**asdict(clip_config.text), "context_length": length})
    text = build_text_tower(text_config, clip_config.embed_dim, clip_config.quick_gelu)
    state = {name: value for name, value in clip.state_dict().items() if name in text.state_dict()}
    # The last positions are dropped, because contexts and names are shorter than sentences.
    text.load_state_dict(state | {"positional_embedding": state["positional_embedding"][:length]})
    config = {
        "embed_dim": clip_config.embed_dim,
        "quick_gelu": clip_config.quick_gelu,
        "vision": asdict(clip_config.vision),
        "text": asdict(text_config),
        "tokenizer": {"kind": "compact", "known_words": list(tokenizer.known_words), "context_length": length},
    }
    return PocketTowers(DenseResNet(clip.visual), text, tokenizer, config)
