# SPDX-License-Identifier: Apache-2.0
"""What a phrase refers to, beyond a name: relations, superlatives, order, number and distance.

"the second cup from the left, not the red one, within 40 cm of the bowl" is the name "cup", which a model can find, and
conditions that follow from where things are. ``pipeline.space.relations`` decides them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from clip_seg_ros.commands.plurals import means_several

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
    ("on my left"), which only ``left of``, ``right of``, ``in front of``, ``behind``, ``near`` and ``within`` have."""
    distance_m: float | None = None
    """The greatest distance in metres, of ``within`` alone."""

    def __str__(self) -> str:
        # Between two boxes and a bowl are three things.
        is_pair = len(self.anchors) > 1
        names = " and ".join(_in_brackets(each, is_pair and each.count is not None) for each in self.anchors) or "me"
        return f"within {self.distance_m:g} m of {names}" if self.kind == "within" else f"{self.kind} {names}"


@dataclass(frozen=True)
class Superlative:
    """The one thing that has most of something."""

    kind: SuperlativeKind
    anchors: tuple[Reference, ...] = ()
    """What ``nearest`` and ``farthest`` are measured from; none stands for the camera."""

    def __str__(self) -> str:
        link = "to" if self.kind == "nearest" else "from"
        return self.kind + "".join(f" {link} {_in_brackets(anchor)}" for anchor in self.anchors)


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
    def is_placed(self) -> bool:
        """Whether where things are, or how large, decides which are meant."""
        return bool(self.relations or self.superlative or self.order)

    @property
    def is_conditional(self) -> bool:
        """Whether there is more than a name."""
        return self.is_placed or bool(self.exclusions)

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
        """Returns what was understood, as a phrase that parses to the same: 2 "cups" left of "blue box" and near me."""
        words = ["how many"] if self.is_count_asked else []
        is_plural = means_several(self.name)
        before = self.superlative if self.superlative and not self.superlative.anchors else None
        words += [str(before)] if before else []
        if self.count is not None and (is_plural or self.count != 1 or not self.is_placed):
            words.append(f"{self.count}" if is_plural and self.count != 1 else f"{self.count} of")
        elif self.count is None and self.is_placed and not is_plural:
            words.insert(len(words) - bool(before), "all")
        places = [*map(str, self.relations)]
        places += [str(choice) for choice in (self.superlative, self.order) if choice and choice is not before]
        words += [f'"{self.name}"', " and ".join(places)]
        words += ["except " + ", ".join(map(_in_brackets, self.exclusions))] if self.exclusions else []
        return " ".join(filter(None, words))


def _in_brackets(reference: Reference, always: bool = False) -> str:
    return f"({reference})" if reference.is_conditional or always else str(reference)
