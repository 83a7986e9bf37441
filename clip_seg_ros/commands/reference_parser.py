# SPDX-License-Identifier: Apache-2.0
"""The words of one phrase -> what it refers to: a name, and the places, sizes and order that ``references`` has.

A small parser by hand: words before the noun ("the second largest"), the noun, and the places after it, each of which
may name another thing in the same way. A place belongs to the nearest thing before it; after a comma or "and", to the
first. What reads as a place but cannot be one is refused. ``places`` says what begins a place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from clip_seg_ros.commands.errors import PlaceError, shown
from clip_seg_ros.commands.places import Place, Text, Word, plain_words
from clip_seg_ros.commands.plurals import means_several, singulars
from clip_seg_ros.commands.prefixes import Prefix, read_prefix
from clip_seg_ros.commands.reference_words import ANYTHINGS, CLAUSES, COLOURS, ENDS, OWN, SIDE_OF, VAGUE
from clip_seg_ros.commands.references import (
    Order,
    Reference,
    Relation,
    RelationKind,
    Side,
    Superlative,
    SuperlativeKind,
)

_OWN_KINDS = ("left of", "right of", "in front of", "behind", "near", "within")
_ONE = ("one", "ones")
_EXAMPLE = 'type for example "the cup left of the box"'
MAX_THINGS = 16
"""The largest number of things that one phrase may name."""


@dataclass(frozen=True)
class Understood:
    """A reference, and where its names are."""

    reference: Reference
    names: frozenset[int]
    """The places in the sequence of words at which a word belongs to a name, and is not "one" or the like."""


def understand(
    words: Sequence[Word], count: int | None = None, is_all: bool = False, known: str = "", needs_name: bool = True
) -> Understood:
    """Returns what the words of a phrase refer to.

    Args:
        words: The words without determiners and numbers in front.
        count: The number that stood in front of them.
        is_all: Whether "all" or the like stood in front of them.
        known: The name of the thing named before, which "one" stands for; "" if there is none.
        needs_name: Whether the thing must have a name or "one"; if not, "the largest" is that of the things before.

    Raises:
        PlaceError: The words begin like a place or an order, but do not say which.
    """
    reader = _Reader(Text(words), known, needs_name)
    if reader.text.is_word(0, "("):
        reference = reader.group()
    else:
        reference = reader.thing(_Draft(Prefix(count=count, is_all=is_all)), is_head=True)
    if not reference.name:
        raise PlaceError(f"a place needs a thing before it: {_EXAMPLE}")
    if reader.at < len(reader.text):
        rest = shown(reader.text.rest(reader.at))
        raise PlaceError(f'"{rest}" is not understood after a place: {_EXAMPLE}, and put names in quotes')
    if not reference.is_conditional:
        name = " ".join(plain_words(words))
        return Understood(Reference(name, count=count), frozenset(range(len(words))))
    return Understood(reference, frozenset(reader.text.source(each) for each in reader.names))


@dataclass
class _Draft:
    """A thing while its words are read."""

    prefix: Prefix
    words: list[str] = field(default_factory=list)
    """Those of the name, and ``sources`` where they are."""
    sources: list[int] = field(default_factory=list)
    relations: list[Relation] = field(default_factory=list)
    anchors: tuple[Reference, ...] = ()
    """Those of a superlative."""
    side: str = ""
    """The side that order counts from, and ``is_end`` whether it is "on the left" and not "from the left"."""
    is_end: bool = False
    place: int | None = None


class _Reader:
    def __init__(self, text: Text, known: str, needs_name: bool):
        self.text = text
        self.needs_name = needs_name
        self.at = 0
        self.known = [known] if known else []
        self.names: list[int] = []
        self.things = 0

    def thing(self, draft: _Draft, is_head: bool, outer_waits: bool = False) -> Reference:
        """Reads a thing with its places; ``outer_waits`` says whether an order before it still lacks its side."""
        self.things += 1
        if self.things > MAX_THINGS:
            raise PlaceError(f"more than {MAX_THINGS} things in one phrase: type fewer")
        self.at = read_prefix(self.text, self.at, draft.prefix, is_head)
        self._name(draft)
        self.known.append(self._named(draft))
        known = len(self.known)
        self._places(draft, is_head, outer_waits)
        name = self.known[known - 1]
        # What was named inside a place is not what a later "one" of this thing's own places stands for.
        del self.known[known:]
        if not is_head and "or" in draft.words:
            raise PlaceError(f'"or" is not understood in a phrase with a place: {_EXAMPLE}')
        return _finished(draft, name)

    def group(self) -> Reference:
        """Reads a thing in brackets."""
        self.at += 1
        inner = self.thing(_Draft(Prefix()), is_head=True)
        if not self.text.is_word(self.at, ")"):
            raise PlaceError(f"a bracket is not closed: {_EXAMPLE}")
        self.at += 1
        return inner

    def _name(self, draft: _Draft) -> None:
        """Reads the words of a name, up to a place or what joins another thing."""
        start = self.at
        while self.at < len(self.text):
            if not self.text[self.at][1]:
                if self._ends_name(draft):
                    break
                if draft.words and (kind := self.text.inner_superlative(self.at)):
                    draft.prefix.choose(kind)
                    self.at += 1
                    continue
            draft.sources.append(self.at)
            draft.words.append(self.text.typed(self.at))
            self.at += 1
        number_at = draft.prefix.number_at
        if number_at is None or not draft.words or draft.prefix.is_choice or self.text[start][1]:
            return
        if draft.prefix.count != 1 and draft.words[-1] not in _ONE and not singulars(draft.words[-1]):
            # "2 euro coin" is a name.
            draft.prefix.count = draft.prefix.number_at = None
            draft.words.clear()
            draft.sources.clear()
            self.at = number_at
            self._name(draft)

    def _ends_name(self, draft: _Draft) -> bool:
        if self.text.is_word(self.at, ")", ",", "and"):
            return True
        if not draft.words and not draft.prefix.is_choice:
            if place := self.text.place(self.at, is_strict=True):
                said = shown(self.text.rest(self.at))
                raise PlaceError(f'"{said}" names no thing before it: type for example "the cup {place.form} the box"')
            return False
        return bool(self.text.place(self.at, clause=self._has_clause(draft)) or self._measured(draft))

    def _measured(self, draft: _Draft) -> Place | None:
        """Returns "to the bowl" after "the closest cup"."""
        if not draft.words or draft.anchors:
            return None
        return self.text.measured(self.at, draft.prefix.superlative)

    def _has_clause(self, draft: _Draft) -> bool:
        return self.text.is_clause(draft.words)

    def _named(self, draft: _Draft) -> str:
        """Returns the name, with the thing named before in place of "one"."""
        words = list(draft.words)
        plain = ["" if self.text[at][1] else word for at, word in zip(draft.sources, words)]
        before = self.known[-1] if self.known else ""
        if not words and draft.prefix.is_choice:
            if not before or (self.needs_name and self.things == 1):
                raise PlaceError('it does not say of which things: type for example "the largest cup"')
            return before
        self.names += draft.sources
        if plain and (plain[0] == "what" or (len(plain) == 1 and plain[0] in ANYTHINGS)):
            self.names.remove(draft.sources[0])
            draft.prefix.is_all = draft.prefix.is_all or words[0] not in ("one", "something", "thing")
            return before if before and words[0] in _ONE else "object"
        at = next((at for at, word in enumerate(plain) if word in _ONE), len(words))
        if before and at < len(words) and (at + 1 == len(words) or words[at + 1].split()[0] in CLAUSES):
            self.names.remove(draft.sources[at])
            words[at] = before.split()[-1]
        return " ".join(words)

    def _places(self, draft: _Draft, is_head: bool, outer_waits: bool) -> None:
        while self.at < len(self.text):
            word, quoted = self.text[self.at]
            start = self.at
            if not quoted and word in (",", "and"):
                if not is_head:
                    return
                self.at += 1
            place = self.text.place(self.at, clause=self._has_clause(draft)) or self._measured(draft)
            if place is None or not self._apply(draft, place, is_head, outer_waits):
                self.at = start
                return

    def _apply(self, draft: _Draft, place: Place, is_head: bool, outer_waits: bool) -> bool:
        """Adds a place to the thing; returns whether it belongs to it, and not to one before it."""
        waits = draft.prefix.ordinal is not None and not draft.side and not draft.prefix.superlative
        if place.kind == "scene":
            self.at = place.end
            return True
        if place.kind == "superlative":
            return self._superlative(draft, place, is_head, waits)
        if place.kind == "order":
            if draft.place is not None or draft.prefix.is_choice:
                return self._refuse_second(is_head)
            draft.place, draft.side = place.number, place.form
            self.at = place.end
            return True
        if place.kind in ("side", "end"):
            if not waits and outer_waits and not is_head:
                return False
            return self._side(draft, place, is_head, waits)
        self._relation(draft, place, waits or outer_waits)
        return True

    def _superlative(self, draft: _Draft, place: Place, is_head: bool, waits: bool) -> bool:
        # "To the bowl" adds to "the closest cup"; "closest to the bowl" is a choice of its own.
        if not place.is_own:
            if draft.prefix.is_choice or draft.place is not None:
                return self._refuse_second(is_head)
            draft.prefix.choose(place.form)
        self.at = place.end
        if place.takes_thing:
            draft.anchors = self._anchors(place, waits)
        return True

    def _relation(self, draft: _Draft, place: Place, waits: bool) -> None:
        self.at = place.end
        anchors = () if place.is_own else self._anchors(place, waits)
        kind = "near" if place.kind == "next to" and not anchors else place.kind
        if not anchors and kind not in _OWN_KINDS:
            raise PlaceError(f'"{place.form}" needs a thing after it: {_EXAMPLE}')
        draft.relations.append(Relation(cast(RelationKind, kind), anchors, place.distance_m))

    def _side(self, draft: _Draft, place: Place, is_head: bool, waits: bool) -> bool:
        """Adds "from the left" to an order; "on the left" also is the leftmost one, or all on that side."""
        if waits:
            draft.side, draft.is_end = place.form, place.kind == "end"
            self.at = place.end
            return True
        if place.kind == "side" and draft.prefix.is_choice:
            return self._refuse_second(is_head)
        if place.kind == "side":
            raise PlaceError(f'"from the {place.form}" counts nothing: type for example "the second cup from the left"')
        return self._end(draft, place, is_head)

    def _end(self, draft: _Draft, place: Place, is_head: bool) -> bool:
        """Adds "on the left": the leftmost one, or all on that side, if there are several or another choice."""
        first, _ = ENDS[place.form]
        is_several = draft.prefix.count is None and (
            draft.prefix.is_all or means_several(draft.words[-1] if draft.words else self.known[-1])
        )
        if draft.prefix.is_choice or draft.place is not None or is_several:
            own = {"left": "left of", "right": "right of"}.get(place.form)
            if own is None:
                return self._refuse_second(is_head)
            draft.relations.append(Relation(cast(RelationKind, own)))
        else:
            draft.prefix.choose(first)
        self.at = place.end
        return True

    def _refuse_second(self, is_head: bool) -> bool:
        if not is_head:
            return False
        raise PlaceError('two choices in one phrase: type one, for example "the largest cup"')

    def _anchors(self, place: Place, waits: bool) -> tuple[Reference, ...]:
        first = self._anchor(place, waits)
        if place.kind != "between":
            return () if first is None else (first,)
        second: Reference | None = None
        if self.text.is_word(self.at, "and") and not self.text.place(self.at + 1):
            self.at += 1
            second = self._anchor(place, waits)
            if first and second:
                return (first, second)
        if (
            first is None
            or self.text.is_word(self.at - 1, *OWN)
            or not ((first.count or 0) > 1 or (first.count is None and means_several(first.name)))
        ):
            raise PlaceError('"between" needs two things: type for example "the cup between the box and the bowl"')
        return (first,)

    def _anchor(self, place: Place, waits: bool) -> Reference | None:
        """Reads the thing of a place; returns ``None`` for the person's own place."""
        if self.at >= len(self.text) or self.text.is_word(self.at, ",", "and", ")"):
            raise PlaceError(f'"{place.form}" needs a thing after it: {_EXAMPLE}')
        ends_after = (
            self.at + 1 >= len(self.text)
            or self.text.is_word(self.at + 1, ",", "and", ")")
            or bool(self.text.place(self.at + 1))
        )
        if ends_after and self.text.is_word(self.at, *OWN):
            self.at += 1
            return None
        if place.kind == "superlative" and (length := self.text.viewer(self.at)):
            self.at += length
            return None
        if ends_after and self.text.is_word(self.at, *VAGUE):
            raise PlaceError(f'"{self.text[self.at][0]}" does not say which thing: {_EXAMPLE}')
        if self.text.is_word(self.at, "("):
            return self.group()
        inner = self.thing(_Draft(Prefix()), is_head=False, outer_waits=waits)
        if not inner.name or inner.name in COLOURS:
            raise PlaceError(f'"{place.form}" needs a thing after it: {_EXAMPLE}')
        return inner


def _finished(draft: _Draft, name: str) -> Reference:
    prefix = draft.prefix
    count, superlative = prefix.count, prefix.superlative
    order = None
    if draft.place is not None:
        order = Order(draft.place, cast(Side, SIDE_OF[draft.side]))
    elif prefix.ordinal is not None:
        place = prefix.ordinal
        order, ends = _order(prefix, draft)
        if ends:
            superlative = ends
        elif count is not None:
            raise PlaceError(f'number {place} of several is one thing: type for example "the second cup from the left"')
    chosen = None
    if superlative and order is None:
        chosen = Superlative(cast(SuperlativeKind, superlative), draft.anchors)
    elif draft.anchors:
        raise PlaceError('order from a thing is not understood: type for example "the cup closest to the box"')
    is_conditional = bool(draft.relations or chosen or order)
    if is_conditional:
        for word in ("or", "than"):
            if word in draft.words:
                raise PlaceError(f'"{word}" is not understood in a phrase with a place: {_EXAMPLE}')
        # A plural or a mass without a number means all; "the one" means one.
        if count is None and not prefix.is_all and not means_several(draft.words[-1] if draft.words else name):
            count = 1
    return Reference(name, tuple(draft.relations), chosen, order, count)


def _order(prefix: Prefix, draft: _Draft) -> tuple[Order | None, str]:
    """Returns the order, or the superlative of several from one side: "the first two cups from the left"."""
    place = prefix.ordinal or 1
    side = draft.side
    if prefix.superlative:
        if prefix.superlative not in SIDE_OF or draft.side:
            raise PlaceError(
                f'order by "{prefix.superlative}" is not understood here: type for example "the second largest cup"'
            )
        side = prefix.superlative
    if not side:
        raise PlaceError(
            f'"{prefix.ordinal_word}" needs a side to count from: type for example "the second cup from the left", '
            f'or put a name such as "{prefix.ordinal_word} gear" in quotes'
        )
    side = SIDE_OF[side]
    if place < 0 and draft.is_end:
        # "The last one on the right" is the end of the row, which is the first from the right.
        place = -place
    if prefix.count is not None and place in (1, -1):
        return None, ENDS[side][0 if place == 1 else 1]
    return Order(place, cast(Side, side)), ""
