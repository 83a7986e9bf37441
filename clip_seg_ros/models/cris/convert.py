# SPDX-License-Identifier: Apache-2.0
"""Converts CRIS's published checkpoints.

Options: ``word_length`` (17; 22 for G-Ref), ``n_heads`` of the decoder (8), ``text_head_width`` and
``vision_head_width`` of CLIP (64).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from clip_seg_ros.models.clip.convert import HEAD_WIDTH, clip_config
from clip_seg_ros.models.clip.tokenizer import tokenizer_config
from clip_seg_ros.models.conversion.mapping import Converted, Source, assemble, count_blocks, require, shapes_of
from clip_seg_ros.models.cris.model import CRIS, CRISConfig
from clip_seg_ros.models.spec import CLIP_MEAN, CLIP_STD, InputSpec

OPTIONS = frozenset({"word_length", "n_heads", "text_head_width", "vision_head_width"})
WORD_LENGTH = 17
_INPUT_SIZE = 416
_CONNECT = "backbone.visual.attnpool.connect."


def matches(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Returns whether these are the tensors of a CRIS."""
    return any(key.startswith(("neck.f1_v_proj.", "neck.coordconv.")) for key in tensors)


def convert(tensors: Mapping[str, torch.Tensor], origin: str, options: Mapping[str, Any]) -> Converted:
    """Converts a whole CRIS.

    Raises:
        WeightsError: Keys are missing, unexpected or mis-shaped.
    """
    clip = clip_config(
        tensors,
        origin,
        "backbone.",
        vision_head_width=options.get("vision_head_width", HEAD_WIDTH),
        text_head_width=options.get("text_head_width", HEAD_WIDTH),
    )
    levels = (f"neck.{name}.0.weight" for name in ("f3_v_proj", "f2_v_proj", "f1_v_proj"))
    fpn_out = [len(require(tensors, key, origin)) for key in levels]
    cris = CRISConfig(
        fpn_out=(fpn_out[0], fpn_out[1], fpn_out[2]),
        input_spec=InputSpec(_INPUT_SIZE, "letterbox", 32, CLIP_MEAN, CLIP_STD),
        n_layers=count_blocks(tensors, "decoder.layers."),
        n_heads=options.get("n_heads", 8),
        feed_forward=len(require(tensors, "decoder.layers.0.ffn.0.weight", origin)),
    )
    config = {
        "kind": "cris",
        "clip": clip.to_dict(),
        "cris": cris.to_dict(),
        "tokenizer": tokenizer_config(clip.text.vocab_size, options.get("word_length", WORD_LENGTH)),
    }
    wanted = shapes_of(lambda: CRIS.from_config("", config))
    return Converted(config, assemble(wanted, lambda key: Source((published_name(key),)), tensors, origin))


def published_name(key: str) -> str:
    """Returns the authors' name of one of our keys."""
    if key.startswith("clip."):
        return key.replace("clip.", "backbone.", 1)
    return key.replace("connect.", _CONNECT, 1) if key.startswith("connect.") else key
