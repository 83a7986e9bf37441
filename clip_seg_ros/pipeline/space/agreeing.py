# SPDX-License-Identifier: Apache-2.0
"""What geometry says of a phrase, beside what a model says that understands whole phrases itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from clip_seg_ros.pipeline.space import sayings
from clip_seg_ros.pipeline.space.relations import Fit, Resolution, shared_px
from clip_seg_ros.types import ObjectRegion

SAME = 0.5
"""Both mean one object where the IoU of their masks is greater than this."""
CLEAR = 0.73
"""Geometry is clear if its relations hold as well as this, 0..1: by 2 cm."""


@dataclass(frozen=True)
class Agreement:
    """The objects that both ways together find."""

    fits: tuple[Fit, ...]
    """Those that geometry chose, or that the model chose among several that fit."""
    sentence: str
    """What was found, or why nothing, and where both differ, for people."""


def agree(answer: Resolution, own: Sequence[ObjectRegion]) -> Agreement:
    """Compares what geometry chose with what the model chose.

    What both choose is more certain. If more fit than are wanted, the model chooses among them. Otherwise geometry
    decides, and the sentence tells where the model points unless geometry is clear.

    Args:
        answer: What geometry says.
        own: What the model found for the whole phrase, the best first.
    """
    seen = [fit for fit in answer.fits if any(_is_same(fit.region, one) for one in own)]
    surer = tuple(_surer(fit, own) for fit in answer.fits)
    wanted = answer.reference.count or 1
    if answer.state == "ambiguous" and 0 < len(seen) <= wanted:
        chosen = tuple(fit for fit in surer if any(fit.region.id == one.region.id for one in seen))
        which = "that the model points at"
        return Agreement(chosen, f"{sayings.found(answer.reference, len(chosen))}, of {answer.count} that fit, {which}")
    if answer.state != "found" or not own:
        points = f"; the model alone points at {_what(answer, own)}" if own and not seen else ""
        return Agreement(answer.fits, answer.sentence + points)
    if len(seen) == len(answer.fits):
        return Agreement(surer, f"{answer.sentence}; the model agrees")
    is_clear = all(fit.score >= CLEAR * fit.region.score for fit in answer.fits)
    differs = "" if is_clear else f"; the model points at {_what(answer, own)}: say more of which you mean"
    return Agreement(surer, answer.sentence + differs)


def _is_same(one: ObjectRegion, other: ObjectRegion) -> bool:
    shared = shared_px(one, other)
    return shared > SAME * (one.area_px + other.area_px - shared)


def _surer(fit: Fit, own: Sequence[ObjectRegion]) -> Fit:
    """Raises the score of a region that the model points at, too: it is wrong only if both are."""
    alike = [one for one in own if _is_same(fit.region, one)]
    if not alike:
        return fit
    score = 1 - (1 - fit.region.score) * (1 - alike[0].score)
    return replace(fit, region=replace(fit.region, score=score))


def _what(answer: Resolution, own: Sequence[ObjectRegion]) -> str:
    """Returns what the model points at: "another cup", or how many."""
    name = answer.reference.name
    if len(own) > 1:
        return sayings.counted(len(own), name)
    return f"{'another' if answer.fits else 'one'} {sayings.singular(name)}"
