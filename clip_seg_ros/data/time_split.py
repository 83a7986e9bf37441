# SPDX-License-Identifier: Apache-2.0
"""Which images of recordings are held out: the last fifth of the time, because neighbouring images look alike.

Topics of one recording, whose times overlap, are cut at the same time, so that no camera sees in training what another
one is measured on. A twentieth of the time before the cut belongs to neither part. Of sources with only few images,
every fifth is held out as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

Part = Literal["train", "between", "val"]
HELD_OUT = 0.2
"""The share of the time that is held out."""
GAP = 0.05
"""The share of the time before it that belongs to neither part."""
_FEW = 5
"""Sources of fewer images belong to one part as a whole."""
_GAP_FROM = 20
"""The number of images of a source from which there is a gap."""


@dataclass(frozen=True)
class Taken:
    """Where an image comes from."""

    source: str
    topic: str
    """Its topic in a bag; empty for others."""
    stamp_ns: int
    """When it was taken, by the clock of its source; only bags have a clock that counts here."""


@dataclass
class _Group:
    """Sources that are cut at the same time: one folder or video, or topics of one recording."""

    begin_ns: int
    end_ns: int
    images: int
    """The number of images of its largest source."""
    number: int = 0
    """Its place among the groups with few images."""

    def place(self, image: Taken, position: int) -> float:
        """Returns where an image lies in the group, 0..1; ``position`` is its number among those of its source."""
        if not image.topic or self.end_ns == self.begin_ns:
            return (position + 0.5) / self.images
        return (image.stamp_ns - self.begin_ns) / (self.end_ns - self.begin_ns)

    def part(self, image: Taken, position: int) -> Part:
        """Returns the part of an image."""
        if self.images < _FEW:
            return "val" if self.number % _FEW == _FEW - 1 else "train"
        place = self.place(image, position)
        if place >= 1 - HELD_OUT:
            return "val"
        return "between" if self.images >= _GAP_FROM and place >= 1 - HELD_OUT - GAP else "train"


def time_parts(images: Callable[[], Iterable[Taken]]) -> Iterator[Part]:
    """Yields the part of each image.

    Args:
        images: Returns all images in the order of the sources, the same at each of two calls.
    """
    groups = _groups(images())
    position: dict[str, int] = {}
    for image in images():
        position[image.source] = position.get(image.source, -1) + 1
        yield groups[image.source].part(image, position[image.source])


def _groups(images: Iterable[Taken]) -> dict[str, _Group]:
    """Returns the group of each source."""
    alone: dict[str, _Group] = {}
    clocked: list[str] = []
    for image in images:
        group = alone.get(image.source)
        if group is None:
            alone[image.source] = _Group(image.stamp_ns, image.stamp_ns, 1)
            if image.topic:
                clocked.append(image.source)
        else:
            group.begin_ns, group.end_ns = min(group.begin_ns, image.stamp_ns), max(group.end_ns, image.stamp_ns)
            group.images += 1
    joined = _joined(alone, clocked)
    few = 0
    for group in {id(group): group for group in joined.values()}.values():
        if group.images < _FEW:
            group.number, few = few, few + 1
    return joined


def _joined(alone: dict[str, _Group], clocked: list[str]) -> dict[str, _Group]:
    """Joins the sources whose times overlap, of those that have a clock in common."""
    joined = dict(alone)
    last: _Group | None = None
    for source in sorted(clocked, key=lambda name: alone[name].begin_ns):
        group = alone[source]
        if last is not None and group.begin_ns <= last.end_ns:
            last.end_ns, last.images = max(last.end_ns, group.end_ns), max(last.images, group.images)
        else:
            last = group
        joined[source] = last
    return joined
