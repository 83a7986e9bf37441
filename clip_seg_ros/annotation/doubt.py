# SPDX-License-Identifier: Apache-2.0
"""How doubtful what a run found is, and why: a few numbers for each object, made in one pass over the run's images."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from clip_seg_ros.annotation.job import Job
from clip_seg_ros.annotation.linking import all_frames, placed_frames
from clip_seg_ros.annotation.manifest import read_job
from clip_seg_ros.annotation.results import AnnotatedFrame, AnnotatedObject, frame_at
from clip_seg_ros.data.samples import DataError

MARGIN, SINGLE, GAP, JUMP, DISAGREEMENT, BAND, MISSING = (1 << bit for bit in range(7))
REASONS = {
    "low margin": MARGIN,
    "flicker": SINGLE | GAP | JUMP | MISSING,
    "second model": DISAGREEMENT,
    "not sure": BAND,
}
"""The kinds of doubt, by the names under which people choose them."""
LOW_MARGIN = 0.3
"""The margin below which an object is doubtful."""
GAP_IMAGES = 10
"""An object that is away for more images than this has left, and does not flicker."""
AREA_JUMP = 1.8
"""How many times as large a mask is as in the neighbouring image when that is doubtful."""
LEAST_OVERLAP = 0.2
"""The IoU of the boxes of an object in neighbouring images below which that is doubtful."""
GOOD_AGREEMENT = 0.7
_DOUBT = {SINGLE: 0.7, GAP: 0.5, MISSING: 0.6, BAND: 0.25}
_MARGIN_DOUBT, _DISAGREEMENT_DOUBT, _JUMP_DOUBT = 0.8, 0.9, 0.5


@dataclass
class _Last:
    """Where a track was seen last."""

    image: int
    object: int
    area_px: int
    box_px: tuple[int, int, int, int]
    is_cut: bool
    times: int


@dataclass
class _Columns:
    """The numbers as they are gathered."""

    files: list[Path] = field(default_factory=list)
    sources: dict[str, int] = field(default_factory=dict)
    phrases: dict[str, int] = field(default_factory=dict)
    image_source: array = field(default_factory=lambda: array("i"))
    image_index: array = field(default_factory=lambda: array("q"))
    image_file: array = field(default_factory=lambda: array("i"))
    image_offset: array = field(default_factory=lambda: array("q"))
    image_first: array = field(default_factory=lambda: array("q"))
    image_agreement: array = field(default_factory=lambda: array("f"))
    image_reasons: array = field(default_factory=lambda: array("B"))
    track: array = field(default_factory=lambda: array("i"))
    phrase: array = field(default_factory=lambda: array("i"))
    score: array = field(default_factory=lambda: array("f"))
    margin: array = field(default_factory=lambda: array("f"))
    jump: array = field(default_factory=lambda: array("f"))
    reasons: array = field(default_factory=lambda: array("B"))


class DoubtIndex:
    """All images and objects of a run as columns of numbers, without masks and names.

    Args:
        out: The folder of the run, which is read once.

    Raises:
        DataError: There are no results, or they are damaged.
    """

    def __init__(self, out: Path) -> None:
        self.job = read_job(out)
        self._out = out
        gathered = _gathered(out, self.job)
        if not len(gathered.image_index):
            raise DataError(f"{out} has no images yet: run clip-seg annotate until the end of its first part")
        self.sources, self.phrases = list(gathered.sources), list(gathered.phrases)
        self._files = gathered.files
        self._file, self._offset = _of(gathered.image_file), _of(gathered.image_offset)
        self.source = _of(gathered.image_source)
        """(M,) int32: the source of each image."""
        self.index = _of(gathered.image_index)
        """(M,) int64: the number of each image in its source."""
        self.first = np.append(_of(gathered.image_first), len(gathered.track))
        """(M + 1,) int64: the first object of each image, and the number of objects N."""
        self.agreement = _of(gathered.image_agreement)
        """(M,) float32, NaN without a second model."""
        self.image_reasons = _of(gathered.image_reasons)
        self.track, self.phrase, self.score = _of(gathered.track), _of(gathered.phrase), _of(gathered.score)
        self.margin, self.jump, self.reasons = _of(gathered.margin), _of(gathered.jump), _of(gathered.reasons)
        """(N,): for each object, ``jump`` how many times its area changes, and ``reasons`` as bits."""
        self.image = np.repeat(np.arange(len(self.index), dtype=np.int32), np.diff(self.first))
        """(N,) int32: the image of each object."""
        self.doubt = self._object_doubt()
        """(N,) float32, 0..1."""
        self.image_doubt = self._image_doubt()
        """(M,) float32, 0..1: that of its most doubtful object, or of what may be missing in it."""
        self.order = np.argsort(-self.image_doubt, kind="stable").astype(np.int32)
        """(M,) int32: the images, the most doubtful first."""
        self._by_track = np.lexsort((self.track, self.source[self.image])).astype(np.int32)
        self._track_keys = self._keys(self.source[self.image], self.track)[self._by_track]
        self._by_name = np.lexsort((self.index, self.source)).astype(np.int32)
        self._name_keys = self._keys(self.source, self.index)[self._by_name]

    def __len__(self) -> int:
        return len(self.index)

    def read(self, image: int) -> AnnotatedFrame:
        """Reads an image again, with ids that last.

        Raises:
            DataError: The file has changed meanwhile.
            OSError: It cannot be read.
        """
        frame = frame_at(self._files[self._file[image]], int(self._offset[image]))
        tracks = self.track[self.first[image] : self.first[image + 1]].tolist()
        if len(tracks) != len(frame.objects):
            raise DataError(f"{self._files[self._file[image]]} has changed since the review began; start it anew")
        pairs = zip(frame.objects, tracks, strict=True)
        return frame.with_objects(replace(each, track=track) for each, track in pairs)

    def frames(self) -> Iterator[AnnotatedFrame]:
        """Yields all images in the order of sources and times."""
        return all_frames(self._out, self.job)

    def number_of(self, source: str, index: int) -> int | None:
        """Returns the number of an image; ``None`` if there is none."""
        if source not in self.sources:
            return None
        key = self._keys(np.array([self.sources.index(source)]), np.array([index]))[0]
        at = int(np.searchsorted(self._name_keys, key))
        return int(self._by_name[at]) if at < len(self) and self._name_keys[at] == key else None

    def objects_of(self, source: str, track: int) -> np.ndarray:
        """Returns the numbers of the objects of a track, int32."""
        if source not in self.sources:
            return np.zeros(0, np.int32)
        key = self._keys(np.array([self.sources.index(source)]), np.array([track]))[0]
        begin, end = (int(np.searchsorted(self._track_keys, key, side)) for side in ("left", "right"))
        return self._by_track[begin:end]

    def images_of(self, source: str, track: int) -> np.ndarray:
        """Returns the images that show a track, int32."""
        return np.unique(self.image[self.objects_of(source, track)])

    @staticmethod
    def _keys(source: np.ndarray, number: np.ndarray) -> np.ndarray:
        """Returns (source, number) as one integer; numbers are below 2^40."""
        return source.astype(np.int64) << 40 | number.astype(np.int64)

    def _object_doubt(self) -> np.ndarray:
        sure = np.ones(len(self.score), np.float32)
        for reason in (SINGLE, GAP, BAND):
            sure[self.reasons & reason != 0] *= 1 - _DOUBT[reason]
        low = np.clip(1 - self.margin / LOW_MARGIN, 0, 1)
        sure *= 1 - _MARGIN_DOUBT * low
        sure[self.reasons & JUMP != 0] *= 1 - _JUMP_DOUBT
        return 1 - sure * self._agreed()[self.image]

    def _agreed(self) -> np.ndarray:
        share = np.clip((GOOD_AGREEMENT - self.agreement) / GOOD_AGREEMENT, 0, 1)
        return np.where(np.isnan(share), 1, 1 - _DISAGREEMENT_DOUBT * share).astype(np.float32)

    def _image_doubt(self) -> np.ndarray:
        doubt = 1 - self._agreed()
        missing = self.image_reasons & MISSING != 0
        doubt[missing] = 1 - (1 - doubt[missing]) * (1 - _DOUBT[MISSING])
        np.maximum.at(doubt, self.image, self.doubt)
        return doubt


def _of(column: array) -> np.ndarray:
    return np.frombuffer(column, np.dtype(column.typecode)).copy() if len(column) else np.zeros(0, column.typecode)


def _gathered(out: Path, job: Job) -> _Columns:
    columns = _Columns(phrases={phrase.text: number for number, phrase in enumerate(job.phrases)})
    for source in job.sources:
        columns.sources.setdefault(source.name, len(columns.sources))
        flicker = _Flicker(columns)
        for path, offset, frame in placed_frames(out, job, source):
            if not columns.files or columns.files[-1] != path:
                columns.files.append(path)
            _gather(columns, frame, offset)
            flicker.look(frame)
        flicker.finish()
    return columns


def _gather(columns: _Columns, frame: AnnotatedFrame, offset: int) -> None:
    agreement = math.nan if frame.agreement is None else frame.agreement
    disagrees = DISAGREEMENT if agreement < GOOD_AGREEMENT else 0
    columns.image_source.append(columns.sources[frame.source])
    columns.image_index.append(frame.index)
    columns.image_file.append(len(columns.files) - 1)
    columns.image_offset.append(offset)
    columns.image_first.append(len(columns.track))
    columns.image_agreement.append(agreement)
    columns.image_reasons.append(disagrees)
    for each in frame.objects:
        low = MARGIN if each.margin < LOW_MARGIN else 0
        columns.track.append(each.track)
        columns.phrase.append(columns.phrases.setdefault(each.prompt, len(columns.phrases)))
        columns.score.append(each.score)
        columns.margin.append(each.margin)
        columns.jump.append(1.0)
        columns.reasons.append(low | disagrees | (BAND if each.band == "doubtful" else 0))


class _Flicker:
    """Notes what comes and goes among the objects of a source, image by image."""

    def __init__(self, columns: _Columns) -> None:
        self._columns = columns
        self._first = len(columns.image_index)
        self._tracks: dict[int, _Last] = {}

    def look(self, frame: AnnotatedFrame) -> None:
        """Looks at the newest image of the columns."""
        image = len(self._columns.image_index) - 1
        first = self._columns.image_first[image]
        for number, each in enumerate(frame.objects, start=first):
            if each.track:
                seen = _Last(image, number, each.area_px, each.box_px, _is_cut(each, frame), 1)
                last = self._tracks.get(each.track)
                if last is not None and last.image < image:
                    self._compare(last, seen)
                self._tracks[each.track] = seen
        for track in [track for track, last in self._tracks.items() if image - last.image > GAP_IMAGES]:
            self._forget(self._tracks.pop(track))

    def finish(self) -> None:
        """Ends the source: what is in its last image alone may have come just then."""
        newest = len(self._columns.image_index) - 1
        for last in self._tracks.values():
            if last.image < newest:
                self._forget(last)

    def _compare(self, last: _Last, seen: _Last) -> None:
        columns = self._columns
        seen.times = last.times + 1
        away = range(last.image + 1, seen.image)
        if len(away):
            reason = GAP
            for image in away:
                columns.image_reasons[image] |= MISSING
        else:
            ratio = max(last.area_px, seen.area_px) / max(1, min(last.area_px, seen.area_px))
            # What enters or leaves the picture grows and shrinks.
            grows = ratio > AREA_JUMP and not (last.is_cut or seen.is_cut)
            if not grows and _overlap(last.box_px, seen.box_px) >= LEAST_OVERLAP:
                return
            reason = JUMP
            for number in (last.object, seen.object):
                columns.jump[number] = max(columns.jump[number], ratio if grows else 1.0)
        for number in (last.object, seen.object):
            columns.reasons[number] |= reason

    def _forget(self, last: _Last) -> None:
        if last.times == 1 and last.image > self._first:
            self._columns.reasons[last.object] |= SINGLE


def _is_cut(each: AnnotatedObject, frame: AnnotatedFrame) -> bool:
    (x_min, y_min, x_max, y_max), (height, width) = each.box_px, frame.size
    return x_min <= 0 or y_min <= 0 or x_max >= width or y_max >= height


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0, width) * max(0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / max(1, sum(areas) - shared)


def object_words(index: DoubtIndex, number: int) -> list[str]:
    """Returns why an object is doubtful, in words; empty if it is not."""
    reasons, score, margin = int(index.reasons[number]), index.score[number], index.margin[number]
    said = []
    if reasons & SINGLE:
        said.append("it is in this image alone")
    if reasons & GAP:
        said.append("it is missing in a neighbouring image")
    if reasons & JUMP:
        times = index.jump[number]
        said.append(f"its size jumps to {times:.1f} times" if times > 1 else "it jumps to another place")
    if reasons & MARGIN:
        said.append(f"its score {score:.2f} is hardly above the threshold (margin {margin:.2f})")
    elif reasons & BAND:
        said.append(f"its score {score:.2f} does not count as sure")
    return said


def image_words(index: DoubtIndex, image: int) -> list[str]:
    """Returns why an image as a whole is doubtful, in words; empty if it is not."""
    said = []
    if index.image_reasons[image] & MISSING:
        said.append("an object of the images before and after is missing")
    if index.image_reasons[image] & DISAGREEMENT:
        said.append(f"the second model agrees to {index.agreement[image]:.0%} only")
    return said
