# SPDX-License-Identifier: Apache-2.0
"""Loads the embedded CLIP as a start for other methods, with another vocabulary or stride."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from clip_seg_ros.models.checkpoints import load_safetensors, load_strict
from clip_seg_ros.models.clip.backbone import CLIP, ClipConfig, build_clip
from clip_seg_ros.models.clip.tokenizer import CompactTokenizer


def pocket_clip(
    path: Path, words: Sequence[str], context_length: int, output_stride: int = 32
) -> tuple[CLIP, ClipConfig, CompactTokenizer]:
    """Loads the embedded CLIP and extends its vocabulary by words whose embeddings are random.

    Args:
        path: Path of ``clip_pocket.safetensors``.
        words: Words to add to those that it knows.
        context_length: Context length of the returned tokenizer, at most that of the tower.
        output_stride: Output stride of the image tower, which may differ from that in training, because it only changes
            average pools, which have no weights.

    Raises:
        WeightsError: The file is missing or damaged.
    """
    tensors, values = load_safetensors(path)
    old = ClipConfig.from_dict(values["clip"])
    known = CompactTokenizer(values["known_words"], old.text.context_length)
    words = tuple(dict.fromkeys((*known.known_words, *words)))
    tokenizer = CompactTokenizer(words, context_length)
    config = replace(
        old,
        vision=replace(old.vision, output_stride=output_stride),
        text=replace(old.text, vocab_size=tokenizer.vocab_size),
    )
    clip = build_clip(config)
    table = clip.token_embedding.weight.detach().clone()
    theirs, ours = tokenizer.rows_from(known)
    table[ours] = tensors["token_embedding.weight"][theirs]
    load_strict(clip, tensors | {"token_embedding.weight": table}, str(path))
    clip.visual.to(memory_format=torch.channels_last)
    return clip, config, tokenizer
