# SPDX-License-Identifier: Apache-2.0
"""Adds rows for new words to a model's table of word embeddings.

Small text towers know a few words, and all other words share one embedding that means "not here", so that no training
could tell them apart. CLIP's own vocabulary consists of pieces that spell any word, and needs none of this.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.clip.tokenizer import CompactTokenizer, IdTokenizer, Tokenizer, build_tokenizer, singular_of
from clip_seg_ros.zoo.build import StoredModel

_TABLE = "token_embedding.weight"


@dataclass(frozen=True)
class GrownModel:
    """A stored model whose vocabulary has grown."""

    stored: StoredModel
    rows: tuple[int, ...]
    """The new rows of the table of word embeddings, ascending, which must be trained."""
    words: Mapping[str, int]
    """The new words, the most frequent first, with the number of phrases that contain them."""


def new_words(tokenizer: Tokenizer, phrases: Sequence[str]) -> dict[str, int]:
    """Returns the words that a vocabulary lacks, lower-case, the most frequent first.

    A plural whose singular is among them is left out: the tokenizer reads it as its singular.

    Args:
        tokenizer: The tokenizer with the vocabulary.
        phrases: The phrases; each counts once for each of its words.
    """
    counts = Counter(word for phrase in phrases for word in {w.lower() for w in tokenizer.unknown_words(phrase)})
    merged: Counter[str] = Counter()
    for word, count in counts.items():
        merged[singular_of(word, counts) or word] += count
    return dict(sorted(merged.items(), key=lambda item: (-item[1], item[0])))


def grow(stored: StoredModel, phrases: Sequence[str], seed: int = 0) -> GrownModel:
    """Adds the words of ``phrases`` that a model lacks to its vocabulary.

    A new row starts at the mean of the known words, with noise as large as their spread, so that no two rows are equal.
    All other rows stay the same.

    Args:
        stored: The model.
        phrases: The phrases that it will be asked for.
        seed: Seed of the noise.

    Raises:
        WeightsError: The model takes token ids instead of words.
    """
    old = build_tokenizer(stored.config["tokenizer"])
    if isinstance(old, IdTokenizer):
        raise WeightsError(
            f"{stored.origin} holds no vocabulary, so its prompts are token ids and no words: begin with other weights"
        )
    words = new_words(old, phrases)
    if not isinstance(old, CompactTokenizer) or not words:
        return GrownModel(stored, (), {})
    tokenizer = CompactTokenizer((*old.known_words, *words), old.context_length)
    theirs, ours = tokenizer.rows_from(old)
    key = next(name for name in stored.tensors if name.endswith(_TABLE))
    table = stored.tensors[key]
    # The first two rows are padding and unknown words, the last two start and end of text: none of them is a word.
    known = table[2:-2]
    generator = torch.Generator().manual_seed(seed)
    grown = known.mean(0) + known.std(0) * torch.randn(tokenizer.vocab_size, table.shape[1], generator=generator)
    grown[ours] = table[theirs]
    rows = tuple(sorted(set(range(tokenizer.vocab_size)) - set(ours)))
    return GrownModel(
        replace(stored, config=_with_vocabulary(stored.config, tokenizer), tensors={**stored.tensors, key: grown}),
        rows,
        words,
    )


def _with_vocabulary(config: Mapping[str, Any], tokenizer: CompactTokenizer) -> dict[str, Any]:
    """Returns the configuration of the model with the vocabulary of ``tokenizer``."""
    sized = {"vocab_size": tokenizer.vocab_size}
    named = {"tokenizer": {**config["tokenizer"], "known_words": list(tokenizer.known_words)}}
    # DenseCLIP's configuration describes its two towers separately, the others a whole CLIP.
    if "clip" in config:
        return {**config, **named, "clip": {**config["clip"], "text": {**config["clip"]["text"], **sized}}}
    return {**config, **named, "text": {**config["text"], **sized}}
