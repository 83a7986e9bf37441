# SPDX-License-Identifier: Apache-2.0
"""Draws references about a simulated scene whose meaning is clear: relations, superlatives, order, number, and more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from clip_seg_ros.commands.references import Order, Reference, Relation, RelationKind, Superlative, SuperlativeKind
from clip_seg_ros.evaluation.suites.embedded import phrase_of
from clip_seg_ros.evaluation.suites.relation_truth import TrueObject, Truth, truth_of
from clip_seg_ros.sim.scene import COLORS, KINDS

TRIES = 24
"""How often a reference of each group is drawn until its meaning is clear."""
STACKED = 3
"""How many references are drawn where some objects stand on others."""
ALONE = ("stacked", "between", "touching")
"""The groups in which the name may mean one object alone; in the others the conditions are necessary."""
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class RelationQuestion:
    """A reference with its right answer."""

    group: str
    reference: Reference
    truth: Truth


class _Draw:
    """Draws references from the names of what is in a scene."""

    def __init__(self, rng: np.random.Generator, seen: Sequence[TrueObject], unclear: frozenset[str]) -> None:
        self._rng = rng
        named: dict[str, int] = {}
        for item in seen:
            for name in item.names:
                named[name] = named.get(name, 0) + 1
        self.clear = {name: number for name, number in named.items() if name not in unclear}
        everything = [*KINDS, *(phrase_of((color, kind)) for color in COLORS for kind in KINDS)]
        self._absent = [name for name in everything if name not in named and name not in unclear]
        self._unique = [name for name, number in self.clear.items() if number == 1]

    def any_of(self, choices: Sequence[_Item]) -> _Item:
        return choices[int(self._rng.integers(len(choices)))]

    def name(self, least: int = 1) -> str:
        several = [name for name, number in self.clear.items() if number >= least]
        return self.any_of(several or list(self.clear))

    def absent(self) -> str:
        return self.any_of(self._absent)

    def anchor(self) -> Reference:
        return Reference(self.any_of(self._unique or list(self.clear)), count=1)

    def related(self, *kinds: RelationKind, least: int = 2) -> Reference:
        kind = self.any_of(kinds)
        anchors = (self.anchor(), self.anchor()) if kind == "between" else (self.anchor(),)
        distance_m = self.any_of((0.1, 0.2, 0.3, 0.4)) if kind == "within" else None
        return Reference(self.name(least), (Relation(kind, anchors, distance_m),), count=1)

    def superlative(self, name: str) -> Reference:
        kinds: tuple[SuperlativeKind, ...] = ("leftmost", "rightmost", "nearest", "farthest", "largest", "smallest")
        return Reference(name, superlative=Superlative(self.any_of((*kinds, "tallest", "shortest"))), count=1)

    def excluded(self) -> Reference:
        name = self.name(2)
        others = [other for other in self._unique if other.endswith(" " + name)]
        excluded = Reference(self.any_of(others), count=1) if others else self.superlative(name)
        return Reference(name, exclusions=(excluded,), count=1)

    def chained(self) -> Reference:
        reference = self.related("left of", "right of", "in front of", "behind", "next to", least=1)
        further = self.related("left of", "right of", "in front of", "behind", "next to")
        return replace(reference, relations=(replace(reference.relations[0], anchors=(further,)),))

    def ordered(self) -> Reference:
        place = self.any_of((1, 2, 2, 3, -1, -2))
        return Reference(self.name(2), order=Order(place, self.any_of(("left", "right", "near", "far"))), count=1)

    def counted(self) -> Reference:
        kind = self._rng.random()
        if kind < 0.15:
            return Reference(self.absent(), is_count_asked=True)
        if kind < 0.6:
            return Reference(self.name(), is_count_asked=True)
        return replace(self.related("left of", "right of", "in front of", "behind"), count=None, is_count_asked=True)

    def not_there(self) -> Reference:
        kind = self._rng.random()
        if kind < 0.2:
            return replace(self.related("left of", "behind", "next to"), name=self.absent())
        if kind < 0.4:
            missing = Reference(self.absent(), count=1)
            return Reference(
                self.name(), (Relation(self.any_of(("right of", "in front of", "near")), (missing,)),), count=1
            )
        if kind < 0.55:
            return Reference(self.name(2), count=self.any_of((3, 4, 5)))
        if kind < 0.65:
            return self.ordered()
        sides: tuple[RelationKind, ...] = ("left of", "right of", "in front of", "behind")
        return self.related(*sides, "next to", "touching", "within", "between", "on", "in", "under", least=1)

    def unclear(self) -> Reference:
        if self._rng.random() < 0.5:
            return Reference(self.name(2), count=1)
        return self.related("left of", "right of", "in front of", "behind", "near")


_GROUPS: dict[str, Callable[[_Draw], Reference]] = {
    "side": lambda draw: draw.related("left of", "right of"),
    "depth": lambda draw: draw.related("in front of", "behind"),
    "close": lambda draw: draw.related("next to", "near"),
    "touching": lambda draw: draw.related("touching", least=1),
    "within": lambda draw: draw.related("within"),
    "between": lambda draw: draw.related("between", least=1),
    "stacked": lambda draw: draw.related("on", "in", "under", least=1),
    "superlative": lambda draw: draw.superlative(draw.name(2)),
    "nearest_to": lambda draw: Reference(
        draw.name(2), superlative=Superlative(draw.any_of(("nearest", "farthest")), (draw.anchor(),)), count=1
    ),
    "order": lambda draw: draw.ordered(),
    "number": lambda draw: Reference(draw.name(2), count=draw.any_of((2, 2, 3))),
    "exclusion": lambda draw: draw.excluded(),
    "chain": lambda draw: draw.chained(),
}
FOUND_GROUPS = tuple(_GROUPS)


def scene_references(
    seen: Sequence[TrueObject], unclear: frozenset[str], rng: np.random.Generator
) -> list[RelationQuestion]:
    """Draws one reference of each group, two that nothing fits, two numbers and an ambiguous one, where they are clear.

    Where some objects stand on others, all references are about that.

    Args:
        seen: The objects that are clearly visible.
        unclear: Names that might also mean one that hardly is.
        rng: The source of all random numbers.
    """
    draw = _Draw(rng, seen, unclear)
    if not draw.clear:
        return []
    if any(item.on is not None for item in seen):
        return _clear(draw, [("stacked", "found", _GROUPS["stacked"])] * STACKED, seen, unclear)
    wanted = [(group, "found", make) for group, make in _GROUPS.items() if group != "stacked"]
    wanted += [("absent", "not found", _Draw.not_there)] * 2 + [("ambiguous", "ambiguous", _Draw.unclear)]
    wanted += [("count", "", _Draw.counted)] * 2
    return _clear(draw, wanted, seen, unclear)


def _clear(
    draw: _Draw,
    wanted: Sequence[tuple[str, str, Callable[[_Draw], Reference]]],
    seen: Sequence[TrueObject],
    unclear: frozenset[str],
) -> list[RelationQuestion]:
    """Draws a different reference of each group and state that is wanted; any state will do where it is empty."""
    found: dict[str, RelationQuestion] = {}
    for group, state, make in wanted:
        for _ in range(TRIES):
            reference = make(draw)
            truth = None if unclear.intersection(reference.names()) else truth_of(reference, seen)
            if truth is None or (state and truth.state != state) or str(reference) in found:
                continue
            if state == "found" and group not in ALONE and truth.count == draw.clear.get(reference.name) == 1:
                continue
            found[str(reference)] = RelationQuestion(group, reference, truth)
            break
    return list(found.values())
