# SPDX-License-Identifier: Apache-2.0
"""What the objects that a phrase found are related to: "blue box" of "the cup left of the blue box"."""

from __future__ import annotations

from dataclasses import dataclass

from clip_seg_ros.types import ObjectRegion


@dataclass(frozen=True, eq=False)
class Tie:
    """One relation that holds between two things of an image."""

    region: ObjectRegion
    """What is related: a found object, or the anchor of one."""
    anchor: ObjectRegion
    """What it is related to; its prompt is its own name."""
    words: str
    """The relation in a word or two: "left of"."""
    gap_m: float | None = None
    """The width of the gap between them over the ground, in metres; ``None`` where it is not known or says nothing."""

    @property
    def label(self) -> str:
        """The relation and the distance: "left of, 23 cm"."""
        return self.words if self.gap_m is None else f"{self.words}, {length(self.gap_m)}"


@dataclass(frozen=True, eq=False)
class Ties:
    """All relations that hold between the found objects of an image and other things."""

    ties: tuple[Tie, ...] = ()

    @property
    def anchors(self) -> tuple[ObjectRegion, ...]:
        """What anything is related to, each once; an anchor may itself be related to another one."""
        return tuple({id(tie.anchor): tie.anchor for tie in self.ties}.values())

    def indices(self, region: ObjectRegion) -> list[int]:
        """Returns which of ``anchors`` an object, or an anchor, is related to."""
        order = {id(anchor): index for index, anchor in enumerate(self.anchors)}
        return list(dict.fromkeys(order[id(tie.anchor)] for tie in self.ties if tie.region is region))


NO_TIES = Ties()


def length(amount_m: float) -> str:
    """Returns a distance in metres for people: "3 cm", "1.2 m"; at least 1 cm."""
    return f"{max(1, round(100 * amount_m))} cm" if amount_m < 0.995 else f"{amount_m:.1f} m"
