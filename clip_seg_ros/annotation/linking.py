# SPDX-License-Identifier: Apache-2.0
"""Reads the shards of a run as one stream, in which ids last through a whole source.

Each shard counts its tracks by itself. It has also seen the last images of the shard before (``shards.WARM_UP``), so
that both have masks of the same objects in the same images: those that overlap most are one track. An object that was
hidden in these images is recognised by its last mask, for a while. Where a near-duplicate was left out by one of them,
the images beside it are compared.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from clip_seg_ros.annotation.job import Job, Source
from clip_seg_ros.annotation.layout import SHARDS
from clip_seg_ros.annotation.results import AnnotatedFrame, AnnotatedObject, located_frames
from clip_seg_ros.annotation.shards import WARM_UP
from clip_seg_ros.annotation.worker import About

LEAST_IOU = 0.4
"""Two masks of one image are of one object if they overlap so much."""
LEAST_IOU_LATER = 0.25
"""So much, if the object was hidden between them."""


def all_frames(folder: Path, job: Job) -> Iterator[AnnotatedFrame]:
    """Yields the images of a run, in the order of its sources and of their times, with ids that last.

    Args:
        folder: The folder of the run, on this machine.
        job: The job.

    Raises:
        DataError: A file of the run is damaged; the message names it.
    """
    for source in job.sources:
        for _, _, frame in placed_frames(folder, job, source):
            yield frame


def placed_frames(folder: Path, job: Job, source: Source) -> Iterator[tuple[Path, int, AnnotatedFrame]]:
    """Yields for each image of a source the file that it is in, where its line begins, and the image, likewise."""
    linker, last = Linker(job.track_age_of(source)), -1
    for file in shard_files(folder, source.name):
        number = int(file.stem)
        linker.begin(About.read(file.with_suffix(".json")).before if number == last + 1 else ())
        last = number
        for offset, frame in located_frames(file):
            yield file, offset, linker.linked(frame)


def shard_files(folder: Path, source: str) -> list[Path]:
    """Returns the files of the shards of a source that are done, in their order."""
    return sorted((folder / SHARDS / source).glob("[0-9]*.jsonl"), key=lambda file: int(file.stem))


class Linker:
    """Gives the objects of a source ids that last, shard by shard. It keeps only what was seen last.

    Args:
        track_age_s: The time in seconds for which a hidden object is remembered, that of trackers within a shard.
    """

    def __init__(self, track_age_s: float) -> None:
        self._track_age_s, self._count = track_age_s, 0
        self._ids: dict[tuple[str, int], int] = {}
        """From a phrase and a track of the present shard."""
        self._tail: deque[AnnotatedFrame] = deque(maxlen=WARM_UP)
        """The last images, with lasting ids."""
        self._seen: dict[int, tuple[AnnotatedObject, AnnotatedFrame]] = {}
        """Where each object was seen last, by its lasting id."""
        self._lost: dict[int, tuple[AnnotatedObject, AnnotatedFrame]] = {}
        """The same at the end of the shard before; within a shard, its tracks are right."""

    def begin(self, before: Sequence[AnnotatedFrame]) -> None:
        """Begins the next shard.

        Args:
            before: The images before its first one, as this shard sees them; none if the shard before is missing.
        """
        self._ids, self._lost = {}, dict(self._seen)
        known = {frame.index: frame for frame in self._tail}
        pairs = [(known[frame.index], frame) for frame in before if frame.index in known]
        if not pairs and before and self._tail and self._tail[-1].size == before[-1].size:
            pairs = [(self._tail[-1], before[-1])]
        self._join(pairs)

    def linked(self, frame: AnnotatedFrame) -> AnnotatedFrame:
        """Returns the next image with lasting ids; ids of 0 stay."""
        self._forget(frame.stamp_ns)
        new = [each for each in frame.objects if each.track and (each.prompt, each.track) not in self._ids]
        if new:
            self._recognise(new, frame)
        for each in new:
            if (each.prompt, each.track) not in self._ids:
                self._count += 1
                self._ids[each.prompt, each.track] = self._count
        linked = frame.with_objects(
            replace(each, track=self._ids[each.prompt, each.track]) if each.track else each for each in frame.objects
        )
        self._tail.append(linked)
        for each in linked.objects:
            if each.track:
                self._seen[each.track] = (each, linked)
        return linked

    def _join(self, pairs: Iterable[tuple[AnnotatedFrame, AnnotatedFrame]]) -> None:
        """Joins tracks by images that both shards have: (as it was linked, as the present shard sees it)."""
        sums: dict[tuple[tuple[str, int], int], float] = {}
        counts: dict[tuple[tuple[str, int], int], int] = {}
        for known, seen in pairs:
            for one, other, iou in _overlaps(known.objects, seen.objects, known.size):
                key = (other.prompt, other.track), one.track
                sums[key], counts[key] = sums.get(key, 0.0) + iou, counts.get(key, 0) + 1
        self._take({key: value for key, value in sums.items() if value / counts[key] >= LEAST_IOU})

    def _recognise(self, new: Sequence[AnnotatedObject], frame: AnnotatedFrame) -> None:
        """Gives new tracks the ids of objects that were lost at the end of the shard before."""
        taken = set(self._ids.values())
        found: dict[tuple[tuple[str, int], int], float] = {}
        for lasting, (last, where) in self._lost.items():
            if lasting not in taken and where.size == frame.size:
                for _, other, iou in _overlaps([last], new, frame.size):
                    found[(other.prompt, other.track), lasting] = iou
        self._take({key: iou for key, iou in found.items() if iou >= LEAST_IOU_LATER})

    def _take(self, weights: Mapping[tuple[tuple[str, int], int], float]) -> None:
        """Joins those that overlap most, each with one other."""
        taken = set(self._ids.values())
        for own, lasting in sorted(weights, key=lambda key: (-weights[key], key)):
            if own not in self._ids and lasting not in taken:
                self._ids[own] = lasting
                taken.add(lasting)

    def _forget(self, stamp_ns: int) -> None:
        for kept in (self._seen, self._lost):
            for key in [key for key, (_, frame) in kept.items() if stamp_ns - frame.stamp_ns > self._track_age_s * 1e9]:
                del kept[key]


def _overlaps(
    ones: Iterable[AnnotatedObject], others: Sequence[AnnotatedObject], size: tuple[int, int]
) -> Iterator[tuple[AnnotatedObject, AnnotatedObject, float]]:
    """Yields objects of one phrase whose masks share pixels, with their IoU; untracked ones are left out."""
    for one in ones:
        for other in others:
            if not (one.track and other.track and one.prompt == other.prompt and _touch(one.box_px, other.box_px)):
                continue
            left, right = one.mask(size), other.mask(size)
            shared = int((left & right).sum())
            if shared:
                yield one, other, shared / (one.area_px + other.area_px - shared)


def _touch(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
