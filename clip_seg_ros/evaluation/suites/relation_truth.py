# SPDX-License-Identifier: Apache-2.0
"""What references mean in a simulated scene, from its geometry; whatever is not clear by a margin has no answer.

A condition is 1 where it clearly holds, -1 where it clearly fails, and 0 where people might disagree.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clip_seg_ros.commands.references import Reference, Relation, Superlative
from clip_seg_ros.evaluation.suites.embedded import phrase_of
from clip_seg_ros.pipeline.space.relations import State
from clip_seg_ros.sim.renderer import RenderedView, object_pose
from clip_seg_ros.sim.scene import Scene, shape_set

MIN_SHARE = 0.002
"""The least share of the image that an object must cover to be named."""
SIDE, ASIDE_M, DEEP_M = 0.06, 0.03, 0.05
"""Least differences: from left to right as a share of the image's width and in metres, and away from the camera."""
_TURN = np.linspace(0, 2 * np.pi, 72, endpoint=False)
_WAYS = np.stack([np.cos(_TURN), np.sin(_TURN)])


@dataclass(frozen=True, eq=False)
class TrueObject:
    """An object of a scene as people would judge it."""

    label: int
    """Its value in the label image."""
    names: tuple[str, ...]
    """What it may be called: "cup", "red cup", "red object"."""
    ground: np.ndarray
    """(2,) metres: to the right of the camera and away from it."""
    reach: np.ndarray
    """How far it reaches along each of 72 directions over the ground, metres."""
    tall: float
    """Its height, metres."""
    size: float
    """The cube root of its volume, about, metres."""
    x: float
    """The middle of its visible pixels, as a share of the image's width."""
    area: int
    """The number of its visible pixels."""
    on: int | None
    """The label of what it stands on or lies in, if that is not the table."""
    kind: str

    @property
    def breadth(self) -> float:
        return float((self.reach + np.roll(self.reach, 36)).mean())

    def gap(self, other: TrueObject) -> float:
        """Returns the distance of the footprints, metres."""
        return float((-self.reach - np.roll(other.reach, 36)).max())


@dataclass(frozen=True)
class Truth:
    """The right answer."""

    state: State
    labels: frozenset[int] = frozenset()
    """The objects that are meant; empty if it is not ``found``."""
    count: int = 0
    """How many fit."""


def true_objects(
    scene: Scene, view: RenderedView, on: Mapping[int, int]
) -> tuple[tuple[TrueObject, ...], frozenset[str]]:
    """Lists the objects that are clearly visible, and the names that might also mean one that hardly is.

    Args:
        scene: The scene.
        view: Its image.
        on: The index of what an object stands on, by its index.
    """
    areas = np.bincount(view.labels.ravel(), minlength=len(scene.objects) + 1)
    eye, target = np.array(scene.camera.eye[:2]), np.array(scene.camera.target[:2])
    away = (target - eye) / np.linalg.norm(target - eye)
    turn = np.stack([[away[1], -away[0]], away])
    seen, unclear = [], set[str]()
    for index, item in enumerate(scene.objects):
        names = (item.kind, phrase_of((item.color, item.kind)), phrase_of((item.color, None)))
        if areas[index + 1] < MIN_SHARE * view.labels.size:
            unclear.update(names if areas[index + 1] else ())
            continue
        shape = shape_set(scene.shape_seed)[item.kind][item.slot]
        position, rotation = object_pose(item, shape.height)
        corners = np.concatenate([part.vertices for part in shape.parts]) @ rotation.T + position
        places = (corners[:, :2] - eye) @ turn.T
        reach = (places @ _WAYS).max(axis=0)
        wide = reach + np.roll(reach, 36)
        tall = float(np.ptp(corners[:, 2]))
        middle = (np.array(item.position[:2]) - eye) @ turn.T
        x = float(np.nonzero(view.labels == index + 1)[1].mean()) / view.labels.shape[1]
        support = on[index] + 1 if index in on else None
        size = float(np.cbrt(wide.max() * wide.min() * tall))
        area = int(areas[index + 1])
        seen.append(TrueObject(index + 1, names, middle, reach, tall, size, x, area, support, item.kind))
    return tuple(seen), frozenset(unclear)


def truth_of(reference: Reference, seen: Sequence[TrueObject]) -> Truth | None:
    """Returns what a reference means among the objects, or ``None`` if that is not clear."""
    named = [item for item in seen if reference.name in item.names]
    for exclusion in reference.exclusions:
        out = truth_of(exclusion, seen)
        if out is None or out.state != "found":
            return None
        named = [item for item in named if item.label not in out.labels]
    for relation in reference.relations:
        holding = _holding(relation, named, seen)
        if holding is None:
            return None
        named = holding
    if not named:
        return Truth("not found")
    if reference.superlative is not None or reference.order is not None:
        return _picked(reference, named, seen)
    labels, count, wanted = frozenset(item.label for item in named), len(named), reference.count
    if wanted is None or reference.is_count_asked or wanted == count:
        return Truth("found", labels, count)
    return Truth("ambiguous" if count > wanted else "not found", count=count)


def _holding(relation: Relation, named: list[TrueObject], seen: Sequence[TrueObject]) -> list[TrueObject] | None:
    """Returns those for which a relation clearly holds; ``None`` if that is not clear of any."""
    several = []
    for anchor in relation.anchors:
        meant = truth_of(anchor, seen)
        if meant is None or meant.state == "ambiguous":
            return None
        several.append([item for item in seen if item.label in meant.labels])
    if not all(several):
        return []
    groups = list(itertools.product(*several))
    if relation.kind == "between":
        groups = list(itertools.combinations(several[0], 2)) if len(several) == 1 else groups
        groups = [group for group in groups if group[0] is not group[1]]
        if not groups:
            return None
    holding = []
    for item in named:
        marks = [_mark(relation, item, group) for group in groups if item not in group]
        best = max(marks, default=-1)
        if best == 0:
            return None
        if best > 0:
            holding.append(item)
    return holding


def _mark(relation: Relation, item: TrueObject, anchors: tuple[TrueObject, ...]) -> int:
    """Returns 1, 0 or -1 for a relation."""
    if relation.kind == "between":
        return _between(item, *anchors[:2])
    if relation.kind == "within":
        gap, most = item.gap(anchors[0]), relation.distance_m or 0.0
        return 1 if gap <= most - 0.03 else -1 if gap >= most + 0.04 else 0
    return _MARKS[relation.kind](item, anchors[0])


def _between(item: TrueObject, first: TrueObject, second: TrueObject) -> int:
    line = second.ground - first.ground
    length = float(np.hypot(*line))
    if length < DEEP_M:
        return 0
    step = item.ground - first.ground
    share = float(step @ line) / length**2
    aside = abs(float(step[0] * line[1] - step[1] * line[0])) / length**2
    if 0.2 <= share <= 0.8 and aside <= 0.22:
        return 1
    return -1 if not -0.15 <= share <= 1.15 or aside >= 0.6 else 0


def _aside(sign: int) -> Callable[[TrueObject, TrueObject], int]:
    def mark(item: TrueObject, anchor: TrueObject) -> int:
        seen, there = sign * (item.x - anchor.x), sign * float(item.ground[0] - anchor.ground[0])
        return 1 if seen >= SIDE and there >= ASIDE_M else -1 if seen <= -SIDE and there <= -ASIDE_M else 0

    return mark


def _beyond(sign: int) -> Callable[[TrueObject, TrueObject], int]:
    def mark(item: TrueObject, anchor: TrueObject) -> int:
        step = sign * float(item.ground[1] - anchor.ground[1])
        return 1 if step >= DEEP_M else -1 if step <= -DEEP_M else 0

    return mark


def _no_wider(hold: float, share: float, more: float) -> Callable[[TrueObject, TrueObject], int]:
    """Holds up to a gap of ``hold`` metres, and fails from a share of the smaller breadth and so much ``more``."""

    def mark(item: TrueObject, anchor: TrueObject) -> int:
        gap = item.gap(anchor)
        return 1 if gap <= hold else -1 if gap >= share * min(item.breadth, anchor.breadth) + more else 0

    return mark


_MARKS: dict[str, Callable[[TrueObject, TrueObject], int]] = {
    "left of": _aside(-1),
    "right of": _aside(1),
    "in front of": _beyond(-1),
    "behind": _beyond(1),
    "next to": _no_wider(0.06, 1.2, 0.05),
    "near": _no_wider(0.15, 3.0, 0.15),
    "touching": _no_wider(0.004, 0.0, 0.04),
    "on": lambda item, anchor: 1 if item.on == anchor.label and anchor.kind != "bowl" else -1,
    "in": lambda item, anchor: 1 if item.on == anchor.label and anchor.kind == "bowl" else -1,
    "under": lambda item, anchor: 1 if anchor.on == item.label and item.kind != "bowl" else -1,
}


def _picked(reference: Reference, named: list[TrueObject], seen: Sequence[TrueObject]) -> Truth | None:
    """Returns what a superlative or an order means; ``None`` if the next one is not clearly different."""
    value, apart, superlative = _VALUES["leftmost"], _APART["leftmost"], reference.superlative
    wanted, first = reference.count or 1, 0
    if superlative is not None and superlative.anchors:
        distance = _distance(superlative, named, seen)
        if distance is None:
            return None
        value, apart = distance, lambda one, other: abs(distance(one) - distance(other)) >= DEEP_M
    else:
        kind = (
            superlative.kind if superlative is not None else _SIDES[reference.order.side if reference.order else "left"]
        )
        value, apart = _VALUES[kind], _APART[kind]
    ranked = sorted(named, key=value, reverse=True)
    if reference.order is not None:
        place = reference.order.place
        first = place - 1 if place > 0 else len(ranked) + place
    if first < 0 or first + wanted > len(ranked):
        return Truth("not found", count=len(named))
    edges = [edge for edge in (first, first + wanted) if 0 < edge < len(ranked)]
    if not all(apart(ranked[edge - 1], other) for edge in edges for other in ranked[edge:]):
        return None
    if not all(apart(one, ranked[edge]) for edge in edges for one in ranked[:edge]):
        return None
    return Truth("found", frozenset(item.label for item in ranked[first : first + wanted]), len(named))


def _distance(
    superlative: Superlative, named: list[TrueObject], seen: Sequence[TrueObject]
) -> Callable[[TrueObject], float] | None:
    """Returns what ``nearest`` and ``farthest`` compare; ``None`` if it is not clear from what they are measured."""
    meant = [truth_of(anchor, seen) for anchor in superlative.anchors]
    labels = frozenset[int]().union(*(truth.labels for truth in meant if truth is not None))
    anchors = [item for item in seen if item.label in labels]
    if not all(truth is not None and truth.state == "found" for truth in meant) or any(
        item in anchors for item in named
    ):
        return None
    sign = -1 if superlative.kind == "nearest" else 1
    return lambda item: sign * min(item.gap(anchor) for anchor in anchors)


def _ratio(value: Callable[[TrueObject], float], least: float, one: TrueObject, other: TrueObject) -> bool:
    return max(value(one), value(other)) >= least * min(value(one), value(other))


def _differ_aside(one: TrueObject, other: TrueObject) -> bool:
    seen, there = one.x - other.x, float(one.ground[0] - other.ground[0])
    return abs(seen) >= SIDE and seen * there > 0


def _differ_in_depth(one: TrueObject, other: TrueObject) -> bool:
    return abs(float(one.ground[1] - other.ground[1])) >= DEEP_M


def _differ_in_size(one: TrueObject, other: TrueObject) -> bool:
    larger, smaller = (one, other) if one.size > other.size else (other, one)
    return larger.size >= 1.12 * smaller.size and larger.area >= 1.2 * smaller.area


def _differ_in_height(one: TrueObject, other: TrueObject) -> bool:
    return _ratio(lambda item: item.tall, 1.2, one, other) and abs(one.tall - other.tall) >= 0.015


_SIDES = {"left": "leftmost", "right": "rightmost", "near": "nearest", "far": "farthest"} | {
    "largest": "largest",
    "smallest": "smallest",
}
_VALUES: dict[str, Callable[[TrueObject], float]] = {
    "leftmost": lambda item: -item.x,
    "rightmost": lambda item: item.x,
    "nearest": lambda item: -float(item.ground[1]),
    "farthest": lambda item: float(item.ground[1]),
    "largest": lambda item: item.size,
    "smallest": lambda item: -item.size,
    "tallest": lambda item: item.tall,
    "shortest": lambda item: -item.tall,
}
_APART: dict[str, Callable[[TrueObject, TrueObject], bool]] = {
    **dict.fromkeys(("leftmost", "rightmost"), _differ_aside),
    **dict.fromkeys(("nearest", "farthest"), _differ_in_depth),
    **dict.fromkeys(("largest", "smallest"), _differ_in_size),
    **dict.fromkeys(("tallest", "shortest"), _differ_in_height),
}
