# SPDX-License-Identifier: Apache-2.0
"""Parses phrases into colours and kinds of the tabletop world: "red cups" -> ("red", "cup")."""

from __future__ import annotations

from clip_seg_ros.sim.scene import COLORS, KINDS, Pattern

# The words that people use for the kinds and colours of the world.
KIND_WORDS: dict[str, tuple[str, ...]] = {kind: (kind,) for kind in KINDS} | {
    "cup": ("cup", "mug"),
    "can": ("can", "tin"),
    "ball": ("ball", "sphere"),
    "plate": ("plate", "dish"),
}
COLOR_WORDS: dict[str, tuple[str, ...]] = {color: (color,) for color in COLORS} | {"purple": ("purple", "violet")}
_KIND_OF = {word: kind for kind, words in KIND_WORDS.items() for word in words}
_COLOR_OF = {word: color for color, words in COLOR_WORDS.items() for word in words}
_ANY_KIND = frozenset({"thing", "object", "item", "one"})
_WORDS_BEFORE = frozenset({"a", "an", "the", "all", "something", "anything"})


def pair_of(phrase: str) -> Pattern | None:
    """Reads a phrase as a colour and a kind of the world, either of which may be missing ("cup", "red thing").

    Returns:
        The colour and the kind; ``None`` if the world does not have what the phrase names ("giraffe", "cup holder").
    """
    words = [word for word in phrase.lower().split() if word not in _WORDS_BEFORE]
    color = kind = None
    for index, word in enumerate(words):
        if word in _COLOR_OF and color is None:
            color = _COLOR_OF[word]
        elif index == len(words) - 1 and _singular(word) in _KIND_OF:
            kind = _KIND_OF[_singular(word)]
        elif not (index == len(words) - 1 and _singular(word) in _ANY_KIND):
            return None
    return (color, kind) if color or kind else None


def matches(pair: Pattern, name: str) -> bool:
    """Returns whether the pattern ``pair`` matches the object called ``name`` ("red cup")."""
    color, kind = name.split()
    return pair[0] in (None, color) and pair[1] in (None, kind)


def colored_kinds() -> tuple[str, ...]:
    """Returns the names of all things of the world: "red cup", "blue box" and so on."""
    return tuple(f"{color} {kind}" for color in COLORS for kind in KINDS)


def _singular(word: str) -> str:
    for ending in ("es", "s"):
        if word.endswith(ending) and word.removesuffix(ending) in (*_KIND_OF, *_ANY_KIND):
            return word.removesuffix(ending)
    return word
