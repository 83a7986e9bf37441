# SPDX-License-Identifier: Apache-2.0
"""What a phrase refers to, beyond a name: relations, superlatives, order, number and distance.

"the second cup from the left, not the red one, within 40 cm of the bowl" is the name "cup", which a model can find, and
conditions that follow from where things are. ``pipeline.space.relations`` decides them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

RelationKind = Literal[
    "left of",
    "right of",
    "in front of",
    "behind",
    "above",
    "below",
    "on",
    "in",
    "under",
    "next to",
    "near",
    "between",
    "touching",
    "within",
]
SuperlativeKind = Literal[
    "leftmost",
    "rightmost",
    "nearest",
    "farthest",
    "largest",
    "smallest",
    "tallest",
    "shortest",
    "highest",
    "lowest",
]
Side = Literal["left", "right", "near", "far", "top", "bottom", "largest", "smallest"]
RELATION_KINDS: tuple[RelationKind, ...] = get_args(RelationKind)
SUPERLATIVE_KINDS: tuple[SuperlativeKind, ...] = get_args(SuperlativeKind)
SIDES: tuple[Side, ...] = get_args(Side)


@dataclass(frozen=True)
class Relation:
    """A condition on where a thing is, against other things or against the person who speaks."""

    kind: RelationKind
    anchors: tuple[Reference, ...] = ()
    """The things that it relates to: two for ``between``, or one that means several; none for the person's own side
    ("on my left"), which only ``left of``, ``right of``, ``in front of``, ``behind`` and ``near`` have."""
    distance_m: float | None = None
    """The greatest distance in metres, of ``within`` alone."""

    def __str__(self) -> str:
        if not self.anchors:
            return f"{self.kind} me"
        names = " and ".join(f"({anchor})" if anchor.is_conditional else str(anchor) for anchor in self.anchors)
        return f"within {self.distance_m:g} m of {names}" if self.kind == "within" else f"{self.kind} {names}"


@dataclass(frozen=True)
class Superlative:
    """The one thing that has most of something."""

    kind: SuperlativeKind
    anchors: tuple[Reference, ...] = ()
    """What ``nearest`` and ``farthest`` are measured from; none stands for the camera."""

    def __str__(self) -> str:
        return self.kind + "".join(f" {'to' if self.kind == 'nearest' else 'from'} {one}" for one in self.anchors)


@dataclass(frozen=True)
class Order:
    """One of several things, counted from a side."""

    place: int
    """1 for the first; -1 for the last, -2 for the last but one."""
    side: Side = "left"

    def __str__(self) -> str:
        return f"number {self.place} from the {self.side}"


@dataclass(frozen=True)
class Reference:
    """What a phrase refers to: a name for a model, and conditions, all of which hold."""

    name: str
    """What a model is asked for, in lower case without an article: "red cup"."""
    relations: tuple[Relation, ...] = ()
    superlative: Superlative | None = None
    """It chooses among the things for which the relations hold."""
    order: Order | None = None
    """Likewise; not together with a superlative."""
    count: int | None = None
    """How many are wanted: 1 for "the cup", 2 for "two cups"; ``None`` for all, however many there are."""
    exclusions: tuple[Reference, ...] = ()
    """What is left out of them: "not the small one"."""
    is_count_asked: bool = False
    """Whether the number is the answer: "how many cups"."""

    @property
    def is_conditional(self) -> bool:
        """Whether there is more than a name."""
        return bool(self.relations or self.superlative or self.order or self.exclusions)

    def names(self) -> tuple[str, ...]:
        """Returns all names that a model is asked for, this one first, each once."""
        return tuple(dict.fromkeys(self._names()))

    def _names(self) -> Iterator[str]:
        yield self.name
        others = [anchor for relation in self.relations for anchor in relation.anchors]
        others += self.superlative.anchors if self.superlative else ()
        for other in (*others, *self.exclusions):
            yield from other._names()

    def __str__(self) -> str:
        """Returns what was understood, for people: "cup, left of blue box, largest, 2 of them"."""
        parts = [self.name, *map(str, self.relations)]
        parts += [str(choice) for choice in (self.superlative, self.order) if choice]
        parts += [f"{self.count} of them"] if self.count not in (None, 1) else []
        parts += [f"except {other}" for other in self.exclusions]
        return ("number of " if self.is_count_asked else "") + ", ".join(parts)
