# SPDX-License-Identifier: Apache-2.0
"""Annotates a shard: reads its images, answers them, and writes what was found and the pictures.

A shard has three things: the pictures, ``NNNN.json`` with what is known of it besides, and ``NNNN.jsonl`` with a line
for each image. The last one is written last and as a whole, so that a shard is done when it is there. Whoever does it
a second time, at the same time or later, writes the same bytes.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
from PIL import ExifTags, Image

from clip_seg_ros.annotation.answering import Answering, checked_models
from clip_seg_ros.annotation.files import settle, write_whole
from clip_seg_ros.annotation.job import Job, Shard, ShardReport
from clip_seg_ros.annotation.layout import IMAGES, SHARDS
from clip_seg_ros.annotation.results import AnnotatedFrame
from clip_seg_ros.annotation.selection import Chooser
from clip_seg_ros.annotation.shards import as_numbered, stretch_of
from clip_seg_ros.annotation.source_copies import Brought, brought
from clip_seg_ros.annotation.storage import Storage, open_storage
from clip_seg_ros.data.samples import DataError
from clip_seg_ros.sources.frame import Frame, NumberedFrames, note
from clip_seg_ros.sources.frames import open_frames

_JPEG_QUALITY = 95
_COPIED = (".jpg", ".jpeg", ".png")
"""Endings of pictures that are copied byte by byte; others may not be known to everybody."""


def shard_name(job: Job, shard: Shard) -> str:
    """Returns the name of the file of a shard in the folder of the run, which is there when the shard is done."""
    return f"{SHARDS}/{job.sources[shard.source].name}/{shard.number:04d}.jsonl"


def about_name(job: Job, shard: Shard) -> str:
    """Returns the name of the file with what is known of a shard besides; see ``About``."""
    return f"{SHARDS}/{job.sources[shard.source].name}/{shard.number:04d}.json"


@dataclass(frozen=True)
class About:
    """What is known of a shard besides its images."""

    images: int
    objects: int
    notes: tuple[str, ...]
    """What could not be read, for people."""
    before: tuple[AnnotatedFrame, ...]
    """The images before its first one, as this shard sees them, by which its tracks are joined with earlier ones."""

    def to_json(self) -> str:
        """Returns it as JSON."""
        kept = {**asdict(self), "before": [json.loads(frame.to_json()) for frame in self.before]}
        return json.dumps(kept, ensure_ascii=False)

    @classmethod
    def read(cls, file: Path) -> About:
        """Reads what ``to_json`` wrote. Raises DataError if it is damaged or missing."""
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            before = tuple(AnnotatedFrame.from_json(json.dumps(each)) for each in values["before"])
            return cls(values["images"], values["objects"], tuple(values["notes"]), before)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{file} is missing or damaged ({error}): remove it and run the same command again"
            ) from error


def annotate_shard(job: Job, shard: Shard) -> ShardReport:
    """Annotates a shard, unless that is done already.

    Args:
        job: A job whose models are known (``serving.resolved``).
        shard: One of its shards.

    Returns:
        What became of it. What cannot be read is noted. Whatever else goes wrong is its fault, such as a source that
        cannot be opened, a folder that cannot be written, or too little memory, because it need not concern others.

    Raises:
        ValueError: A phrase is not understood, a model refuses it, or there is no such model.
        WeightsError: The weights of a model are missing or damaged, or there is too little memory for them.
    """
    started_s = time.monotonic()
    try:
        with open_storage(job.out) as storage:
            kept = _report_of(job, shard, storage)
    except Exception as error:
        return _failed(shard, started_s, error)
    if kept is not None:
        return kept
    checked_models(job)
    started_s = time.monotonic()
    try:
        with open_storage(job.out) as storage:
            about = _annotated(job, shard, storage)
    except Exception as error:
        return _failed(shard, started_s, error)
    return ShardReport(shard, about.images, about.objects, time.monotonic() - started_s, about.notes)


def _annotated(job: Job, shard: Shard, storage: Storage) -> About:
    source = job.sources[shard.source]
    with brought(source.spec) as files:
        frames = as_numbered(open_frames(files.spec, source.topic))
        answering = Answering(job, source, frames.kind == "still")
        about = _Work(job, shard, storage.folder, files).annotate(frames, answering)
    storage.publish(f"{IMAGES}/{source.name}")
    storage.publish(about_name(job, shard))
    storage.publish(shard_name(job, shard))
    return about


def _failed(shard: Shard, started_s: float, error: Exception) -> ShardReport:
    text = str(error)
    # Errors of ours are whole sentences; of others, the kind says what the text may leave out.
    if not text or not isinstance(error, (DataError, OSError)):
        text = f"{type(error).__name__}: {text}".removesuffix(": ")
    return ShardReport(shard, 0, 0, time.monotonic() - started_s, fault=text)


def _report_of(job: Job, shard: Shard, storage: Storage) -> ShardReport | None:
    """Returns the report of a shard that is done; ``None`` if it is not, or if a part of it was damaged."""
    if not storage.has(shard_name(job, shard)):
        return None
    try:
        storage.fetch(about_name(job, shard))
        about = About.read(storage.folder / about_name(job, shard))
    except DataError:
        return None
    return ShardReport(shard, about.images, about.objects, 0.0, about.notes)


class _Work:
    """The work on one shard.

    Args:
        job: The job.
        shard: The shard.
        folder: The folder of the run on this machine.
        files: Where the source is on this machine.
    """

    def __init__(self, job: Job, shard: Shard, folder: Path, files: Brought) -> None:
        self._job, self._shard, self._folder, self._files = job, shard, folder, files
        self._source = job.sources[shard.source]
        self._notes: list[str] = []
        self._root = _folder_of(files.spec)

    def annotate(self, frames: NumberedFrames, answering: Answering) -> About:
        """Writes the shard; returns what is known of it. Raises DataError or OSError if it cannot be written."""
        chooser, known = Chooser(self._job.selection), len(frames.faults)
        lines, before, objects = [], [], 0
        for number, frame in frames.between(stretch_of(self._job, self._shard)):
            if not chooser.takes(frame.rgb):
                continue
            try:
                annotated = self._annotated(number, frame, answering, frames.kind == "still")
            except ValueError as error:
                note(self._notes, f"{self._files.named(frame.name)} is left out: {error}")
                continue
            if number < self._shard.begin:
                before.append(annotated)
                continue
            self._write_picture(annotated.picture, frame, frames.kind == "still")
            lines.append(annotated.to_json() + "\n")
            objects += len(annotated.objects)
        for fault in (*frames.faults[known:], *answering.faults):
            note(self._notes, self._files.named(fault))
        about = About(len(lines), objects, tuple(self._notes), tuple(before))
        write_whole(self._folder / about_name(self._job, self._shard), about.to_json().encode(), is_lasting=False)
        # The shard counts as done from here on, so the pictures must outlast a loss of power, too.
        settle(self._folder)
        write_whole(self._folder / shard_name(self._job, self._shard), "".join(lines).encode())
        return about

    def _annotated(self, number: int, frame: Frame, answering: Answering, is_still: bool) -> AnnotatedFrame:
        objects, agreement = answering.answer(frame)
        return AnnotatedFrame(
            source=self._source.name,
            topic=self._source.topic or "",
            index=number,
            # Of a picture, when and where its file was written says nothing, and differs between copies.
            stamp_ns=number if is_still else frame.stamp_ns,
            name=Path(frame.name).relative_to(self._root).as_posix() if is_still else self._files.named(frame.name),
            picture=f"{IMAGES}/{self._source.name}/{number:06d}{self._suffix(frame)}",
            size=frame.rgb.shape[:2],
            objects=objects,
            agreement=agreement,
            frame_id=frame.frame_id,
        )

    def _suffix(self, frame: Frame) -> str:
        own = Path(frame.name).suffix.lower()
        return own if own in _COPIED and Path(frame.name).is_file() else self._job.picture_suffix

    def _write_picture(self, name: str, frame: Frame, is_file: bool) -> None:
        if is_file and Path(frame.name).suffix.lower() == Path(name).suffix and not _is_turned(Path(frame.name)):
            write_whole(self._folder / name, Path(frame.name).read_bytes(), is_lasting=False)
            return
        options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if name.endswith(".jpg") else []
        is_done, data = cv2.imencode(Path(name).suffix, frame.rgb[..., ::-1], options)
        if not is_done:
            raise DataError(f"{self._files.named(frame.name)} cannot be written as {name}")
        write_whole(self._folder / name, data.tobytes(), is_lasting=False)


def _folder_of(spec: str) -> Path:
    """Returns the folder that is named, that of a file, or the one in which a pattern begins."""
    path = Path(spec).expanduser()
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path


def _is_turned(file: Path) -> bool:
    """Returns whether the EXIF data of a picture say how to turn it, which not every program does that trains on it."""
    try:
        with Image.open(file) as picture:
            return picture.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False
