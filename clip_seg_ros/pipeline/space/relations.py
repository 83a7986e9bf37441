# SPDX-License-Identifier: Apache-2.0
"""Decides what a phrase with relations, order or number refers to, from where the found objects are.

A model is asked for all names of a ``Reference``; ``resolve`` compares the objects that it found in space, or in the
picture where there is no depth. What a thing relates to is resolved first. If several things may be meant by that, each
counts, and the best pair decides.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from clip_seg_ros.commands.references import Reference, Relation, SuperlativeKind
from clip_seg_ros.pipeline.space import sayings
from clip_seg_ros.pipeline.space.placing import gap_of, margin_of, score_of, value_of
from clip_seg_ros.pipeline.space.solids import Solid, SpaceFrame, solids_of
from clip_seg_ros.types import ObjectRegion

DOUBTED = 0.8
"""A region does not count if its score is less than this share of the best one's of its name: a model is less sure of
what it takes for a cup than of a cup."""
CLEARLY = 0.5
"""One thing is meant rather than another that fits, too, if that one's score is less than this share of its score."""
SAME = 0.5
"""Two regions are one object if they share this much of the larger one's pixels; a ball in a bowl does not."""
_NOT_BESIDE = ("above", "below", "on", "in", "under", "touching")
"""The relations of things that are not apart over the ground."""
NO_SPACE = SpaceFrame()
"""Nothing is known but what the regions say."""

State = Literal["found", "not found", "ambiguous"]


@dataclass(frozen=True)
class Link:
    """One relation that holds for an object."""

    words: str
    """The relation: "left of", "nearest to"."""
    anchor: Fit
    """What it holds against; "between" two things makes two links."""
    gap_m: float | None
    """The width of the gap over the ground between both, in metres; ``None`` without depth, and for relations that are
    not beside each other."""


@dataclass(frozen=True)
class Fit:
    """One object for which all conditions hold."""

    region: ObjectRegion
    score: float
    """The region's own score, times how well each relation holds, 0..1."""
    links: tuple[Link, ...] = ()
    """Which relations hold, and against what."""

    @property
    def anchors(self) -> tuple[ObjectRegion, ...]:
        """What it relates to."""
        return tuple(link.anchor.region for link in self.links)


@dataclass(frozen=True)
class Resolution:
    """What a reference refers to in one image."""

    reference: Reference
    state: State
    """``ambiguous`` if more objects fit than are wanted; ``found`` for a number that was asked for and is not 0."""
    fits: tuple[Fit, ...]
    """The chosen objects, or all that fit if it is ambiguous: the best one first, or in the order that was asked for.
    Empty if nothing was found, or less than wanted."""
    count: int
    """How many fit."""
    sentence: str
    """What was found, or why nothing, for people: "2 cups, none left of the blue box; nearest miss: 3 cm"."""

    @property
    def regions(self) -> tuple[ObjectRegion, ...]:
        """The chosen objects."""
        return tuple(fit.region for fit in self.fits)

    @property
    def anchors(self) -> tuple[ObjectRegion, ...]:
        """What the chosen objects relate to, each once."""
        return tuple({region.id: region for fit in self.fits for region in fit.anchors}.values())


def resolve(
    reference: Reference, regions_by_name: Mapping[str, Sequence[ObjectRegion]], space: SpaceFrame = NO_SPACE
) -> Resolution:
    """Finds out what a reference refers to.

    Args:
        reference: What was said.
        regions_by_name: The objects that a model found for each of ``reference.names()``. If all have positions, they
            are compared in metres, else in the picture: left and right by x, near and far by their lower edges.
        space: What is known of gravity, of the ground, and of the objects' visible surfaces.

    Raises:
        ValueError: A name was not asked for, or a relation has no meaning, such as ``between`` one thing.
    """
    names = reference.names()
    if lacking := [name for name in names if name not in regions_by_name]:
        raise ValueError(f"nothing is known of {', '.join(lacking)}: ask the model for all names of the reference")
    every = [region for name in names for region in regions_by_name[name]]
    solids = iter(solids_of(every, space))
    return _Resolver({name: [next(solids) for _ in regions_by_name[name]] for name in names}).resolve(reference)


@dataclass(frozen=True)
class _Placed:
    """A solid for which the conditions so far hold."""

    solid: Solid
    score: float
    held: tuple[tuple[str, _Placed], ...] = ()
    """The words of relations, and what they hold against."""

    def fit(self) -> Fit:
        return Fit(self.solid.region, self.score, tuple(self._link(words, anchor) for words, anchor in self.held))

    def _link(self, words: str, anchor: _Placed) -> Link:
        is_beside = self.solid.in_metres and words not in _NOT_BESIDE
        return Link(words, anchor.fit(), max(0.0, gap_of(self.solid, anchor.solid)) if is_beside else None)


class _Miss(Exception):
    """Why nothing fits."""

    def __init__(self, sentence: str, count: int = 0) -> None:
        super().__init__(sentence)
        self.sentence, self.count = sentence, count


class _Resolver:
    """Resolves references to the objects of one image."""

    def __init__(self, solids: Mapping[str, Sequence[Solid]]) -> None:
        self._solids = solids

    def resolve(self, reference: Reference) -> Resolution:
        try:
            placed, count = self._chosen(reference)
        except _Miss as miss:
            return Resolution(reference, "not found", (), miss.count, miss.sentence)
        wanted = reference.count
        if wanted is not None and len(placed) > wanted and not reference.is_count_asked:
            sentence = sayings.say_which(reference, [each.solid for each in placed])
            return Resolution(reference, "ambiguous", tuple(each.fit() for each in placed), len(placed), sentence)
        sentence = sayings.found(reference, len(placed))
        return Resolution(reference, "found", tuple(each.fit() for each in placed), count, sentence)

    def _chosen(self, reference: Reference) -> tuple[list[_Placed], int]:
        """Returns what is meant, or all that may be, and how many fit; raises ``_Miss``."""
        placed = self._fitting(reference)
        count, wanted = len(placed), reference.count
        if reference.superlative is not None or reference.order is not None:
            return self._picked(reference, placed), count
        if reference.is_count_asked or wanted is None:
            return placed, count
        if count < wanted:
            raise _Miss(sayings.too_few(reference, count), count)
        if count > wanted and placed[wanted].score < CLEARLY * placed[wanted - 1].score:
            placed = placed[:wanted]
        return placed, len(placed)

    def _fitting(self, reference: Reference) -> list[_Placed]:
        """Returns all for which the relations hold, the best score first; raises ``_Miss`` if there are none.

        Who says "the second cup" knows of two: doubted objects count where the others are too few.
        """
        every = sorted(self._solids[reference.name], key=lambda solid: -solid.region.score)
        if not every:
            raise _Miss(sayings.not_there(reference))
        sure = [solid for solid in every if solid.region.score >= DOUBTED * every[0].region.score]
        placed: list[_Placed] = []
        missed: _Miss | None = None
        try:
            placed = self._holding(reference, sure)
        except _Miss as miss:
            missed = miss
        if len(placed) < _needed(reference) and len(sure) < len(every):
            with contextlib.suppress(_Miss):
                chosen = {each.solid.region.id for each in placed}
                more = [each for each in self._holding(reference, every) if each.solid.region.id not in chosen]
                placed += more[: _needed(reference) - len(placed)]
        if not placed and missed is not None:
            raise missed
        return placed

    def _holding(self, reference: Reference, solids: Sequence[Solid]) -> list[_Placed]:
        """Returns those of some solids for which the relations hold, the best score first; raises ``_Miss``."""
        left_out = [each.solid.region for exclusion in reference.exclusions for each in self._meant(exclusion)]
        kept = [
            _Placed(solid, solid.region.score)
            for solid in solids
            if not any(_is_same(solid.region, other) for other in left_out)
        ]
        if not kept:
            raise _Miss(sayings.all_excluded(reference, len(solids)))
        for relation in reference.relations:
            kept = self._related(reference, relation, kept, len(solids))
        return sorted(kept, key=lambda each: -each.score)

    def _meant(self, reference: Reference) -> list[_Placed]:
        """Returns what a part of a reference may mean; empty if there is no such thing."""
        try:
            return self._chosen(reference)[0]
        except _Miss:
            return []

    def _related(self, reference: Reference, relation: Relation, placed: list[_Placed], number: int) -> list[_Placed]:
        """Returns those for which a relation holds, with their anchors; raises ``_Miss`` if there are none."""
        if not relation.anchors and any(each.solid.own is None for each in placed):
            raise _Miss(sayings.unplaced(reference, "nothing tells where you are"))
        groups = self._anchor_groups(reference, relation)
        kept, miss = [], float("inf")
        for each in placed:
            best: _Placed | None = None
            for group in groups:
                anchors = tuple(one.solid for one in group)
                if any(_is_same(each.solid.region, anchor.region) for anchor in anchors):
                    continue
                margin = margin_of(relation.kind, each.solid, anchors, relation.distance_m)
                miss = min(miss, -margin)
                score = each.score * score_of(margin) * min((one.score for one in group), default=1.0)
                if margin > 0 and (best is None or score > best.score):
                    words = sayings.relation_words(relation)
                    best = replace(each, score=score, held=(*each.held, *((words, one) for one in group)))
            if best is not None:
                kept.append(best)
        if not kept:
            raise _Miss(sayings.missed(reference, number, miss, placed[0].solid.in_metres))
        return kept

    def _anchor_groups(self, reference: Reference, relation: Relation) -> list[tuple[_Placed, ...]]:
        """Returns each choice of things that a relation may be against; raises ``_Miss`` if a thing is not there."""
        several: list[list[_Placed]] = []
        for anchor in relation.anchors:
            try:
                several.append(self._chosen(anchor)[0])
            except _Miss as miss:
                raise _Miss(sayings.unplaced(reference, miss.sentence)) from None
        if relation.kind == "between" and len(several) == 1:
            if len(several[0]) < 2:
                raise _Miss(sayings.unplaced(reference, f"only {sayings.counted(1, relation.anchors[0].name)}"))
            return list(itertools.combinations(several[0], 2))
        groups = itertools.product(*several)
        return [group for group in groups if len(group) < 2 or not _is_same(*(one.solid.region for one in group[:2]))]

    def _picked(self, reference: Reference, placed: list[_Placed]) -> list[_Placed]:
        """Returns what a superlative or an order chooses; raises ``_Miss`` if there is too little to choose from."""
        superlative, order = reference.superlative, reference.order
        anchors: list[_Placed] = []
        if superlative is not None and superlative.anchors:
            for anchor in superlative.anchors:
                try:
                    anchors += self._chosen(anchor)[0]
                except _Miss as miss:
                    raise _Miss(sayings.unplaced(reference, miss.sentence)) from None
            regions = [one.solid.region for one in anchors]
            others = [each for each in placed if not any(_is_same(each.solid.region, one) for one in regions)]
            if not others:
                raise _Miss(sayings.all_excluded(reference, len(placed)), len(placed))
            placed = others
        kind = superlative.kind if superlative is not None else sayings.side_kind(order.side if order else "left")
        solids = tuple(one.solid for one in anchors)
        ranked = sorted(placed, key=lambda each: -value_of(kind, each.solid, solids))
        wanted = reference.count or 1
        place = 1 if order is None else order.place
        first = place - 1 if place > 0 else len(ranked) + place
        if first < 0 or first + wanted > len(ranked):
            raise _Miss(sayings.too_few(reference, len(ranked)), len(ranked))
        return [_measured_from(each, kind, anchors) for each in ranked[first : first + wanted]]


def _measured_from(one: _Placed, kind: SuperlativeKind, anchors: Sequence[_Placed]) -> _Placed:
    """Adds the anchor of a superlative that decided, the nearest one."""
    if not anchors:
        return one
    nearest = min(anchors, key=lambda anchor: gap_of(one.solid, anchor.solid))
    return replace(one, held=(*one.held, (f"{kind} {'to' if kind == 'nearest' else 'from'}", nearest)))


def _needed(reference: Reference) -> int:
    """Returns how many objects a reference takes for granted."""
    if reference.is_count_asked:
        return 0
    wanted = reference.count or 1
    return wanted if reference.order is None else wanted + abs(reference.order.place) - 1


def _is_same(one: ObjectRegion, other: ObjectRegion) -> bool:
    """Returns whether two regions are one object, which was found by two names."""
    if one is other:
        return True
    shared = shared_px(one, other)
    return shared > 0 and shared >= SAME * max(one.area_px, other.area_px)


def shared_px(one: ObjectRegion, other: ObjectRegion) -> int:
    """Returns how many pixels two regions of an image have in common."""
    left, top = (max(one.box_px[index], other.box_px[index]) for index in (0, 1))
    right, bottom = (min(one.box_px[index], other.box_px[index]) for index in (2, 3))
    if left >= right or top >= bottom:
        return 0
    cuts = [
        region.inside[top - region.box_px[1] : bottom - region.box_px[1], left - region.box_px[0] :][:, : right - left]
        for region in (one, other)
    ]
    return int(np.count_nonzero(cuts[0] & cuts[1]))
