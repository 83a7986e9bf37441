# SPDX-License-Identifier: Apache-2.0
"""Whether two phrases name the same thing, by their words alone: "the red cups" and "red cup"."""

from __future__ import annotations

import re
from functools import lru_cache

from clip_seg_ros.commands.plurals import singulars

_WITHOUT_MEANING = frozenset({"a", "an", "the", "all", "any", "some", "my", "your", "this", "that", "these", "those"})
_ENDS_NAME = frozenset(
    "left right in on of under above below behind beside between near next with without from at by inside".split()
)
"""The words after which a phrase goes on about something else: "the cup on the blue plate" is no plate."""


@lru_cache(maxsize=1024)
def _words(phrase: str) -> tuple[frozenset[str], ...]:
    """Returns the words of a phrase, each with its possible singulars, as far as they have a meaning of their own."""
    words = [word for word in re.findall(r"[\w'-]+", phrase.lower()) if word not in _WITHOUT_MEANING]
    return tuple(frozenset((word, *singulars(word))) for word in words)


def covers(asked: str, name: str) -> bool:
    """Returns whether everything that ``name`` names is also what ``asked`` asks for: "cup" covers "red cup".

    All words of ``asked`` must be in ``name``, and the last of them, which says what the thing is, must be the last of
    its name: neither "red" nor "plate" covers "red cup on a plate". Articles and plurals make no difference. It knows
    no meanings: "mug" does not cover "cup".
    """
    wanted, there = _words(asked), _words(name)
    if not wanted or not there:
        return asked.split() == name.split()
    first = next((place for place, word in enumerate(there) if place and word & _ENDS_NAME), len(there))
    asked_first = next((place for place, word in enumerate(wanted) if place and word & _ENDS_NAME), len(wanted))
    heads_agree = bool(wanted[asked_first - 1] & there[first - 1])
    return heads_agree and all(any(word & other for other in there) for word in wanted)


def related(one: str, other: str) -> bool:
    """Returns whether one of two phrases covers the other, so that both may name one thing."""
    return covers(one, other) or covers(other, one)
