# SPDX-License-Identifier: Apache-2.0
"""What begins a place after a noun: "to the left of", "closest to", "within 40 cm of", "from the left"."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clip_seg_ros.commands.errors import PlaceError, shown
from clip_seg_ros.commands.reference_words import (
    BEFORE_NOUNS,
    CLAUSES,
    COLOURS,
    DEGREES,
    FILLERS,
    LIMITS,
    METRES,
    OWN,
    QUANTITIES,
    RELATION_OF,
    SCENE,
    SIDE_OF,
    SPEAKERS_VIEW,
    SUPERLATIVE_OF,
    UNKNOWN_PLACES,
    VAGUE,
    WORN,
)
from clip_seg_ros.commands.words import DETERMINERS, NUMBERS

_PUNCTUATION = ".:!?"
_QUOTE = '"'
"""It stands for any quoted word where patterns look."""


@dataclass(frozen=True)
class Word:
    """A word of a phrase, in lower case, or a quoted text."""

    text: str
    is_quoted: bool = False


@dataclass(frozen=True)
class Place:
    """What begins at a word: a relation, a superlative after its noun, a side, or nothing of meaning ("scene")."""

    kind: str
    """A ``RelationKind``, or "superlative", "side" ("from the left"), "end" ("on the left"), "order" or "scene"."""
    form: str
    """How it was said; the kind of a superlative; the name of a side."""
    end: int
    """The word after it."""
    is_own: bool = False
    """Whether it is the person's own side, with no thing after it, or what a superlative before it is measured from."""
    takes_thing: bool = False
    """Whether a superlative is measured from a thing, which follows."""
    distance_m: float | None = None
    number: int | None = None


def any_of(words: Iterable[str]) -> str:
    """Returns a pattern for any of the words, the longest first."""
    return "(?:" + "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True)) + ")"


_NEXT = r"(?= |$)"
_LATERAL = re.compile(
    r"(?:(?P<preposition>to|on|at|in|towards|from) (?:the |(?P<own>my|your|our) )?(?:very |far |extreme )?)?"
    r"(?P<side>left|right)(?:-hand| hand(?= side))?(?: (?:side|edge|end|half))?"
    rf"(?P<of> of(?: (?P<me>{any_of(OWN)})(?= (?:and|,)|$))?)?{_NEXT}"
)
_DEPTH = re.compile(
    r"(?:at|in|on|to) (?:the )?(?:very |far )?(?P<side>front|back|rear|top|bottom)(?: end| row| side)?(?! of\b)"
    rf"{_NEXT}"
)
_FROM = (
    r"(?:(?:counting|counted|starting) )?(?:from|at|on) (?:the |my |your )?(?:very |far )?"
    rf"(?P<side>{any_of(SIDE_OF)})(?:[ -]hand)?(?: (?:side|edge|end))?(?: to (?:the )?(?:left|right))?(?! of\b){_NEXT}"
)
_COUNTED = re.compile(_FROM)
_NUMBERED = re.compile(rf"(?:at )?number (?P<number>-?\d+|{any_of(NUMBERS)}) (?:one )?{_FROM}")
_SUPERLATIVE = re.compile(
    r"(?:(?:farthest|furthest|most|far)(?: to| on)?(?: the)? (?P<lateral>left|right)|"
    rf"(?P<word>{any_of(BEFORE_NOUNS)})(?: one)?(?: away| down| up)?)(?P<link> to| from)?{_NEXT}"
)
_SCENE = re.compile(rf"(?:in|of|within) (?:(?:the|this|your) )?(?:whole )?{any_of(SCENE)}{_NEXT}")
_UNKNOWN = re.compile(rf"{any_of(UNKNOWN_PLACES)}{_NEXT}")
_FILL = re.compile(rf"{any_of((*FILLERS, *DEGREES))}(?= )")
_RELATION = re.compile(rf"{any_of(RELATION_OF)}{_NEXT}")
_BEGINS_THING = re.compile(
    rf"(?:{any_of(DETERMINERS | NUMBERS)}|{any_of(OWN | VAGUE)}|{any_of(BEFORE_NOUNS)}|\d+){_NEXT}|[\"(]"
)
_LIMIT = re.compile(rf"(?P<limit>{any_of(LIMITS)}) (?P<rest>.*)")
_QUANTITY = re.compile(
    rf"(?P<number>[-+]?(?:\d+(?:\.\d*)?|\.\d+)|{any_of(QUANTITIES)})(?: ?(?P<unit>[^\s\d.]\S*))?(?: away)?"
    r"(?P<link> (?:of|from|to))?(?= |$)"
)
_BARE_DISTANCE = re.compile(
    rf"(?:[-+]?[\d.]+|{any_of(QUANTITIES)}) ?{any_of(METRES)}(?: away)?"
    rf"(?= (?:from|to the (?:left|right)|left|right|behind|in front|above|below)(?: |$))"
)
_IN_CLOTHES = re.compile(rf"in (?:(?:a|an|the|his|her|their) )?(?:[^\s\"]+ ){{0,2}}{any_of(COLOURS | WORN)}{_NEXT}")
_SPEAKERS_VIEW = re.compile(rf"(?:{any_of(SPEAKERS_VIEW)})(?! (?:left|right)\b)(?:'m)?{_NEXT}")
_OUT_OF_REACH = re.compile(rf"within (?:(?:my|your|arm's) )?(?:arm's )?reach{_NEXT}")
_COMPARED = re.compile(rf"{any_of(BEFORE_NOUNS)} than\b")
_ORDER_AFTER = re.compile(rf"(?P<word>first|second|third|fourth|fifth|last)(?: one)? {_FROM}")


def plain_words(words: Sequence[Word]) -> list[str]:
    """Returns the texts of the words without the punctuation of a sentence."""
    texts = (word.text if word.is_quoted else word.text.strip(" " + _PUNCTUATION + ",;") for word in words)
    return [text for text in " ".join(texts).split() if text]


class Text:
    """The words of a phrase, with brackets as words of their own; what is quoted is never taken for a place."""

    def __init__(self, words: Sequence[Word]):
        self._words: list[tuple[str, bool]] = []
        self._typed: list[str] = []
        self._sources: list[int] = []
        groups = any(word.is_quoted for word in words)
        for source, word in enumerate(words):
            pieces = [word.text] if word.is_quoted or word.text == "," else _pieces(word.text, groups)
            self._words += [(piece if word.is_quoted else _bare(piece), word.is_quoted) for piece in pieces]
            self._typed += pieces
            self._sources += [source] * len(pieces)
        if self._typed and not self._words[-1][1]:
            self._typed[-1] = self._words[-1][0]
        if self._typed and not self._words[0][1]:
            self._typed[0] = self._typed[0].lstrip(_PUNCTUATION)
        seen = [_QUOTE if quoted else word for word, quoted in self._words]
        self._rests = [" ".join(seen[at:]) for at in range(len(seen) + 1)]
        self._places: dict[tuple[int, bool], Place | None] = {}

    def __len__(self) -> int:
        return len(self._words)

    def __getitem__(self, at: int) -> tuple[str, bool]:
        return self._words[at]

    def typed(self, at: int) -> str:
        """Returns a word with the punctuation in it, but for that at the ends of the phrase."""
        return self._typed[at]

    def source(self, at: int) -> int:
        """Returns which of the words that were given holds this one."""
        return self._sources[at]

    def rest(self, at: int) -> str:
        """Returns the words from ``at`` on, as patterns look at them: a quoted text is one quote."""
        return self._rests[at] if at < len(self._rests) else ""

    def is_word(self, at: int, *words: str) -> bool:
        """Returns whether one of the words stands there, outside quotes."""
        return 0 <= at < len(self) and not self[at][1] and self[at][0] in words

    def viewer(self, at: int) -> int:
        """Returns how many words say "the camera" or "the robot", from which nearness is measured; 0 for others."""
        match = re.match(rf"(?:the |your )?(?:camera|robot){_NEXT}", self.rest(at))
        return len(match[0].split()) if match and self._is_end(at + len(match[0].split())) else 0

    @staticmethod
    def is_clause(words: Sequence[str]) -> bool:
        """Returns whether a name goes on after "with" and the like."""
        return any(word in CLAUSES for word in words)

    def inner_superlative(self, at: int) -> str:
        """Returns the superlative before the last word of a name, "red leftmost cup"; "" for other words."""
        word, quoted = self[at]
        return SUPERLATIVE_OF[word] if not quoted and word in BEFORE_NOUNS and at + 1 < len(self) else ""

    def place(self, at: int, clause: bool = False, is_strict: bool = False) -> Place | None:
        """Returns the place that begins at a word, after words without a meaning; ``None`` if none does.

        Args:
            at: The word.
            clause: Whether "on it" belongs to the name before: "cup with a sticker on it".
            is_strict: Whether an article or the like must follow one word, such as "on": "on button" is a name.

        Raises:
            PlaceError: It is a place that is not understood.
        """
        key = (at, is_strict)
        if key not in self._places:
            self._places[key] = self._find(at, is_strict)
        place = self._places[key]
        if place and clause and self.is_word(place.end, *VAGUE) and self._is_end(place.end + 1):
            return None
        return place

    def measured(self, at: int, superlative: str) -> Place | None:
        """Returns what a superlative before its noun is measured from: "to the bowl" after "the closest cup"."""
        link = {"nearest": "to", "farthest": "from"}.get(superlative, "")
        if not link or not self.is_word(at, link) or not _BEGINS_THING.match(self.rest(at + 1)):
            return None
        return Place("superlative", superlative, at + 1, is_own=True, takes_thing=True)

    def _find(self, at: int, is_strict: bool) -> Place | None:
        while at < len(self) and not self[at][1]:
            if place := self._place_here(at, is_strict):
                return place
            filler = _FILL.match(self.rest(at))
            if not filler:
                return None
            at += len(filler[0].split())
        return None

    def _is_end(self, at: int) -> bool:
        return at >= len(self) or self.is_word(at, ",", "and", ")") or self.place(at) is not None

    def _place_here(self, at: int, is_strict: bool) -> Place | None:
        rest = self.rest(at)
        self._check_known(rest)
        return (
            self._distance(at, rest)
            or self._ordered(at, rest, is_strict)
            or self._sided(at, rest)
            or self._superlative(at, rest, is_strict)
            or self._relation(at, rest, is_strict)
        )

    @staticmethod
    def _check_known(rest: str) -> None:
        if match := _SPEAKERS_VIEW.match(rest):
            raise PlaceError(
                f'"{match[0]}" is not understood, sides are those of the camera: '
                'type for example "the cup left of the box"'
            )
        if match := _OUT_OF_REACH.match(rest):
            raise PlaceError(f'"{match[0]}" is no distance: type for example "the cup within 40 cm of the box"')
        if (match := _COMPARED.match(rest)) and not _LIMIT.match(rest):
            raise PlaceError(f'"{match[0]}" is not understood: type for example "the largest cup"')
        match = _UNKNOWN.match(rest)
        if match and (" " in match[0] or _BEGINS_THING.match(rest[match.end() :].lstrip())):
            better = UNKNOWN_PLACES[match[0]]
            raise PlaceError(
                f'"{match[0]}" is not understood: type for example "the cup {better}", or put the whole name in quotes'
            )

    def _distance(self, at: int, rest: str) -> Place | None:
        if match := _BARE_DISTANCE.match(rest):
            raise PlaceError(f'"{match[0]}" says no limit: type for example "the cup within 40 cm of the box"')
        limit = _LIMIT.match(rest)
        quantity = _QUANTITY.match(limit["rest"]) if limit else None
        if not limit or not quantity:
            return None
        number, unit = quantity["number"], quantity["unit"]
        is_digits = not number[-1].isalpha()
        is_article = number in ("a", "an", "half", "one")
        if unit not in METRES and (is_article or limit["limit"] == "under"):
            # "Within a box" and "under two boxes" are places.
            return None
        advice = 'type for example "the cup within 40 cm of the box"'
        if unit not in METRES:
            what = f'"{shown(unit)}" is no unit of length' if unit else f'"{shown(number)}" needs a unit of length'
            raise PlaceError(f"{what}: {advice}, or m, mm, inches or feet")
        distance_m = (float(number) if is_digits else QUANTITIES[number]) * METRES[unit]
        if not 0 < distance_m < math.inf:
            raise PlaceError(f"the distance {shown(number)} {unit} is not above zero: {advice}")
        end = at + len(f"{limit['limit']} {quantity[0]}".split())
        return Place("within", f"{limit['limit']} {number} {unit} of", end, distance_m=round(distance_m, 6))

    def _ordered(self, at: int, rest: str, is_strict: bool) -> Place | None:
        if match := _NUMBERED.match(rest):
            number = match["number"]
            place = int(number) if number.lstrip("-").isdigit() else int(QUANTITIES.get(number, 2))
            if place == 0:
                raise PlaceError('number 0 is no place: type for example "the second cup from the left"')
            return Place("order", match["side"], at + len(match[0].split()), number=place)
        if not is_strict and (match := _ORDER_AFTER.match(rest)):
            places = {"first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "last": -1}
            place = places[match["word"]]
            is_end = place < 0 and not re.search(r"\bfrom ", match[0])
            return Place("order", match["side"], at + len(match[0].split()), number=-place if is_end else place)
        match = _COUNTED.match(rest)
        if match and "from" in match[0].split() and self._is_end(at + len(match[0].split())):
            return Place("side", SIDE_OF[match["side"]], at + len(match[0].split()))
        return None

    def _sided(self, at: int, rest: str) -> Place | None:
        match = _LATERAL.match(rest)
        if match:
            end = at + len(match[0].split())
            side = match["side"]
            if match["of"]:
                return Place(f"{side} of", f"{side} of", end, is_own=bool(match["me"]))
            if match["own"] and self._is_end(end):
                return Place(f"{side} of", f"on my {side}", end, is_own=True)
            if match["preposition"] and self._is_end(end):
                return Place("end", side, end)
            if not match["preposition"] and end == at + 1 and at > 0 and self._lacks_of(end):
                raise PlaceError(
                    f'"{side}" needs "of" and a thing: type for example "the cup {side} of the box", "the {side}most '
                    'cup", or put a name in quotes'
                )
        match = _DEPTH.match(rest)
        if match and self._is_end(at + len(match[0].split())):
            return Place("end", SIDE_OF[match["side"]], at + len(match[0].split()))
        return None

    def _lacks_of(self, at: int) -> bool:
        return at >= len(self) or self.is_word(at, *DETERMINERS)

    def _superlative(self, at: int, rest: str, is_strict: bool) -> Place | None:
        match = _SUPERLATIVE.match(rest)
        if not match:
            return None
        end = at + len(match[0].split())
        if match["lateral"]:
            return Place("superlative", f"{match['lateral']}most", end) if self._is_end(end) else None
        kind = SUPERLATIVE_OF[match["word"]]
        is_end = self._is_end(end)
        # "The cup nearest the bowl" needs no "to".
        is_bare = match["word"] in ("nearest", "closest") and not is_end and not is_strict
        is_linked = bool(match["link"]) or is_bare
        if kind in ("nearest", "farthest") and is_linked:
            return Place("superlative", kind, end, takes_thing=True)
        return Place("superlative", kind, end) if is_end and not match["link"] else None

    def _relation(self, at: int, rest: str, is_strict: bool) -> Place | None:
        if match := _SCENE.match(rest):
            end = at + len(match[0].split())
            return Place("scene", match[0], end) if self._is_end(end) else None
        if (match := _IN_CLOTHES.match(rest)) and self._is_end(at + len(match[0].split())):
            return None
        match = _RELATION.match(rest)
        if not match:
            return None
        form = match[0]
        follows = rest[match.end() :].lstrip()
        begins = _BEGINS_THING.match(follows)
        if ((is_strict and " " not in form) or form == "by") and not begins:
            return None
        return Place(RELATION_OF[form], form, at + len(form.split()))


def _pieces(word: str, groups: bool) -> list[str]:
    """Splits brackets off a word and drops the punctuation of a sentence."""
    before: list[str] = []
    after: list[str] = []
    while groups and word.startswith("("):
        before.append("(")
        word = word[1:]
    while groups and word.endswith(")"):
        after.append(")")
        word = word[:-1]
    return [*before, *([word] if _bare(word) else []), *after]


def _bare(word: str) -> str:
    return word.rstrip(_PUNCTUATION).lstrip(":!?")
