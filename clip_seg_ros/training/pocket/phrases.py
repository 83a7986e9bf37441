# SPDX-License-Identifier: Apache-2.0
"""Draws phrases that a person would type about a tabletop scene, for what is in it and for what is not.

No phrase names a held-out pair, neither as present nor as absent.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from clip_seg_ros.data.phrasecut_plus import TEMPLATES
from clip_seg_ros.sim.naming import COLOR_WORDS, KIND_WORDS
from clip_seg_ros.sim.scene import COLORS, HELD_OUT_PAIRS, KINDS, Pair
from clip_seg_ros.sim.surfaces import SURFACES

ANY_KIND_WORDS = ("object", "thing")
ARTICLES = ("the {}", "a {}")
# Nouns outside the vocabulary. Their tokens share one "unknown" embedding, which thereby learns to mean "not here".
UNKNOWN_NOUNS = (
    "giraffe",
    "phone",
    "person",
    "dog",
    "chair",
    "laptop",
    "keys",
    "banana",
    "scissors",
    "shoe",
    "lamp",
    "keyboard",
    "spoon",
    "fork",
    "umbrella",
    "screwdriver",
    "robot",
    "flower",
    "towel",
    "glove",
    "toothbrush",
    "stapler",
)

_SURFACE_SHARE = 0.04

TRAIN_PAIRS: tuple[Pair, ...] = tuple((c, k) for c in COLORS for k in KINDS if (c, k) not in HELD_OUT_PAIRS)


def known_words() -> tuple[str, ...]:
    """Returns every word and mark of training phrases, except unknown nouns."""
    words = [*ANY_KIND_WORDS, *SURFACES]
    for group in (*KIND_WORDS.values(), *COLOR_WORDS.values()):
        words += group
    for template in (*TEMPLATES, *ARTICLES):
        words += template.replace("{}", " ").replace(".", " . ").split()
    return tuple(dict.fromkeys(words))


@dataclass(frozen=True)
class Query:
    """A phrase with its colour and kind; if both are ``None``, it names something that is never present."""

    text: str
    color: str | None
    kind: str | None

    def matches(self, pair: Pair) -> bool:
        """Returns whether the phrase means an object of this (colour, kind)."""
        if self.color is None and self.kind is None:
            return False
        return self.color in (None, pair[0]) and self.kind in (None, pair[1])


def _choice(rng: np.random.Generator, options: Sequence):
    return options[int(rng.integers(len(options)))]


def word_phrase(rng: np.random.Generator, color: str | None, kind: str | None) -> str:
    """Draws words for a colour, a kind or both, without a template."""
    noun = _choice(rng, KIND_WORDS.get(kind, (kind,))) if kind else _choice(rng, ANY_KIND_WORDS)
    return f"{_choice(rng, COLOR_WORDS[color])} {noun}" if color else noun


def dress(rng: np.random.Generator, phrase: str) -> str:
    """Returns a phrase unchanged, with an article, or in one of CLIPSeg's templates."""
    draw = rng.random()
    if draw < 0.4:
        return phrase
    return _choice(rng, ARTICLES if draw < 0.6 else TEMPLATES).format(phrase)


def make_query(rng: np.random.Generator, color: str | None, kind: str | None) -> Query:
    """Draws a query for a colour, a kind or both."""
    return Query(dress(rng, word_phrase(rng, color, kind)), color, kind)


def unknown_query(rng: np.random.Generator, allow_colors: bool = True) -> Query:
    """Draws a query with a noun that the vocabulary lacks."""
    noun = _choice(rng, UNKNOWN_NOUNS)
    colored = allow_colors and rng.random() < 0.5
    return Query(dress(rng, f"{_choice(rng, COLORS)} {noun}" if colored else noun), None, None)


def _kind_query(rng: np.random.Generator, visible: Sequence[Pair], present: Collection[Pair]) -> Query:
    """Draws a query for a kind: six in ten are visible, the others absent if any is."""
    if visible and rng.random() < 0.6:
        return make_query(rng, None, _choice(rng, visible)[1])
    absent = [kind for kind in KINDS if all(kind != k for _, k in present)]
    return make_query(rng, None, _choice(rng, absent)) if absent else unknown_query(rng, allow_colors=False)


def sample_query(
    rng: np.random.Generator,
    visible: Sequence[Pair],
    present: Collection[Pair],
    kinds_only: bool,
    more_kinds: float = 0.0,
) -> Query:
    """Draws a query for a scene: some name the table or the floor; of the others, six in ten name a visible object.

    Args:
        rng: Generator of the choice.
        visible: Pairs that are large enough in the image to be named.
        present: All pairs in the scene, including hidden ones; phrases for absent objects name none of them.
        kinds_only: Whether to name no colours, as for recoloured images, whose colours no word describes.
        more_kinds: Share of the phrases that name a kind alone, present or absent, besides those that do so anyway.
            Kinds are harder to learn than colours.
    """
    if more_kinds and rng.random() < more_kinds:
        return _kind_query(rng, visible, present)
    if rng.random() < _SURFACE_SHARE:
        return make_query(rng, None, _choice(rng, SURFACES))
    draw = rng.random()
    if visible and draw < 0.6:
        color, kind = _choice(rng, visible)
        part = rng.random()
        if kinds_only or part < 0.28:
            return make_query(rng, None, kind)
        return make_query(rng, color, None) if part < 0.45 else make_query(rng, color, kind)
    colors, kinds = {c for c, _ in present}, {k for _, k in present}
    absent_colors = [c for c in COLORS if c not in colors]
    if draw > 0.96:
        return unknown_query(rng, allow_colors=not kinds_only)
    if kinds_only or draw > 0.92:
        return _kind_query(rng, (), present)
    if draw > 0.89 and absent_colors:
        return make_query(rng, _choice(rng, absent_colors), None)
    absent = [pair for pair in TRAIN_PAIRS if pair not in present]
    hard = [pair for pair in absent if pair[0] in colors and pair[1] in kinds]
    near = [pair for pair in absent if pair[0] in colors or pair[1] in kinds]
    options = hard if hard and draw < 0.75 else near if near and draw < 0.82 else absent
    return make_query(rng, *_choice(rng, options))
