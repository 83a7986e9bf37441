# SPDX-License-Identifier: Apache-2.0
"""How well a relation between solids holds: by how much, in metres or in shares of the picture's width, and 0..1."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from clip_seg_ros.commands.references import RelationKind, SuperlativeKind
from clip_seg_ros.pipeline.space.solids import AROUND, SLANT, Solid

SOFT = 0.02
"""The margin that makes a relation likely: a score of 0.73, after the error of positions; a tenth decides nothing."""
SIDE = 0.01
"""How far a thing lies to the left of another, or before it, at least."""
NEXT, NEXT_MORE = 1.0, 0.03
"""The widest gap between things that are next to each other: a share of the smaller one's breadth, and so much more."""
NEAR, NEAR_MORE = 2.5, 0.1
"""The same for things that are near each other."""
TOUCH = 0.02
"""The widest gap between things that touch. The hidden sides of things are known no better than that."""
REST = 0.03
"""How far above another's top a thing may seem to end that stands on it: its foot may be hidden."""
SUNK = 0.01
"""How far a thing reaches below the rim of what it is in."""
ROUND = 0.8
"""The height of a thing in another one, of which only the top is seen, as a share of its breadth."""
AT_HAND = 1.0
"""What is near the person who speaks lies no further away."""
LATERAL = 0.35
"""How far from the line between two things a thing lies that is between them, as a share of the line's length."""


def score_of(margin: float) -> float:
    """Returns 0..1 for a margin: 0.5 where a relation just holds."""
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, margin / SOFT))))


def margin_of(kind: RelationKind, one: Solid, anchors: tuple[Solid, ...], distance_m: float | None = None) -> float:
    """Returns by how much a relation holds; negative by how much it fails.

    Args:
        kind: The relation.
        one: What is related.
        anchors: What it is related to: two for ``between``, none for the person's own side, else one.
        distance_m: The greatest distance, for ``within``.

    Raises:
        ValueError: The relation has no meaning for so many anchors, or ``within`` lacks its distance.
    """
    if kind == "between" and len(anchors) == 2:
        return _between(one, *anchors)
    if not anchors and one.own is not None and (kind in _OWN or distance_m is not None):
        return _OWN[kind](one.own) if distance_m is None else distance_m - float(np.hypot(*one.own))
    if len(anchors) != 1 or (kind == "within") != (distance_m is not None) or kind == "between":
        raise ValueError(f"{kind} has no meaning for {len(anchors)} anchors and a distance of {distance_m}")
    if distance_m is not None:
        return distance_m - gap_of(one, anchors[0])
    return _TO_ANCHOR[kind](one, anchors[0])


def gap_of(one: Solid, other: Solid) -> float:
    """Returns the width of the gap between two footprints; negative where they overlap."""
    half = len(one.reach) // 2
    # Along each direction, from where the first ends to where the second begins.
    return float((-one.reach - np.roll(other.reach, half)).max())


def side_of(one: Solid, other: Solid) -> float:
    """Returns how far one lies to the right of another, as people see it.

    A picture and a map may disagree on that: of two things, the nearer one seems further to the side. So both count.
    """
    if not one.in_metres:
        return one.bearing - other.bearing
    far = (_depth(one) + _depth(other)) / 2
    return (float(one.middle[0] - other.middle[0]) + (one.bearing - other.bearing) * far) / 2


def value_of(kind: SuperlativeKind, one: Solid, anchors: tuple[Solid, ...] = ()) -> float:
    """Returns what a superlative compares; the one thing that is meant has most of it.

    Args:
        kind: The superlative.
        one: What is compared.
        anchors: What ``nearest`` and ``farthest`` are measured from, the nearest of them; none stands for who speaks.
    """
    if kind in ("nearest", "farthest"):
        far = min((gap_of(one, anchor) for anchor in anchors), default=one.far)
        return -far if kind == "nearest" else far
    return _COMPARED[kind](one)


def _depth(one: Solid) -> float:
    return one.region.position_m[2] if one.region.position_m else 1.0


def _inside(one: Solid, other: Solid) -> float:
    """Returns how far the middle of one lies within the footprint of another."""
    return float((other.reach - one.middle @ AROUND).min())


def _between(one: Solid, first: Solid, second: Solid) -> float:
    line = second.middle - first.middle
    length = float(np.hypot(*line))
    if length < 1e-6:
        return -length
    along, across = line / length, np.array([-line[1], line[0]]) / length
    step = one.middle - first.middle
    share, aside = float(step @ along), abs(float(step @ across))
    return min(share, length - share, LATERAL * length + SOFT - aside)


def _above(one: Solid, other: Solid) -> float:
    if one.in_metres:
        return min(_inside(one, other) + REST, one.low - other.high + REST)
    return min(_beside(one, other), other.region.box_px[1] / _width(one) - one.region.box_px[3] / _width(one) + REST)


def _on(one: Solid, other: Solid) -> float:
    if one.in_metres:
        return min(_inside(one, other), other.high + REST - one.foot, one.high - other.high)
    deep = min(SLANT * _wide(other), (other.region.box_px[3] - other.region.box_px[1]) / _width(other))
    foot, other_foot = one.region.box_px[3] / _width(one), other.region.box_px[3] / _width(one)
    top = other.region.box_px[1] / _width(one)
    # The foot of what stands behind another ends where the other begins; on it, it ends in the middle of its top.
    return min(_beside(one, other), other_foot - foot, foot - top - deep / 5)


def _in(one: Solid, other: Solid) -> float:
    fits = float((other.reach - one.reach).min()) + REST
    if one.in_metres:
        low = min(one.low, one.high - ROUND * one.breadth)
        return min(_inside(one, other), fits, other.high - SUNK - low)
    return min(_on(one, other), fits)


def _under(one: Solid, other: Solid) -> float:
    if not one.in_metres:
        return _on(other, one)
    return max(_on(other, one), min(_inside(one, other), other.low + REST - one.high))


def _touching(one: Solid, other: Solid) -> float:
    apart = max(one.foot - other.high, other.foot - one.high) if one.in_metres else -1.0
    return TOUCH - max(gap_of(one, other), apart)


def _beside(one: Solid, other: Solid) -> float:
    """Returns how far the middle of one lies within the other's width in the picture."""
    return _wide(other) / 2 - abs(_x(one) - _x(other))


def _x(one: Solid) -> float:
    return (one.region.box_px[0] + one.region.box_px[2]) / 2 / _width(one)


def _wide(one: Solid) -> float:
    return (one.region.box_px[2] - one.region.box_px[0]) / _width(one)


def _width(one: Solid) -> int:
    return one.region.image_size[1]


def _close(share: float, more: float) -> Callable[[Solid, Solid], float]:
    def margin(one: Solid, other: Solid) -> float:
        return share * min(one.breadth, other.breadth) + more - gap_of(one, other)

    return margin


_TO_ANCHOR: dict[RelationKind, Callable[[Solid, Solid], float]] = {
    "left of": lambda one, other: -side_of(one, other) - SIDE,
    "right of": lambda one, other: side_of(one, other) - SIDE,
    "in front of": lambda one, other: float(other.middle[1] - one.middle[1]) - SIDE,
    "behind": lambda one, other: float(one.middle[1] - other.middle[1]) - SIDE,
    "above": _above,
    "below": lambda one, other: _above(other, one),
    "on": _on,
    "in": _in,
    "under": _under,
    "next to": _close(NEXT, NEXT_MORE),
    "near": _close(NEAR, NEAR_MORE),
    "touching": _touching,
}
_OWN: dict[RelationKind, Callable[[np.ndarray], float]] = {
    "left of": lambda own: float(own[1]) - SIDE,
    "right of": lambda own: -float(own[1]) - SIDE,
    "in front of": lambda own: float(own[0]),
    "behind": lambda own: -float(own[0]),
    "near": lambda own: AT_HAND - float(np.hypot(*own)),
}
_COMPARED: dict[SuperlativeKind, Callable[[Solid], float]] = {
    "leftmost": lambda one: -one.bearing,
    "rightmost": lambda one: one.bearing,
    "largest": lambda one: one.size,
    "smallest": lambda one: -one.size,
    "tallest": lambda one: one.tall,
    "shortest": lambda one: -one.tall,
    "highest": lambda one: _height(one),
    "lowest": lambda one: -_height(one),
}


def _height(one: Solid) -> float:
    """Returns the height of the middle, or how far up in the image it is."""
    return (one.low + one.high) / 2 if one.in_metres else -one.region.centroid_px[1] / _width(one)
