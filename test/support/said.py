# SPDX-License-Identifier: Apache-2.0
"""References as people describe them in a table of sentences, and whether one is what they meant."""

from __future__ import annotations

from typing import Any

from clip_seg_ros.commands.plurals import singulars
from clip_seg_ros.commands.references import Reference


def described(reference: Reference) -> dict[str, Any]:
    """Returns a reference as a row of the table: lists of names, in which "me" is the person's own place."""
    relations = [[each.kind, anchors(each.anchors)] for each in reference.relations]
    for row, relation in zip(relations, reference.relations):
        row += [relation.distance_m] if relation.distance_m is not None else []
    best = reference.superlative
    superlative = None if best is None else [best.kind, *([anchors(best.anchors)] if best.anchors else [])]
    return {
        "name": reference.name,
        "relations": relations,
        "superlative": superlative,
        "order": reference.order and [reference.order.place, reference.order.side],
        "count": reference.count,
        "exclusions": [described(each) for each in reference.exclusions],
        "how_many": reference.is_count_asked,
    }


def anchors(references: tuple[Reference, ...]) -> list[Any]:
    return [described(each) for each in references] or ["me"]


def meant(row: Any) -> Any:
    """Returns a row in the one form that rows are compared in.

    A name alone is a string or a row; a plural means the same as its singular; for a plain name, 1 and no number are
    the same, because all of that name are found; nearest to the person is nearest.
    """
    if isinstance(row, str):
        row = {"name": row}
    relations = [[kind, [meant(each) for each in things], *rest] for kind, things, *rest in row.get("relations") or []]
    superlative = row.get("superlative")
    if superlative:
        superlative = [superlative[0], [meant(each) for each in superlative[1:2] and superlative[1] if each != "me"]]
    count = row.get("count")
    return {
        "name": _singular(row["name"]),
        "relations": sorted(relations, key=str),
        "superlative": superlative or None,
        "order": row.get("order"),
        "count": None if count == 1 else count,
        "exclusions": [meant(each) for each in row.get("exclusions") or []],
        "how_many": bool(row.get("how_many")),
    }


def _singular(name: str) -> str:
    *before, last = name.split()
    forms = singulars(last)
    return " ".join([*before, (forms[-1] if forms else last).rstrip("e")])
