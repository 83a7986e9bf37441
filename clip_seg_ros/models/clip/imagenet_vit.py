# SPDX-License-Identifier: Apache-2.0
"""Reads a ViT that was trained on ImageNet, as timm and torchvision publish it, as the image tower of a CLIP.

CLIPSeg's baseline ViTSeg has one in place of CLIP's image tower. CLIP's tower has no bias in its patches: that of the
file is added to the positions of the patches, which comes to the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.clip.backbone import VisionConfig, build_vision_tower
from clip_seg_ros.models.clip.convert import HEAD_WIDTH
from clip_seg_ros.models.conversion.mapping import Source, assemble, count_blocks, require, shapes_of

# Ours -> timm's and torchvision's.
_TIMM = {
    "class_embedding": "cls_token",
    "positional_embedding": "pos_embed",
    "conv1": "patch_embed.proj",
    "ln_post": "norm",
    "attn.in_proj_": "attn.qkv.",
    "attn.out_proj": "attn.proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "ln_1": "norm1",
    "ln_2": "norm2",
}
_TORCHVISION = {
    "class_embedding": "class_token",
    "positional_embedding": "encoder.pos_embedding",
    "conv1": "conv_proj",
    "ln_post": "encoder.ln",
    "attn.": "self_attention.",
    "mlp.c_fc": "mlp.0",
    "mlp.c_proj": "mlp.3",
}
_OURS = "transformer.resblocks."
_OLD_TORCHVISION = {"mlp.linear_1.": "mlp.0.", "mlp.linear_2.": "mlp.3."}


def read_imagenet_vit(
    tensors: Mapping[str, torch.Tensor], origin: str, head_width: int = HEAD_WIDTH
) -> tuple[VisionConfig, dict[str, torch.Tensor]]:
    """Converts a ViT; its classifier of ImageNet's classes is left out.

    Args:
        tensors: The tensors of the file.
        origin: Name of the file, for messages.
        head_width: The number of channels of an attention head, which a file does not show.

    Returns:
        The configuration, and the tensors of ``build_vision_tower`` but ``proj``, the projection to CLIP's embedding,
        which such a tower lacks.

    Raises:
        WeightsError: It is no such ViT, or it is not whole.
    """
    timm = "patch_embed.proj.weight" in tensors
    if not timm and "conv_proj.weight" not in tensors:
        raise WeightsError(f"{origin} is no ViT as timm or torchvision publish it")
    names, blocks = (_TIMM, "blocks.") if timm else (_TORCHVISION, "encoder.layers.encoder_layer_")
    tensors = {_renamed(key, {} if timm else _OLD_TORCHVISION): value for key, value in tensors.items()}
    bias = require(tensors, f"{names['conv1']}.bias", origin)
    positions = require(tensors, names["positional_embedding"], origin)
    width, _, patch, _ = require(tensors, f"{names['conv1']}.weight", origin).shape
    config = VisionConfig(
        layers=count_blocks(tensors, blocks),
        width=width,
        image_size=round((positions.shape[1] - 1) ** 0.5) * patch,
        patch_size=patch,
        head_width=head_width,
        trained_on="imagenet",
    )
    # The width of the embedding is of no account: ``proj`` is left out.
    wanted = shapes_of(lambda: build_vision_tower(config, HEAD_WIDTH, quick_gelu=False))
    del wanted["proj"]
    given = {key: value for key, value in tensors.items() if not key.startswith(("head.", "heads.", "fc_norm."))}
    del given[f"{names['conv1']}.bias"]
    built = assemble(wanted, _source(names, blocks), given, origin)
    table = built["positional_embedding"]
    built["positional_embedding"] = torch.cat([table[:1], table[1:] + bias.float()])
    return config, built


def _source(names: Mapping[str, str], blocks: str) -> Callable[[str], Source]:
    def source(key: str) -> Source:
        if key.startswith(_OURS):
            number, _, part = key.removeprefix(_OURS).partition(".")
            return Source((f"{blocks}{number}.{_renamed(part, names)}",))
        return Source((_renamed(key, names),), unit_axes=key in ("class_embedding", "positional_embedding"))

    return source


def _renamed(key: str, names: Mapping[str, str]) -> str:
    """Returns ``key`` with the part that is in ``names`` replaced."""
    for ours, theirs in names.items():
        if ours in key:
            return key.replace(ours, theirs)
    return key
