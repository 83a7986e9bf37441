# SPDX-License-Identifier: Apache-2.0
"""What reads like a phrase but names no thing that can be looked for: questions, orders to a hand, misspelt places."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from clip_seg_ros.commands.errors import CommandError
from clip_seg_ros.commands.places import Word, any_of
from clip_seg_ros.commands.reference_words import (
    BEFORE_NOUNS,
    HANDLING,
    MATTERS_OF_TASTE,
    NO_THINGS,
    RELATION_OF,
)
from clip_seg_ros.commands.words import DETERMINERS

_CLOSE = 0.81
"""The ratio of ``difflib`` from which a word is a misspelt place: "beind" has 0.91; "light" for "right" has 0.8."""
_PLACES = tuple(
    word for word in (*RELATION_OF, "left", "right") if " " not in word and len(word) > 3 and word != "atop"
)
_SUPERLATIVES = tuple(word for word in BEFORE_NOUNS if word.endswith("st"))
_PAST = re.compile(r"\b(?:that|which|who) (?:was|were|used to|will)\b")
_SENTENCE = re.compile(r"\b(?:there(?:'s| is| are| should)|should be|i mean|i think|i'd|i would|i am|i'm)\b")
_ADVICE = 'type for example "find the cup left of the box", or put a name in quotes'


def check_meant(words: Sequence[Word], has_thing_before: bool) -> None:
    """Refuses a phrase that is no name and no place.

    Args:
        words: The words of the phrase without determiners in front.
        has_thing_before: Whether another phrase before it names a thing that "the other one" could mean.

    Raises:
        CommandError: The words ask for something else than to find a thing.
    """
    seen = ['"' if word.is_quoted else word.text.strip("() .:!?") for word in words]
    first, text = seen[0], " ".join(seen)
    if first in NO_THINGS:
        raise CommandError(f'"{first}" begins no name of a thing: {_ADVICE}')
    if re.match(rf"{any_of(HANDLING)} (?:me )?{any_of(DETERMINERS)} ", text):
        raise CommandError(f'"{first}" is not understood here, this only finds things: {_ADVICE}')
    if first in MATTERS_OF_TASTE and len(seen) > 1:
        raise CommandError(f'"{first}" is not measured: type for example "the largest cup", or put a name in quotes')
    if match := _SENTENCE.search(text):
        raise CommandError(f'"{match[0]}" is not understood: {_ADVICE}')
    if any(word.text.endswith("..") and not word.is_quoted for word in words[:-1]):
        raise CommandError(f'"..." breaks a phrase in two: {_ADVICE}')
    if match := _PAST.search(text):
        raise CommandError(f'"{match[0]}" is not understood, only what is seen now: {_ADVICE}')
    if text in ("other one", "other ones") and not has_thing_before:
        raise CommandError(f'"{text}" does not say which thing: {_ADVICE}')
    _check_spelling(seen)


def _check_spelling(seen: Sequence[str]) -> None:
    for at, word in enumerate(seen):
        follows = seen[at + 1] if at + 1 < len(seen) else ""
        known: Sequence[str] = ()
        if at and (follows in DETERMINERS or follows in ('"', "of")):
            known = _PLACES
        elif follows and word.endswith("st"):
            known = _SUPERLATIVES
        if not known or word in known:
            continue
        if close := difflib.get_close_matches(word, known, 1, _CLOSE):
            raise CommandError(f'did you mean "{close[0]}"? type it instead of "{word}", or put the name in quotes')
