# SPDX-License-Identifier: Apache-2.0
"""Converts prompts to token ids."""

from __future__ import annotations

import json
import re
import string
from abc import ABC, abstractmethod
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from clip_seg_ros.commands.plurals import singulars
from clip_seg_ros.models.clip.backbone import bpe_tokenizer

_PADDING = 0
_UNKNOWN = 1
_WORD = re.compile(r"[A-Za-z]+")
_COLORS = frozenset(
    {
        "red",
        "orange",
        "yellow",
        "green",
        "blue",
        "purple",
        "violet",
        "pink",
        "brown",
        "white",
        "grey",
        "gray",
        "black",
    }
)
_NOUN = "object"
"""The word for an object of any kind, if it is among the known words."""
_FOR_ANY_NOUN = frozenset({"one", "ones", "item", "items", "stuff"})
_BEFORE_COLOR = frozenset({"something", "anything", "things", "everything"})


class Tokenizer(ABC):
    """Converts prompts to rows of ids: start of text, pieces, end of text (the largest id), padding 0."""

    vocab_size: int
    context_length: int

    @abstractmethod
    def __call__(self, prompts: Sequence[str]) -> torch.Tensor:
        """Returns (P, context_length) int64 on the CPU. A prompt that is too long is cut, but keeps its end token."""

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        """Returns the words of ``prompt`` that the vocabulary lacks, in order, each once."""
        return ()

    def write(self, folder: Path) -> dict[str, Any]:
        """Writes what other programs need to tokenise into ``folder``, and returns plain values for JSON.

        ``kind`` is "clip": CLIP's byte-pair encoding of the lower-case text, with its vocabulary in ``vocab.json`` and
        its merges in ``merges.txt``, as Hugging Face's tokenizers read them; "words": ``words`` has the ids of every
        known word, and ``unknown`` is that of others; or "ids": prompts are ids. Each row begins with ``start``, ends
        with ``end`` and is filled with ``padding`` up to ``context_length``.
        """
        sizes = {"context_length": self.context_length, "vocab_size": self.vocab_size, "padding": _PADDING}
        return {**sizes, **self._written(folder)}

    @abstractmethod
    def _written(self, folder: Path) -> dict[str, Any]:
        """Returns what ``write`` adds for one kind of tokenizer."""


class ClipTokenizer(Tokenizer):
    """CLIP's own byte-pair vocabulary of 49,408 pieces."""

    def __init__(self, context_length: int = 77) -> None:
        self.vocab_size = bpe_tokenizer().vocab_size
        self.context_length = context_length

    def __call__(self, prompts: Sequence[str]) -> torch.Tensor:
        return bpe_tokenizer()(list(prompts), context_length=self.context_length)

    def _written(self, folder: Path) -> dict[str, Any]:
        tokenizer = bpe_tokenizer()
        (folder / "vocab.json").write_text(json.dumps(tokenizer.encoder), encoding="utf-8")
        merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.get)
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
        (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return {"kind": "clip", "start": tokenizer.sot_token_id, "end": tokenizer.eot_token_id}


class IdTokenizer(Tokenizer):
    """Reads prompts that are already token ids, such as "126 5 9 127", for towers whose vocabulary is not available."""

    def __init__(self, vocab_size: int, context_length: int) -> None:
        self.vocab_size = vocab_size
        self.context_length = context_length

    def __call__(self, prompts: Sequence[str]) -> torch.Tensor:
        ids = torch.full((len(prompts), self.context_length), _PADDING, dtype=torch.int64)
        for row, prompt in zip(ids, prompts, strict=True):
            numbers = [int(number) for number in prompt.split()]
            if len(numbers) > self.context_length or not all(0 <= n < self.vocab_size for n in numbers):
                limits = f"{self.context_length} ids from 0 to {self.vocab_size - 1}"
                raise ValueError(f'"{prompt}" does not fit: at most {limits}')
            row[: len(numbers)] = torch.tensor(numbers)
        return ids

    def _written(self, folder: Path) -> dict[str, Any]:
        return {"kind": "ids"}


class CompactTokenizer(Tokenizer):
    """CLIP's byte-pair pieces of a few known words, numbered densely.

    With all of CLIP's pieces, a text tower for a small language would have 49,408 rows, of which it learns a hundred.
    Such a tower learnt colours only before a noun, so that a single colour is completed: "red", "something
    red" and "the red one" are read as "red object". Plurals are read as their singulars, which ask for all objects
    of a name anyway.
    Ids: 0 padding, 1 any unknown piece, from 2 the known pieces in CLIP's order, then start of text, end of text.
    """

    def __init__(self, known_words: Sequence[str], context_length: int) -> None:
        """Takes every piece of ``known_words``, including punctuation marks if they are listed."""
        if not known_words:
            raise ValueError("a tokenizer needs at least one known word")
        pieces = sorted({piece for word in known_words for piece in bpe_tokenizer().encode(word)})
        self.known_words = tuple(known_words)
        self.context_length = context_length
        self._ids = {piece: index for index, piece in enumerate(pieces, start=_UNKNOWN + 1)}
        self._start = len(pieces) + 2
        self._end = self._start + 1
        self.vocab_size = self._end + 1

    def __call__(self, prompts: Sequence[str]) -> torch.Tensor:
        ids = torch.full((len(prompts), self.context_length), _PADDING, dtype=torch.int64)
        for row, prompt in zip(ids, prompts, strict=True):
            pieces = self._encode(prompt)[: self.context_length - 2]
            row[: len(pieces) + 2] = torch.tensor([self._start, *pieces, self._end])
        return ids

    def _written(self, folder: Path) -> dict[str, Any]:
        words = {word: [self._ids[piece] for piece in bpe_tokenizer().encode(word)] for word in self.known_words}
        return {"kind": "words", "words": words, "unknown": _UNKNOWN, "start": self._start, "end": self._end}

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        words = (word.strip(string.punctuation) for word in self._completed(prompt).split())
        return tuple(dict.fromkeys(word for word in words if _UNKNOWN in self._encode(word)))

    def rows_from(self, older: CompactTokenizer) -> tuple[list[int], list[int]]:
        """Returns where the rows of an older vocabulary's embedding table belong in the table of this one.

        Returns:
            The ids of ``older``, and the ids of the same pieces here, in the same order; pieces that one of them lacks
            are left out.
        """
        shared = [piece for piece in older._ids if piece in self._ids]
        rows = [(_PADDING, _PADDING), (_UNKNOWN, _UNKNOWN), *((older._ids[p], self._ids[p]) for p in shared)]
        rows += [(older._start, self._start), (older._end, self._end)]
        return [row[0] for row in rows], [row[1] for row in rows]

    def _encode(self, text: str) -> list[int]:
        text = _WORD.sub(lambda match: self._singular(match[0].lower()), self._completed(text))
        return [self._ids.get(piece, _UNKNOWN) for piece in bpe_tokenizer().encode(text)]

    def _completed(self, text: str) -> str:
        """Returns ``text``, with a noun added if it consists of colours only."""
        words = text.lower().strip(string.punctuation + " ").split()
        if _NOUN not in self.known_words or not any(word in _COLORS for word in words[-2:]):
            return text
        if words[-1] in _COLORS:
            before = 1 if words[0] in _BEFORE_COLOR else 0
            return " ".join([*words[before:], _NOUN])
        if words[-1] in _FOR_ANY_NOUN:
            return " ".join([*words[:-1], _NOUN])
        return text

    def _singular(self, word: str) -> str:
        """Returns ``word``, or the known word of which it is the plural, because "cup" asks for every cup anyway."""
        return word if word in self.known_words else singular_of(word, self.known_words) or word


def singular_of(word: str, known: Container[str]) -> str | None:
    """Returns the word of ``known`` of which ``word`` is the plural; ``None`` if it is no plural."""
    return next((single for single in singulars(word) if single in known), None)


def tokenizer_config(vocab_size: int, context_length: int) -> dict[str, Any]:
    """Returns the configuration of a tokenizer for a text tower of this size: CLIP's own if it fits."""
    kind = "clip" if vocab_size == bpe_tokenizer().vocab_size else "ids"
    return {"kind": kind, "vocab_size": vocab_size, "context_length": context_length}


def build_tokenizer(values: Mapping[str, Any]) -> Tokenizer:
    """Builds the tokenizer in a weight file's configuration. Raises KeyError or ValueError if there is none."""
    if values["kind"] == "clip":
        return ClipTokenizer(values["context_length"])
    if values["kind"] == "ids":
        return IdTokenizer(values["vocab_size"], values["context_length"])
    if values["kind"] == "compact":
        return CompactTokenizer(values["known_words"], values["context_length"])
    raise ValueError(f"unknown tokenizer {values['kind']}")
