# SPDX-License-Identifier: Apache-2.0
"""English plurals: the possible singulars of a word."""

from __future__ import annotations

_IRREGULAR = {
    "children": "child",
    "dice": "die",
    "feet": "foot",
    "geese": "goose",
    "leaves": "leaf",
    "loaves": "loaf",
    "men": "man",
    "mice": "mouse",
    "oxen": "ox",
    "people": "person",
    "shoes": "shoe",
    "teeth": "tooth",
    "women": "woman",
}
_SEVERAL = frozenset(
    "fruit food cutlery furniture rubbish trash garbage waste litter tableware silverware stuff sheep fish "
    "ones cattle luggage".split()
)
"""Words that stand for several things without a plural's ending."""
_ENDINGS = (("ies", "y"), ("ves", "f"), ("ves", "fe"), ("s", ""), ("es", ""))
_ALSO_SINGULAR = ("ss", "us", "is")
"""Endings of singular words that end in "s": glass, cactus, iris."""


def singulars(word: str) -> tuple[str, ...]:
    """Lists the possible singulars of a lower-case word, the likeliest first; empty if the word is no plural.

    Examples:
        >>> singulars("boxes"), singulars("berries"), singulars("feet"), singulars("glass")
        (('boxe', 'box'), ('berry', 'berrie', 'berri'), ('foot',), ())
    """
    if word in _IRREGULAR:
        return (_IRREGULAR[word],)
    if len(word) <= 3 or word.endswith(_ALSO_SINGULAR):
        return ()
    return tuple(word.removesuffix(plural) + single for plural, single in _ENDINGS if word.endswith(plural))


def means_several(name: str) -> bool:
    """Returns whether a name in lower case stands for several things by itself: a plural, or "fruit"."""
    last = name.split()[-1] if name else ""
    return last in _SEVERAL or bool(singulars(last))
