# SPDX-License-Identifier: Apache-2.0
"""Referring expressions about tabletop scenes, for objects that colour and kind do not distinguish.

"the cup left of the blue box", "the largest ball", "the can behind the bottle". An expression is made only if it is
necessary (its noun alone fits two objects or more) and unambiguous (one object fits, and no other one nearly does).

Left and right are those of the image. Largest and smallest refer to the number of visible pixels. Nearest and farthest,
in front of and behind refer to the distance from the camera along the ground.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from clip_seg_ros.sim.naming import COLOR_WORDS, KIND_WORDS
from clip_seg_ros.sim.scene import Pattern, Scene

_SIZE_RATIO = 1.35
_SIDE_MARGIN = 0.06
"""The least distance, as a share of the image's width."""
_DEPTH_MARGIN_M = 0.05
_NEXT_RATIO = 1.5

SUPERLATIVES: dict[str, tuple[str, ...]] = {
    "largest": ("the largest {}", "the biggest {}"),
    "smallest": ("the smallest {}",),
    "leftmost": ("the leftmost {}", "the {} on the left"),
    "rightmost": ("the rightmost {}", "the {} on the right"),
    "nearest": ("the nearest {}", "the closest {}"),
    "farthest": ("the farthest {}",),
}
RELATIONS: dict[str, tuple[str, ...]] = {
    "left of": ("the {} left of the {}", "the {} to the left of the {}"),
    "right of": ("the {} right of the {}", "the {} to the right of the {}"),
    "in front of": ("the {} in front of the {}",),
    "behind": ("the {} behind the {}",),
    "next to": ("the {} next to the {}", "the {} closest to the {}"),
}


@dataclass(frozen=True)
class SeenObject:
    """The properties of an object that expressions refer to."""

    label: int
    """The value of the object in the label image."""
    color: str
    kind: str
    x: float
    """The centroid of its visible pixels, as a share of the image's width."""
    area: int
    """The number of its visible pixels."""
    ground: tuple[float, float]
    """Its position in metres as seen from the camera: (to the right, away)."""

    @property
    def depth_m(self) -> float:
        """The distance from the camera along the ground, in the direction in which the camera looks."""
        return self.ground[1]


@dataclass(frozen=True)
class Expression:
    """A phrase that means one object."""

    text: str
    relation: str
    """A key of ``SUPERLATIVES`` or ``RELATIONS``."""
    label: int
    """The label of the object that is meant."""


def ground_positions(scene: Scene) -> np.ndarray:
    """Returns (N, 2) float: the position of every object in metres, to the camera's right and away from it."""
    eye, target = np.array(scene.camera.eye[:2]), np.array(scene.camera.target[:2])
    away = (target - eye) / np.linalg.norm(target - eye)
    right = np.array([away[1], -away[0]])
    places = np.array([item.position[:2] for item in scene.objects]).reshape(-1, 2) - eye
    return places @ np.stack([right, away], axis=1)


def seen_objects(
    labels: np.ndarray, pairs: Sequence[tuple[str, str]], ground: np.ndarray, min_share: float
) -> list[SeenObject]:
    """Lists the objects that cover at least ``min_share`` of an image.

    Args:
        labels: (H, W) uint8: 0 = no object, otherwise 1 + index in ``pairs``.
        pairs: The (colour, kind) of each object.
        ground: (N, 2) from ``ground_positions``; if the image is mirrored, its first column must be, too.
        min_share: The least share of the image's pixels, 0..1.
    """
    count = len(pairs) + 1
    areas = np.bincount(labels.ravel(), minlength=count)
    columns = np.arange(labels.shape[1])
    sums = np.bincount(labels.ravel(), weights=np.broadcast_to(columns, labels.shape).ravel(), minlength=count)
    return [
        SeenObject(
            label,
            color,
            kind,
            float(sums[label] / areas[label] / labels.shape[1]),
            int(areas[label]),
            (float(ground[label - 1, 0]), float(ground[label - 1, 1])),
        )
        for label, (color, kind) in enumerate(pairs, start=1)
        if areas[label] >= max(1.0, min_share * labels.size)
    ]


def all_expressions(seen: Sequence[SeenObject]) -> list[tuple[str, int, Pattern, Pattern | None]]:
    """Returns every unambiguous expression about the objects of one image, before it is put into words.

    Returns:
        (relation, label of the object meant, its pattern, pattern of the other object or ``None``).
    """
    found: list[tuple[str, int, Pattern, Pattern | None]] = []
    for pattern in _patterns(seen):
        group = [item for item in seen if _fits(pattern, item)]
        if len(group) < 2:
            continue
        for relation, rank in _RANKS.items():
            best = rank(group)
            if best is not None:
                found.append((relation, best.label, pattern, None))
        for anchor, anchor_pattern in _anchors(seen, group):
            for relation, holds in _HOLDS.items():
                target = holds(group, anchor)
                if target is not None:
                    found.append((relation, target.label, pattern, anchor_pattern))
    return found


def sample_expression(
    rng: np.random.Generator, seen: Sequence[SeenObject], preferred: str | None = None
) -> Expression | None:
    """Draws an expression; returns ``None`` if no expression is unambiguous.

    Each relation has the same chance, unless there is an expression of the ``preferred`` one.
    """
    options = all_expressions(seen)
    if not options:
        return None
    relations = sorted({option[0] for option in options})
    relation = preferred if preferred in relations else relations[int(rng.integers(len(relations)))]
    options = [option for option in options if option[0] == relation]
    _, label, pattern, anchor = options[int(rng.integers(len(options)))]
    return Expression(_worded(rng, relation, pattern, anchor), relation, label)


def expression_words() -> tuple[str, ...]:
    """Returns every word that expressions use besides the names of colours and kinds."""
    wordings = (wording for group in (SUPERLATIVES, RELATIONS) for several in group.values() for wording in several)
    return tuple(dict.fromkeys(word for wording in wordings for word in wording.replace("{}", "object").split()))


def _worded(rng: np.random.Generator, relation: str, pattern: Pattern, anchor: Pattern | None) -> str:
    wordings = (SUPERLATIVES if anchor is None else RELATIONS)[relation]
    wording = wordings[int(rng.integers(len(wordings)))]
    return wording.format(*(_noun(rng, each) for each in (pattern, anchor) if each is not None))


def _noun(rng: np.random.Generator, pattern: Pattern) -> str:
    color, kind = pattern
    kinds = KIND_WORDS[kind] if kind else ("object",)
    noun = kinds[int(rng.integers(len(kinds)))]
    return f"{COLOR_WORDS[color][int(rng.integers(len(COLOR_WORDS[color])))]} {noun}" if color else noun


def _fits(pattern: Pattern, item: SeenObject) -> bool:
    return pattern[0] in (None, item.color) and pattern[1] in (None, item.kind)


def _patterns(seen: Sequence[SeenObject]) -> list[Pattern]:
    """Returns the nouns that two objects or more may share: kinds, colours, and both."""
    kinds = [(None, item.kind) for item in seen]
    colors = [(item.color, None) for item in seen]
    return list(dict.fromkeys([*kinds, *colors, *((item.color, item.kind) for item in seen)]))


def _anchors(seen: Sequence[SeenObject], group: Sequence[SeenObject]) -> list[tuple[SeenObject, Pattern]]:
    """Returns the objects outside ``group`` that have a unique noun: a kind if possible, else a colour and a kind."""
    anchors: list[tuple[SeenObject, Pattern]] = []
    for item in seen:
        if item in group:
            continue
        for pattern in ((None, item.kind), (item.color, item.kind)):
            if sum(_fits(pattern, other) for other in seen) == 1:
                anchors.append((item, pattern))
    return anchors


def _first_by(value: Callable[[SeenObject], float], margin: float, ratio: bool = False):
    """Finds the object with the highest value, if the second one is lower by ``margin`` (a difference or a ratio)."""

    def rank(group: Sequence[SeenObject]) -> SeenObject | None:
        first, second = sorted(group, key=value, reverse=True)[:2]
        clear = value(first) >= value(second) * margin if ratio else value(first) - value(second) >= margin
        return first if clear else None

    return rank


_RANKS = {
    "largest": _first_by(lambda item: item.area, _SIZE_RATIO, ratio=True),
    "smallest": _first_by(lambda item: 1 / item.area, _SIZE_RATIO, ratio=True),
    "leftmost": _first_by(lambda item: -item.x, _SIDE_MARGIN),
    "rightmost": _first_by(lambda item: item.x, _SIDE_MARGIN),
    "nearest": _first_by(lambda item: -item.depth_m, _DEPTH_MARGIN_M),
    "farthest": _first_by(lambda item: item.depth_m, _DEPTH_MARGIN_M),
}


def _only_beyond(value: Callable[[SeenObject], float], margin: float):
    """Finds the one object that is ``margin`` above the anchor, if all others are ``margin`` below it."""

    def holds(group: Sequence[SeenObject], anchor: SeenObject) -> SeenObject | None:
        offsets = [value(item) - value(anchor) for item in group]
        if any(abs(offset) < margin for offset in offsets) or sum(offset > 0 for offset in offsets) != 1:
            return None
        return group[int(np.argmax(offsets))]

    return holds


def _next_to(group: Sequence[SeenObject], anchor: SeenObject) -> SeenObject | None:
    """Returns the object nearest to the anchor, if every other one is at least half as far again."""
    distances = np.array([np.hypot(*np.subtract(item.ground, anchor.ground)) for item in group])
    first, second = np.argsort(distances)[:2]
    return group[int(first)] if distances[second] >= _NEXT_RATIO * distances[first] else None


_HOLDS = {
    "left of": _only_beyond(lambda item: -item.x, _SIDE_MARGIN),
    "right of": _only_beyond(lambda item: item.x, _SIDE_MARGIN),
    "in front of": _only_beyond(lambda item: -item.depth_m, _DEPTH_MARGIN_M),
    "behind": _only_beyond(lambda item: item.depth_m, _DEPTH_MARGIN_M),
    "next to": _next_to,
}
