# SPDX-License-Identifier: Apache-2.0
"""Cuts sources into shards, by their images alone, so that results do not depend on who does them.

A shard has ``Job.shard_frames`` of the images that ``Selection.every`` selects. It is answered from ``WARM_UP`` such
images before its begin on, so that masks are steady, near-duplicates are known and tracks can be joined with those of
the shard before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np

from clip_seg_ros.annotation.job import Job, Shard
from clip_seg_ros.data.samples import DataError
from clip_seg_ros.sources.frame import Frames, Kind, NumberedFrames, Stretch

WARM_UP = 4
"""The number of selected images before a shard that are answered and not written."""
_BEFORE_NS = 1_000_000_000
"""How much earlier reading begins, for the depth images and camera_info that belong to the first image."""

_AGE_IMAGES = 2.5
"""For how many images an object is remembered at least."""
_MOST_AGE_S = 60.0


@dataclass(frozen=True)
class Survey:
    """What reading through a source tells."""

    kind: Kind
    places: np.ndarray
    """(N,) int64, those of its images; see ``sources.frame.NumberedFrames.places``."""
    notes: tuple[str, ...]
    """What it lacks, and what is wrong with it, for people."""

    def __len__(self) -> int:
        return len(self.places)


def as_numbered(frames: Frames) -> NumberedFrames:
    """Returns the source itself.

    Raises:
        DataError: It is a webcam, whose images cannot be read a second time.
    """
    if frames.kind == "live":
        raise DataError(f"{frames.title} gives other images each time: record it first, and annotate the recording")
    return cast(NumberedFrames, frames)


def survey(frames: NumberedFrames) -> Survey:
    """Reads through a source, as far as it can be read. Raises DataError if it has no image."""
    places = frames.places()
    if not len(places):
        raise DataError(f"{frames.title} has no images: {'; '.join(frames.faults) or 'it is empty'}")
    return Survey(frames.kind, places, (*frames.notes, *frames.faults))


def shards_of(job: Job, index: int, surveyed: Survey) -> Iterator[Shard]:
    """Yields the shards of a source, in their order; one without images has none.

    Args:
        job: The job.
        index: The index of the source in it.
        surveyed: What ``survey`` returned for the source.
    """
    places, step = surveyed.places, job.shard_frames * job.selection.every
    # Where times fall, as in some damaged recordings, no time leads to an image.
    # In a video, two images of one time could not be told apart; in a bag, all of that time are read.
    least = 1 if job.sources[index].topic is None else 0
    is_ordered = len(places) > 0 and bool((np.diff(places) >= least).all()) and places[-1] > places[0]
    leads = surveyed.kind != "still" and is_ordered
    for number, begin in enumerate(range(0, len(places), step)):
        first, place = first_needed(job, begin), None
        if leads and first > 0:
            first = int(np.searchsorted(places, places[first] - _BEFORE_NS))
            place = int(places[first]) if first > 0 else None
        yield Shard(index, number, begin, min(begin + step, len(places)), first if place is not None else 0, place)


def first_needed(job: Job, begin: int) -> int:
    """Returns the first image that is answered for a shard that begins with an image of that number."""
    return max(0, begin - WARM_UP * job.selection.every)


def stretch_of(job: Job, shard: Shard) -> Stretch:
    """Returns which images are read for a shard."""
    begin = first_needed(job, shard.begin)
    return Stretch(begin, shard.end, shard.from_number, shard.from_ns, job.selection.every)


def selected(job: Job, begin: int, end: int) -> int:
    """Returns how many of the images from ``begin`` to before ``end`` are selected, near-duplicates included."""
    every = job.selection.every
    return max(0, -(-end // every) - -(-begin // every))


def track_age_s(job: Job, surveyed: Survey) -> float:
    """Returns for how many seconds objects of a source are remembered, so that some images without them do not end
    their tracks.

    Args:
        job: The job.
        surveyed: What ``survey`` returned for the source.
    """
    is_recorded = surveyed.kind != "still" and len(surveyed) > 1
    step_s = float(np.median(np.diff(surveyed.places))) * job.selection.every / 1e9 if is_recorded else 0.0
    return round(min(_MOST_AGE_S, max(job.track_age_s, _AGE_IMAGES * step_s)), 3)
