# SPDX-License-Identifier: Apache-2.0
"""The words before a noun that choose among several things: "the second largest", "both", "the left"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from clip_seg_ros.commands.errors import PlaceError
from clip_seg_ros.commands.places import Text, any_of
from clip_seg_ros.commands.reference_words import (
    BEFORE_NOUNS,
    LAST,
    ORDINAL_NAMES,
    ORDINALS,
    QUANTITIES,
    SIDED_NAMES,
    SUPERLATIVE_OF,
)
from clip_seg_ros.commands.words import ALL, DETERMINERS, NUMBERS

_ORDINAL = re.compile(rf"({any_of((*ORDINALS, *LAST))})(?= |$)")
_SUPERLATIVE = re.compile(
    rf"(?:(?P<far>farthest|furthest|far) (?P<side>left|right)|(?P<word>{any_of(BEFORE_NOUNS)}))(?= |$)"
)
_HAND = re.compile(r"(left|right)(?:-hand)?(?= (?!of\b)(\S+))")
_ENDS_BEFORE_ONE = re.compile(r"(top|upper|bottom|lower|front|back|rear)(?= ones?(?: |$))")
"""Only before a place or at the end: "top one euro coin" is a name."""
_END_KINDS = {"top": "highest", "upper": "highest", "bottom": "lowest", "lower": "lowest", "front": "nearest"}
_MIDDLE = re.compile(r"middle |(?:central|center|centre)(?= ones?(?: |$))")
_ASKED = re.compile(r"(?:(?:which|what)(?:'s| is| are)?|whats|whichever|whatever)(?= )")
_VAGUE_NUMBER = re.compile(
    r"((?:at least|at most|more than|fewer than|less than|about|exactly|up to)) (?:\d|" + any_of(NUMBERS) + r"\b)"
)


@dataclass
class Prefix:
    """What stands before a noun."""

    count: int | None = None
    is_all: bool = False
    superlative: str = ""
    ordinal: int | None = None
    ordinal_word: str = ""
    number_at: int | None = None
    """Where a number stands that is only one if the noun is a plural: "2 euro coin" is a name."""

    @property
    def is_choice(self) -> bool:
        """Whether something is chosen among several."""
        return bool(self.superlative) or self.ordinal is not None

    def choose(self, kind: str) -> None:
        """Takes a superlative.

        Raises:
            PlaceError: There is one already.
        """
        if self.superlative:
            raise PlaceError(
                f'two superlatives, {self.superlative} and {kind}: type one, for example "the largest cup"'
            )
        self.superlative = kind


def read_prefix(text: Text, at: int, prefix: Prefix, is_head: bool) -> int:
    """Reads what stands before the noun at ``at`` into ``prefix``; returns where the noun begins."""
    if match := _VAGUE_NUMBER.match(text.rest(at)):
        raise PlaceError(f'"{match[1]}" with a number is not understood: type for example "two cups"')
    while at < len(text) and not text[at][1]:
        word = text[at][0]
        rest = text.rest(at)
        has_more = at + 1 < len(text)
        if word in DETERMINERS and (has_more or not is_head):
            prefix.is_all = prefix.is_all or word in ALL
            at += 1
        elif not is_head and prefix.count is None and rest.startswith("couple of "):
            prefix.count, prefix.number_at = 2, at
            at += 2
        elif (match := _ASKED.match(rest)) and not text.place(at + 1):
            at += len(match[0].split())
        elif word == "of" and (prefix.is_choice or prefix.count is not None or prefix.is_all):
            at += 1
            if prefix.is_choice and prefix.count is None:
                # "The largest of the three cups" is one.
                prefix.count = 1
                at += _number_of_all(text, at)
        elif (prefix.ordinal is None and (length := _ordinal(rest, prefix))) or (
            length := _superlative(text, at, prefix)
        ):
            at += length
        elif prefix.count is None and has_more and _is_number(word, text, at, prefix):
            prefix.count = 2 if word == "both" else int(word) if word.isdecimal() else int(QUANTITIES[word])
            prefix.number_at = at
            at += 1
        else:
            if _MIDDLE.match(rest):
                advice = 'type for example "the second cup from the left", or put a name in quotes'
                raise PlaceError(f'"middle" is not understood: {advice}')
            return at
    return at


def _number_of_all(text: Text, at: int) -> int:
    """Returns how many words say of how many one is chosen: "the three"."""
    match = re.match(rf"(?:(?:the|these|those|all) )*(?:\d+|{any_of(NUMBERS)})(?= )", text.rest(at))
    return len(match[0].split()) if match else 0


def _is_number(word: str, text: Text, at: int, prefix: Prefix) -> bool:
    is_number = word in NUMBERS or word.isdecimal()
    if not is_number or (word == "one" and not text.is_word(at + 1, "of")):
        return False
    return prefix.is_choice or (at > 0 and not text.is_word(at - 1, ")")) or text[at + 1][1]


def _ordinal(rest: str, prefix: Prefix) -> int:
    match = _ORDINAL.match(rest)
    if not match:
        return 0
    word = match[1]
    following = rest[match.end() :].split()
    if following and following[0] in ORDINAL_NAMES.get(word, ()):
        return 0
    prefix.ordinal = ORDINALS.get(word) or LAST[word]
    prefix.ordinal_word = word
    return len(word.split())


def _superlative(text: Text, at: int, prefix: Prefix) -> int:
    """Reads a superlative; returns how many words it has, 0 if there is none."""
    rest = text.rest(at)
    if match := _SUPERLATIVE.match(rest):
        if re.match(r"\S+ (?:to|from)\b", rest):
            # "The closest to the box": the noun before it is left out.
            return 0
        prefix.choose(f"{match['side']}most" if match["side"] else SUPERLATIVE_OF[match["word"]])
        return len(match[0].split())
    if (match := _HAND.match(rest)) and match[2] not in SIDED_NAMES and not text.place(at):
        prefix.choose(f"{match[1]}most")
        return 1
    if (match := _ENDS_BEFORE_ONE.match(rest)) and (at + 2 == len(text) or text.place(at + 2)):
        prefix.choose(_END_KINDS.get(match[1], "farthest"))
        return 1
    return 0
