# SPDX-License-Identifier: Apache-2.0
"""A whole run: looks at its sources, has its shards done, and writes the data set.

Stopped at any moment, the same run goes on: what is done stays as it is. Another run in the same folder is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from clip_seg_ros.annotation.answering import checked_models
from clip_seg_ros.annotation.files import remove_partial
from clip_seg_ros.annotation.formats import FORMATS, READING_IMAGES
from clip_seg_ros.annotation.job import Job, Shard, ShardReport, Source
from clip_seg_ros.annotation.layout import DECISIONS, IMAGES, MANIFEST, SHARDS
from clip_seg_ros.annotation.linking import all_frames
from clip_seg_ros.annotation.manifest import (
    SourceFacts,
    as_chosen_before,
    begun,
    continued,
    differences,
    earlier_note,
    finished,
    hash_of,
    read_manifest,
    write_manifest,
)
from clip_seg_ros.annotation.results import AnnotatedFrame
from clip_seg_ros.annotation.review import with_decisions
from clip_seg_ros.annotation.serving import model_facts, resolved
from clip_seg_ros.annotation.shards import Survey, as_numbered, selected, shards_of, survey, track_age_s
from clip_seg_ros.annotation.source_copies import brought
from clip_seg_ros.annotation.storage import Storage, is_address
from clip_seg_ros.annotation.worker import shard_name
from clip_seg_ros.data.samples import DataError
from clip_seg_ros.sources.frames import StillFrames, open_frames


@dataclass(frozen=True)
class Prepared:
    """A run that can begin."""

    job: Job
    """The job, whose models are known."""
    surveys: tuple[Survey, ...]
    """What reading through its sources told."""
    manifest: dict[str, Any]

    def shards(self) -> Iterator[Shard]:
        """Yields the shards of all sources, in their order."""
        for index, each in enumerate(self.surveys):
            yield from shards_of(self.job, index, each)

    @property
    def images(self) -> int:
        """The number of images that are selected; near-duplicates among them may be left out."""
        return sum(selected(self.job, 0, len(each)) for each in self.surveys)

    @property
    def faults(self) -> list[str]:
        """Which sources cannot be read at all, and why, for people."""
        return [f"{each['name']}: {each['fault']}" for each in self.manifest["sources"] if each.get("fault")]

    @property
    def notes(self) -> list[str]:
        """What the sources lack, and what is wrong with them, for people."""
        earlier = earlier_note(self.manifest)
        return [*([earlier] if earlier else []), *(note for each in self.manifest["sources"] for note in each["notes"])]


@dataclass
class Progress:
    """What the reports of shards add up to."""

    images: int = 0
    """The number of images that are in the data set."""
    new_images: int = 0
    """Those that were annotated now, and not at an earlier time."""
    seconds: float = 0.0
    """The time that workers took for these, together."""
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """Which sources and shards have no results, and why."""
    failed: set[Shard] = field(default_factory=set)
    """The shards of these."""

    def add(self, report: ShardReport, job: Job) -> None:
        """Adds a report."""
        name = job.sources[report.shard.source].name
        if report.fault:
            first, last = report.shard.begin, report.shard.end - 1
            self.failed.add(report.shard)
            self.faults.append(f"{name}, images {first} to {last}: {report.fault}")
            return
        self.images += report.images
        if report.seconds > 0:
            self.new_images += report.images
            self.seconds += report.seconds
        self.notes += [f"{name}: {each}" for each in report.notes if len(self.notes) < MOST_NOTES]


MOST_NOTES = 1000


Looking = Callable[[Job, Callable[[int], None]], list[tuple[SourceFacts, Survey]]]
"""Looks at the sources of a job, in their order, and tells the numbers of bytes that were read."""


def looked_here(job: Job, on_bytes: Callable[[int], None]) -> list[tuple[SourceFacts, Survey]]:
    """Looks at one source after the other."""
    hashes = dict[str, tuple[int, str]]()
    return [looked_at(job, index, on_bytes, hashes) for index in range(len(job.sources))]


def prepare(
    asked: Job,
    storage: Storage,
    on_bytes: Callable[[int], None] = lambda _: None,
    looking: Looking = looked_here,
    resolve: Callable[[Job], Job] = resolved,
) -> Prepared:
    """Looks at the sources and the models of a run, and at what is in its folder, where the manifest is written.

    Args:
        asked: What is asked for.
        storage: The folder of the run.
        on_bytes: Called with the number of bytes of sources that were read since the last call.
        looking: Looks at the sources.
        resolve: Chooses what is "auto": ``serving.resolved`` or ``serving.resolved_for_gpus``.

    Raises:
        ValueError: No source can be read (DataError), there is no such model, it refuses a phrase, or the folder
            holds another run.
        WeightsError: The weights of a model are missing or damaged.
    """
    require_outside(storage.address, asked.sources)
    storage.fetch(MANIFEST)
    before = read_manifest(storage.folder)
    if before is None:
        require_free(storage)
    looked = looking(asked, on_bytes)
    if all(facts.fault for facts, _ in looked):
        raise DataError(looked[0][0].fault)
    job = resolve(asked if before is None else as_chosen_before(asked, before))
    known = [
        replace(facts, source=replace(facts.source, track_age_s=track_age_s(job, found))) for facts, found in looked
    ]
    job = replace(job, sources=tuple(each.source for each in known))
    checked_models(job)
    manifest = begun(job, asked, known, model_facts(job))
    if before is not None and (differing := differences(before, manifest)):
        raise OtherRun(storage.address, differing)
    if before is not None:
        manifest = continued(before, manifest)
    remove_partial(storage.folder)
    write_manifest(storage.folder, manifest)
    storage.publish(MANIFEST)
    return Prepared(job, tuple(each for _, each in looked), manifest)


class OtherRun(ValueError):
    """The folder holds a run that was asked for otherwise."""

    def __init__(self, folder: str, differing: Sequence[str]) -> None:
        super().__init__(
            f"{folder} holds a run with other parameters ({'; '.join(differing)}): name another folder with --out, "
            "give the same parameters to go on with it, or remove it"
        )


def require_outside(out: str, sources: Iterable[Source]) -> None:
    """Raises ValueError if a folder lies in one of the sources, whose images would be others the next time."""
    for source in sources:
        if is_address(out) or is_address(source.spec):
            folder = source.spec.partition("**")[0].rstrip("/")
            is_inside = f"{out.rstrip('/')}/".startswith(f"{folder}/")
        else:
            start, every, _ = source.spec.partition("**")
            path = Path(start).expanduser().resolve()
            is_inside = bool(every or path.is_dir()) and Path(out).expanduser().resolve().is_relative_to(path)
        if is_inside:
            raise ValueError(
                f"{out} lies in {source.spec}, so that the next run would read it: name a folder beside it"
            )


def require_free(storage: Storage) -> None:
    """Raises ValueError if the folder of a run that has no manifest holds something, such as shards of another run."""
    if storage.folder.exists() and not storage.folder.is_dir():
        raise ValueError(f"{storage.address} is no folder")
    if not storage.is_empty():
        raise ValueError(
            f"{storage.address} holds other files and no {MANIFEST}: name an empty or a new folder with --out"
        )


def write_data_set(
    prepared: Prepared, storage: Storage, formats: Sequence[str], on_format: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Writes the data set in its formats, and the manifest; returns the counts that are in it.

    Args:
        prepared: The run, whose shards are done as far as they can be.
        storage: The folder of the run.
        formats: Names of ``formats.FORMATS``.
        on_format: Called with each name before it is written.

    Raises:
        DataError: A file of the run is damaged, or an address cannot be reached.
        OSError: Something cannot be written.
    """
    job, folder = prepared.job, storage.folder
    storage.fetch(SHARDS)
    pairs = zip(job.sources, prepared.surveys, strict=True)
    recorded = {source.name: source.spec for source, each in pairs if each.kind == "recorded"}
    counts = counted(all_frames(folder, job), job, recorded)
    if formats:
        storage.fetch(DECISIONS)
    if READING_IMAGES.intersection(formats):
        storage.fetch(IMAGES)
    frames = with_decisions(folder, lambda: all_frames(folder, job))
    for name in formats:
        on_format(name)
        FORMATS[name](folder, frames, job)
    ever = {*prepared.manifest.get("formats", ()), *formats}
    written = [name for name in FORMATS if name in ever]
    is_whole = not prepared.faults and next(missing_shards(prepared, storage), None) is None
    write_manifest(folder, finished(prepared.manifest, is_whole, counts, written))
    if is_address(storage.address):
        for path in sorted(folder.iterdir()):
            if path.name not in (IMAGES, SHARDS):
                storage.publish(path.name)
    return counts


def missing_shards(prepared: Prepared, storage: Storage) -> Iterator[Shard]:
    """Yields the shards of a run that ``write_data_set`` did not find.

    Args:
        prepared: The run.
        storage: The folder of the run, in which ``write_data_set`` has brought what there is.
    """
    for shard in prepared.shards():
        if not (storage.folder / shard_name(prepared.job, shard)).is_file():
            yield shard


def counted(frames: Iterator[AnnotatedFrame], job: Job, recorded: Mapping[str, str]) -> dict[str, Any]:
    """Counts what is in a data set.

    Args:
        frames: Its images.
        job: What was asked for.
        recorded: From the names of the sources whose images were taken one after the other to their recordings; cameras
            of one bag share its time.

    Returns:
        The numbers of images, of objects, of doubtful objects, of the objects and tracks of each phrase, and the
        seconds of all recordings from their first image to the last.
    """
    images, doubtful = 0, 0
    objects: Counter[str] = Counter()
    tracks: Counter[str] = Counter()
    highest: Counter[str] = Counter()
    spans_ns: dict[str, tuple[int, int]] = {}
    for frame in frames:
        images += 1
        if (recording := recorded.get(frame.source)) is not None:
            first_ns, last_ns = spans_ns.get(recording, (frame.stamp_ns, frame.stamp_ns))
            spans_ns[recording] = (min(first_ns, frame.stamp_ns), max(last_ns, frame.stamp_ns))
        for each in frame.objects:
            objects[each.prompt] += 1
            doubtful += each.band == "doubtful"
        # Ids count up in the order in which objects come.
        new = {each.track: each.prompt for each in frame.objects if each.track > highest[frame.source]}
        tracks.update(new.values())
        highest[frame.source] = max(new, default=highest[frame.source])
    return {
        "images": images,
        "objects": sum(objects.values()),
        "doubtful": doubtful,
        "objects_of": {phrase.text: objects[phrase.text] for phrase in job.phrases},
        "tracks_of": {phrase.text: tracks[phrase.text] for phrase in job.phrases},
        "recorded_s": round(sum(last - first for first, last in spans_ns.values()) / 1e9, 3),
    }


def looked_at(
    job: Job, index: int, on_bytes: Callable[[int], None], hashes: dict[str, tuple[int, str]] | None = None
) -> tuple[SourceFacts, Survey]:
    """Reads through a source; of one that cannot be read, the facts say why.

    Args:
        job: The job.
        index: The index of the source in it.
        on_bytes: Called with the number of bytes that were read since the last call.
        hashes: What ``hash_of`` returned, by what was named: each camera of a bag is a source. It is added to.
    """
    source = job.sources[index]
    try:
        return _read_through(source, on_bytes, {} if hashes is None else hashes)
    except (DataError, OSError) as error:
        nothing = Survey("still", np.zeros(0, np.int64), ())
        return SourceFacts(source, 0, 0, "", (), str(error) or type(error).__name__), nothing


def _read_through(
    source: Source, on_bytes: Callable[[int], None], hashes: dict[str, tuple[int, str]]
) -> tuple[SourceFacts, Survey]:
    with brought(source.spec) as files:
        frames = as_numbered(open_frames(files.spec, source.topic))
        found = survey(frames)
        if source.spec not in hashes:
            # What else lies beside pictures, such as thumbnails of a file manager, comes and goes.
            read = frames.files if isinstance(frames, StillFrames) else None
            hashes[source.spec] = hash_of(files.spec, on_bytes, read)
        size, digest = hashes[source.spec]
        notes = tuple(files.named(each) for each in found.notes)
    return SourceFacts(source, len(found), size, digest, notes), found
