# SPDX-License-Identifier: Apache-2.0
"""Sentences that say what a reference found, or why nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from clip_seg_ros.commands.plurals import singulars
from clip_seg_ros.commands.references import Reference, Relation, Side, SuperlativeKind
from clip_seg_ros.pipeline import ties
from clip_seg_ros.pipeline.space.placing import value_of
from clip_seg_ros.pipeline.space.solids import Solid

_IRREGULAR = {"knife": "knives", "shelf": "shelves", "loaf": "loaves", "person": "people", "man": "men"} | {
    "woman": "women",
    "child": "children",
    "mouse": "mice",
    "tooth": "teeth",
    "foot": "feet",
}
_LONG = ("xes", "ches", "shes", "sses")
"""Endings of plurals to which a whole syllable was added."""
_OFFERED: tuple[tuple[SuperlativeKind, str, float], ...] = (
    ("nearest", "the nearest", 0.03),
    ("leftmost", "the left one", 0.03),
    ("largest", "the largest", 0.015),
)
"""What tells things apart, with the least difference of what it compares."""


def counted(number: int, name: str) -> str:
    """Returns a number with a name: "no cup", "1 red cup", "2 red cups"."""
    return f"{number} {plural(name)}" if number > 1 else f"{number or 'no'} {singular(name)}"


def plural(name: str) -> str:
    """Returns the plural of a name, whose last word changes: "red boxes"; a plural stays."""
    start, space, word = name.rpartition(" ")
    return name if singulars(word) else start + space + _plural(word)


def singular(name: str) -> str:
    """Returns the singular of a name, whose last word changes: "red box"; a singular stays."""
    start, space, word = name.rpartition(" ")
    meant = [each for each in singulars(word) if _plural(each) == word]
    if not meant:
        return name
    return start + space + (min(meant, key=len) if word.endswith(_LONG) else meant[0])


def _plural(word: str) -> str:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith(("x", "ch", "sh", "s")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def the(reference: Reference) -> str:
    """Returns a reference in words: "the blue box", "the largest cup left of the bowl", "the 2 cups"."""
    several = reference.count is not None and reference.count > 1
    name = f"{reference.count} {plural(reference.name)}" if several else singular(reference.name)
    if reference.superlative is not None:
        name = f"{reference.superlative.kind} {name}"
    words = f"the {name}{conditions(reference)}"
    if reference.superlative is not None and reference.superlative.anchors:
        link = "to" if reference.superlative.kind == "nearest" else "from"
        words += f" {link} {' and '.join(map(the, reference.superlative.anchors))}"
    return f"{words}, {reference.order}" if reference.order is not None else words


def conditions(reference: Reference) -> str:
    """Returns the relations of a reference with a space before them: " left of the blue box and near the bowl"."""
    return " " + " and ".join(map(_condition, reference.relations)) if reference.relations else ""


def _condition(relation: Relation) -> str:
    if not relation.anchors:
        return f"{relation.kind} me"
    anchors = " and ".join(map(the, relation.anchors))
    if relation.distance_m is not None:
        return f"within {length(relation.distance_m, True)} of {anchors}"
    return f"{relation.kind} {anchors}"


def relation_words(relation: Relation) -> str:
    """Returns a relation without its anchors: "left of", "within 30 cm"."""
    far = relation.distance_m
    return relation.kind if far is None else f"{relation.kind} {ties.length(far)}"


def length(amount: float, in_metres: bool) -> str:
    """Returns a distance for people: "3 cm", "1.2 m", or without depth "4 % of the picture's width"."""
    return ties.length(amount) if in_metres else f"{max(1, round(100 * amount))} % of the picture's width"


def found(reference: Reference, number: int) -> str:
    """Returns what was found: "1 cup left of the blue box", "the largest cup"."""
    if reference.superlative is not None or reference.order is not None:
        return the(reference)
    return counted(number, reference.name) + conditions(reference)


def not_there(reference: Reference) -> str:
    """Returns that there is nothing of a name."""
    return f"no {singular(reference.name)}"


def all_excluded(reference: Reference, number: int) -> str:
    """Returns that nothing is left after the exclusions."""
    left_out = " and ".join(map(the, reference.exclusions))
    return f"{counted(number, reference.name)}, none besides {left_out}"


def missed(reference: Reference, number: int, miss: float, in_metres: bool) -> str:
    """Returns that nothing fits, and by how much the best one fails."""
    start = f"{counted(number, reference.name)}, {'not' if number == 1 else 'none'}{conditions(reference)}"
    return f"{start}; nearest miss: {length(miss, in_metres)}" if miss < float("inf") else start


def unplaced(reference: Reference, why: str) -> str:
    """Returns that what a thing relates to was not found."""
    return f"{why}: the {singular(reference.name)} cannot be placed"


def too_few(reference: Reference, number: int) -> str:
    """Returns that there are fewer than asked for."""
    wanted = str(reference.order) if reference.order is not None else f"not {reference.count}"
    start = counted(number, reference.name) + conditions(reference)
    return f"only {start}, {'no ' if reference.order is not None else ''}{wanted}"


def say_which(reference: Reference, fitting: Sequence[Solid]) -> str:
    """Returns that more fit than were asked for, and what would tell them apart."""
    offers = []
    for kind, words, least in _OFFERED:
        values = sorted((value_of(kind, each) for each in fitting), reverse=True)
        if all(above - below >= least for above, below in pairwise(values[:2])):
            offers.append(words)
    which = "; " + ", ".join(offers) if offers else ""
    return f"{counted(len(fitting), reference.name)}{conditions(reference)} fit: say which{which}"


def side_kind(side: Side) -> SuperlativeKind:
    """Returns the superlative of what comes first from a side."""
    kinds: dict[Side, SuperlativeKind] = {
        "left": "leftmost",
        "right": "rightmost",
        "near": "nearest",
        "far": "farthest",
        "top": "highest",
        "bottom": "lowest",
        "largest": "largest",
        "smallest": "smallest",
    }
    return kinds[side]
