# SPDX-License-Identifier: Apache-2.0
"""Converts Talk2DINO's files: the whole model of the Hugging Face hub, or the projection alone.

Options of both: ``background_cleaning`` (see ``Talk2DINOConfig``; ``true`` for the authors' weight of it),
``dino_head_width`` and ``text_head_width`` (64), ``antialias``.
Of the projection, which holds no towers: ``clip`` (tensors of OpenAI's CLIP ViT-B/16) and ``dino`` (tensors of a DINOv2
with registers, as torch.hub or timm publish it), both of which it needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.clip.convert import BOOKKEEPING, HEAD_WIDTH, text_config
from clip_seg_ros.models.clip.tokenizer import tokenizer_config
from clip_seg_ros.models.conversion.mapping import (
    Converted,
    Source,
    antialiased,
    assemble,
    count_blocks,
    require,
    shapes_of,
)
from clip_seg_ros.models.spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from clip_seg_ros.models.talk2dino.dino import DinoConfig
from clip_seg_ros.models.talk2dino.model import AUTHORS_CLEANING, Talk2DINO, Talk2DINOConfig

OPTIONS = frozenset({"background_cleaning", "dino_head_width", "text_head_width", "antialias"})
PROJECTION_OPTIONS = OPTIONS | {"clip", "dino"}
_SIZE, _LONG_SIDE_LIMIT = 448, 2048
_DINO, _CLIP, _PROJECTION = "model.", "clip_model.", "proj."
_FIRST = "linear_layer."
_UNUSED = ("clip_model.visual.", "pamr.")
_BOOKKEEPING = {f"{_CLIP}{name}" for name in (*BOOKKEEPING, "logit_scale")} | {"logit_scale", f"{_DINO}mask_token"}


def matches_whole(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Returns whether these are the tensors of a whole Talk2DINO, as on the Hugging Face hub."""
    return any(key.startswith(f"{_PROJECTION}{_FIRST}") for key in tensors)


def matches_projection(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Returns whether these are the tensors of the projection alone, as in the authors' repository."""
    return any(key.startswith(_FIRST) for key in tensors)


def convert_projection(tensors: Mapping[str, torch.Tensor], origin: str, options: Mapping[str, Any]) -> Converted:
    """Makes a Talk2DINO of the projection and the two towers that it was trained on.

    Raises:
        WeightsError: A tower was not given, or keys are missing, unexpected or mis-shaped.
    """
    if "clip" not in options or "dino" not in options:
        raise WeightsError(
            f"{origin} holds the projection alone: add OpenAI's CLIP ViT-B/16 (--clip FILE) and the DINOv2 with "
            "registers that it was trained on (--dino FILE: dinov2_vitb14_reg4_pretrain.pth, dinov2_vitl14_reg4_"
            "pretrain.pth, or the model.safetensors of timm's vit_base_patch14_reg4_dinov2)"
        )
    joined = {f"{_PROJECTION}{key}": value for key, value in tensors.items()}
    joined |= {f"{_DINO}{key}": value for key, value in options["dino"].items()}
    joined |= {f"{_CLIP}{key}": value for key, value in options["clip"].items()}
    return convert_whole(joined, origin, options)


def convert_whole(tensors: Mapping[str, torch.Tensor], origin: str, options: Mapping[str, Any]) -> Converted:
    """Makes a Talk2DINO of all its parts.

    Raises:
        WeightsError: Keys are missing, unexpected or mis-shaped.
        ValueError: An option is wrong.
    """
    tensors = _as_timm(_as_numbered(tensors), origin)
    text = text_config(tensors, origin, _CLIP, options.get("text_head_width", HEAD_WIDTH))
    own = Talk2DINOConfig(
        InputSpec(
            _SIZE,
            "short_side",
            require(tensors, f"{_DINO}patch_embed.proj.weight", origin).shape[-1],
            IMAGENET_MEAN,
            IMAGENET_STD,
            _LONG_SIDE_LIMIT,
            antialias=antialiased(options),
        ),
        _dino_config(tensors, origin, options.get("dino_head_width", HEAD_WIDTH)),
        text,
        embed_dim=require(tensors, f"{_CLIP}text_projection", origin).shape[1],
        hidden_layers=count_blocks(tensors, f"{_PROJECTION}hidden_layers."),
        background_cleaning=_cleaning_weight(options),
    )
    config = {
        "kind": "talk2dino",
        "talk2dino": own.to_dict(),
        "tokenizer": tokenizer_config(text.vocab_size, text.context_length),
    }
    wanted = shapes_of(lambda: Talk2DINO.from_config("", config))
    return Converted(config, assemble(wanted, _source, tensors, origin, _is_unused))


def check_options(options: Mapping[str, Any]) -> None:
    """Checks the options that can be checked without a file.

    Raises:
        ValueError: A value is wrong.
    """
    _cleaning_weight(options)
    antialiased(options)


def _cleaning_weight(options: Mapping[str, Any]) -> float | None:
    chosen = options.get("background_cleaning")
    if chosen is None or chosen is False:
        return None
    if chosen is True:
        return AUTHORS_CLEANING
    if not isinstance(chosen, int | float) or not chosen > 0:
        raise ValueError(f"the option background_cleaning must be true, false or a positive weight, got {chosen!r}")
    return float(chosen)


def _dino_config(tensors: Mapping[str, torch.Tensor], origin: str, head_width: int) -> DinoConfig:
    """Reads the size of the image tower from its weights, except for the width of its heads."""
    width, _, patch, _ = require(tensors, f"{_DINO}patch_embed.proj.weight", origin).shape
    positions = require(tensors, f"{_DINO}pos_embed", origin).shape[1]
    return DinoConfig(
        layers=count_blocks(tensors, f"{_DINO}blocks."),
        width=width,
        heads=width // head_width,
        image_size=round(positions**0.5) * patch,
        patch_size=patch,
        registers=require(tensors, f"{_DINO}reg_token", origin).shape[1],
    )


def _as_timm(tensors: Mapping[str, torch.Tensor], origin: str) -> dict[str, torch.Tensor]:
    """Gives an image tower of torch.hub timm's layout: the position of the class token is added to the token."""
    tensors = dict(tensors)
    registers = f"{_DINO}register_tokens"
    if registers in tensors:
        tensors[f"{_DINO}reg_token"] = tensors.pop(registers)
        table = require(tensors, f"{_DINO}pos_embed", origin)
        token = require(tensors, f"{_DINO}cls_token", origin)
        tensors[f"{_DINO}cls_token"] = token + table[:, :1]
        tensors[f"{_DINO}pos_embed"] = table[:, 1:]
    elif f"{_DINO}reg_token" not in tensors:
        raise WeightsError(f"{origin} holds no DINOv2 with registers, which Talk2DINO needs: DINOv3 is not supported")
    return tensors


def _as_numbered(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Gives the projection of the authors' first files the names of the later ones."""
    old, new = f"{_PROJECTION}linear_layer2.", f"{_PROJECTION}hidden_layers.0."
    return {key.replace(old, new) if key.startswith(old) else key: value for key, value in tensors.items()}


def _is_unused(key: str) -> bool:
    return key in _BOOKKEEPING or key.startswith(_UNUSED)


def _source(key: str) -> Source:
    """Returns the source of one of our tensors."""
    part, _, rest = key.partition(".")
    if part == "dino":
        return Source((f"{_DINO}{rest.removeprefix('vit.')}",))
    if part == "text":
        return Source((f"{_CLIP}{rest}",))
    index, _, kind = rest.partition(".")
    # Every second module of the projection is a tanh.
    number = int(index) // 2
    name = f"hidden_layers.{number - 1}." if number else _FIRST
    return Source((f"{_PROJECTION}{name}{kind}",))
