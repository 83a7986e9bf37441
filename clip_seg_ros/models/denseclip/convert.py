# SPDX-License-Identifier: Apache-2.0
"""Converts DenseCLIP's published checkpoints for semantic segmentation with Semantic FPN.

Options: ``class_names`` (ADE20K's where there are 150), ``text_head_width`` and ``vision_head_width`` of CLIP (64),
``context_heads`` (4), ``blocks`` of a ViT after which it is tapped (3, 5, 7, 11).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.clip.convert import HEAD_WIDTH, text_config, vision_config
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
from clip_seg_ros.models.denseclip.model import DenseCLIP, DenseCLIPConfig
from clip_seg_ros.models.spec import CLIP_MEAN, CLIP_STD, InputSpec, SlidingWindow
from clip_seg_ros.resources import class_list

OPTIONS = frozenset({"class_names", "text_head_width", "vision_head_width", "context_heads", "blocks", "antialias"})
_LONG_SIDE_LIMIT = 2048
_AXES = {
    "contexts": 3,
    "backbone.conv1.weight": 4,
    "backbone.positional_embedding": 2,
    "backbone.attnpool.positional_embedding": 2,
    "text_encoder.token_embedding.weight": 2,
    "text_encoder.text_projection": 2,
    "decode_head.conv_seg.weight": 4,
}
"""Tensors whose shapes determine the size of the model, with the number of axes that they must have."""


def matches(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Returns whether these are the tensors of a DenseCLIP."""
    return any(key.startswith("context_decoder.") for key in tensors)


def convert(tensors: Mapping[str, torch.Tensor], origin: str, options: Mapping[str, Any]) -> Converted:
    """Converts a whole DenseCLIP.

    Raises:
        WeightsError: The names of the classes are not known, or keys are missing, unexpected or mis-shaped.
    """
    for key, axes in _AXES.items():
        if key in tensors and tensors[key].ndim != axes:
            raise WeightsError(
                f"{origin} is not whole: {key} is {tuple(tensors[key].shape)} and should have {axes} axes"
            )
    vision = vision_config(tensors, origin, "backbone.", options.get("vision_head_width", HEAD_WIDTH))
    text = text_config(tensors, origin, "text_encoder.", options.get("text_head_width", HEAD_WIDTH))
    n_contexts = require(tensors, "contexts", origin).shape[1]
    # The windows that the authors test with, at the size of training: two thirds of a window from one to the next.
    size = vision.image_size
    window = SlidingWindow(size, 2 * size // 3)
    own = DenseCLIPConfig(
        class_names=_class_names(len(require(tensors, "decode_head.conv_seg.weight", origin)), origin, options),
        input_spec=InputSpec(
            size, "short_side", 1, CLIP_MEAN, CLIP_STD, _LONG_SIDE_LIMIT, window, antialiased(options)
        ),
        name_length=text.context_length - n_contexts,
        n_contexts=n_contexts,
        context_width=len(require(tensors, "context_decoder.text_proj.1.weight", origin)),
        context_heads=options.get("context_heads", 4),
        context_layers=count_blocks(tensors, "context_decoder.decoder."),
        pyramid_channels=len(require(tensors, "neck.fpn_convs.0.conv.weight", origin)),
        head_channels=len(require(tensors, "decode_head.scale_heads.0.0.conv.weight", origin)),
        blocks=tuple(options.get("blocks", (3, 5, 7, 11))),
    )
    config = {
        "kind": "denseclip",
        "embed_dim": require(tensors, "text_encoder.text_projection", origin).shape[1],
        "quick_gelu": True,
        "vision": asdict(vision),
        "text": asdict(text),
        "denseclip": own.to_dict(),
        # The length is larger than that of a name may be, so that a name that is too long is noticed and not cut.
        "tokenizer": tokenizer_config(text.vocab_size, 77),
    }
    wanted = shapes_of(lambda: DenseCLIP.from_config("", config))
    return Converted(config, assemble(wanted, lambda key: Source((published_name(key),)), tensors, origin))


def published_name(key: str) -> str:
    """Returns the authors' name of one of our keys."""
    for ours in ("backbone.visual.", "backbone.pyramid."):
        key = key.replace(ours, "backbone.", 1)
    return key


def _class_names(count: int, origin: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    names = options.get("class_names") or class_list("ade20k")
    if len(names) != count:
        raise WeightsError(
            f"{origin} was trained on {count} classes, but {len(names)} names are given: name them with --classes, a "
            "list of the package or a file with one name in each line, in the order of training"
        )
    return tuple(names)
