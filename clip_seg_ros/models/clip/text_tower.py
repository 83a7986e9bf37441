# SPDX-License-Identifier: Apache-2.0
"""Runs CLIP's text tower on prompts of any length up to its context."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from clip_seg_ros.models.base import TextFeatures
from clip_seg_ros.models.clip.backbone import TextTower


def require_templates(templates: Sequence[str]) -> None:
    """Raises ValueError unless each of ``templates`` is a sentence with "{}" where the phrase goes."""
    for template in templates:
        if not isinstance(template, str) or "{}" not in template:
            raise ValueError(f'templates must each hold "{{}}" where the phrase goes, got {templates}')


def in_templates(prompts: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Returns each prompt in every template, T sentences for the first prompt, then T for the second, and so on."""
    return [template.format(prompt) for prompt in prompts for template in templates]


def encode_text(tower: TextTower, token_ids: torch.Tensor, whole: bool = False) -> TextFeatures:
    """Encodes tokenised prompts.

    Columns after the last end token of all rows are cut off first, unless ``whole``. Because attention is causal, this
    does not change the columns before them, and short prompts cost a fraction of the full context.

    Args:
        tower: A CLIP, of which only the text tower is used, or a text tower alone.
        token_ids: (P, context) int64; the end token is the largest id of a row, padding is 0. There may be
            fewer columns than in the tower's context.
        whole: Whether to keep columns that are padding in all rows, for models that attend to words: their features
            then have the same length in every call.

    Returns:
        ``pooled`` (P, D); ``tokens`` (P, L, C), the final layer norm's output, not projected; ``padding_mask`` (P, L).
    """
    end = token_ids.argmax(dim=-1)
    length = token_ids.shape[1] if whole else int(end.max()) + 1
    token_ids = token_ids[:, :length]
    x = tower.token_embedding(token_ids) + tower.positional_embedding[:length]
    x = tower.transformer(x, attn_mask=tower.attn_mask[:length, :length])
    x = tower.ln_final(x)  # (P, L, C)
    pooled = x[torch.arange(x.shape[0], device=x.device), end] @ tower.text_projection
    return TextFeatures(pooled=pooled, tokens=x, padding_mask=token_ids == 0)
