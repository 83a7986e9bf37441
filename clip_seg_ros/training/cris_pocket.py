"""The embedded CRIS: trained on rendered scenes and expressions that relate objects, from the embedded CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from clip_seg_ros.data.expressions import expression_words
from clip_seg_ros.models.base import InputSpec
from clip_seg_ros.models.cris import CRIS, CRISConfig
from clip_seg_ros.training.phrases import known_words
from clip_seg_ros.training.pocket_clip import pocket_clip

_CONTEXT_LENGTH = 16
"""The longest expressions have twelve words and marks."""
_STATE_SCALE = 0.1
_FIRST_LOGIT = -3.0
"""An object covers about a twentieth of a picture."""


def build_cris_pocket(
    clip_path: Path, fpn_out: Sequence[int] = (96, 128, 256), feed_forward: int = 512, input_px: int = 256
) -> tuple[CRIS, dict[str, Any]]:
    """Builds CRIS on the embedded CLIP, with everything beside it random.

    Returns:
        The model, and the configuration that ``factory.build_from_config`` builds it from.
    """
    words = (*known_words(), *expression_words())
    clip, clip_config, tokenizer = pocket_clip(clip_path, words, _CONTEXT_LENGTH)
    spec = InputSpec(input_px, "short_side", 32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    own = CRISConfig(tuple(fpn_out), spec, n_layers=3, n_heads=4, feed_forward=feed_forward, dropout=0.0)
    model = CRIS("cris-pocket", clip, own, tokenizer)
    _calm(model)
    config = {
        "kind": "cris",
        "cris": own.to_dict(),
        "clip": clip_config.to_dict(),
        "tokenizer": {
            "kind": "compact", "known_words": list(tokenizer.known_words), "context_length": _CONTEXT_LENGTH,
        },
    }  # fmt: skip
    return model, config


def _calm(model: CRIS) -> None:
    """Makes the first answers small and mostly "no".

    The embedded CLIP's sentences are vectors of length 25, and every step moves the kernel that is made of them in
    proportion. As they are, training never left the constant answer.
    """
    with torch.no_grad():
        model.clip.text_projection.mul_(_STATE_SCALE)
        model.proj.txt.weight.mul_(0.3)
        model.proj.txt.bias.zero_()
        model.proj.txt.bias[-1] = _FIRST_LOGIT
