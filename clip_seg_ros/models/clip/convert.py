# SPDX-License-Identifier: Apache-2.0
"""Reads CLIP as OpenAI and open_clip publish it; its keys are those of open_clip's modules."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from clip_seg_ros.models.clip.backbone import ClipConfig, TextConfig, VisionConfig
from clip_seg_ros.models.conversion.mapping import count_blocks, require

HEAD_WIDTH = 64
"""Channels of one attention head in every CLIP that OpenAI published."""
BOOKKEEPING = frozenset({"input_resolution", "context_length", "vocab_size"})
"""Scalars in OpenAI's archives that are not weights."""


def vision_config(
    tensors: Mapping[str, torch.Tensor], origin: str, prefix: str = "visual.", head_width: int = HEAD_WIDTH
) -> VisionConfig:
    """Reads the size of an image tower, ViT or ModifiedResNet, from its weights, except for the width of its heads.

    Raises:
        WeightsError: A tensor that determines the size is missing.
    """
    if f"{prefix}layer1.0.conv1.weight" in tensors:
        table = require(tensors, f"{prefix}attnpool.positional_embedding", origin)
        return VisionConfig(
            layers=tuple(count_blocks(tensors, f"{prefix}layer{stage}.") for stage in (1, 2, 3, 4)),
            width=tensors[f"{prefix}layer1.0.conv1.weight"].shape[0],
            image_size=round((len(table) - 1) ** 0.5) * 32,
            head_width=head_width,
        )
    patches = require(tensors, f"{prefix}conv1.weight", origin)
    table = require(tensors, f"{prefix}positional_embedding", origin)
    return VisionConfig(
        layers=count_blocks(tensors, f"{prefix}transformer.resblocks."),
        width=patches.shape[0],
        image_size=round((len(table) - 1) ** 0.5) * patches.shape[-1],
        patch_size=patches.shape[-1],
        head_width=head_width,
    )


def text_config(
    tensors: Mapping[str, torch.Tensor], origin: str, prefix: str = "", head_width: int = HEAD_WIDTH
) -> TextConfig:
    """Reads the size of a text tower from its weights, except for the width of its heads.

    Raises:
        WeightsError: A tensor that determines the size is missing.
    """
    vocab_size, width = require(tensors, f"{prefix}token_embedding.weight", origin).shape
    return TextConfig(
        context_length=len(require(tensors, f"{prefix}positional_embedding", origin)),
        vocab_size=vocab_size,
        width=width,
        heads=width // head_width,
        layers=count_blocks(tensors, f"{prefix}transformer.resblocks."),
    )


def clip_config(
    tensors: Mapping[str, torch.Tensor],
    origin: str,
    prefix: str = "",
    *,
    quick_gelu: bool = True,
    vision_head_width: int = HEAD_WIDTH,
    text_head_width: int = HEAD_WIDTH,
) -> ClipConfig:
    """Reads the size of a whole CLIP from its weights.

    Args:
        tensors: The tensors in OpenAI's layout, which is also open_clip's.
        origin: Name of the file, for the message.
        prefix: Prefix of every key of the CLIP.
        quick_gelu: Whether the activation is QuickGELU, which weights do not show: True for towers trained by OpenAI.
        vision_head_width: Channels of an image tower's attention head.
        text_head_width: Channels of a text tower's attention head.

    Raises:
        WeightsError: A tensor that determines the size is missing.
    """
    return ClipConfig(
        embed_dim=require(tensors, f"{prefix}text_projection", origin).shape[1],
        vision=vision_config(tensors, origin, f"{prefix}visual.", vision_head_width),
        text=text_config(tensors, origin, prefix, text_head_width),
        quick_gelu=quick_gelu,
    )
