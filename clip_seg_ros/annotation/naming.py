# SPDX-License-Identifier: Apache-2.0
"""The sources of a run, with names that are good names of files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from clip_seg_ros.annotation.job import Source
from clip_seg_ros.annotation.shards import as_numbered
from clip_seg_ros.annotation.source_copies import brought
from clip_seg_ros.data.samples import PICTURE_SUFFIXES, DataError
from clip_seg_ros.sources.bag_frames import BagFrames, color_topics
from clip_seg_ros.sources.bags import IMAGE_TYPES, is_bag, open_bag
from clip_seg_ros.sources.frames import open_frames

_MOST_PICTURES = 100
"""More pictures than this, each a source of its own, are a pattern that the shell has spread out."""
_KEPT_ENDINGS = 8
"""An ending of more letters is part of a name."""


class NoSuchTopic(DataError):
    """A bag does not hold the topic that is asked for."""


Cameras = list[str | None] | DataError
"""The topics of what somebody names, ``None`` alone if it is no bag; or why what is there cannot be read."""
Listing = Callable[[Sequence[str], Sequence[str]], list[Cameras]]
"""Takes what people name, and topics, and returns the topics of each; see ``cameras_of``."""


def cameras_here(specs: Sequence[str], topics: Sequence[str]) -> list[Cameras]:
    """Lists the cameras of one recording after the other. Raises DataError if something is not there."""
    return [cameras_of(spec, topics) for spec in specs]


def sources_of(specs: Sequence[str], topics: Sequence[str] = (), listing: Listing = cameras_here) -> tuple[Source, ...]:
    """Returns the sources of a run: each camera of a bag is one.

    Args:
        specs: What people name: paths and patterns as ``sources.frames.open_frames`` opens them, and addresses.
        topics: The topics of the colour images in bags; without any, all that bags have.
        listing: Lists the cameras of recordings.

    Returns:
        The sources. A file or bag that is there and cannot be read is one, too; ``running.looked_at`` says why.

    Raises:
        DataError: Something is not there, nothing can be read, or there is no such topic; the message says what to do.
    """
    if (count := sum(Path(spec).suffix.lower() in PICTURE_SUFFIXES for spec in specs)) > _MOST_PICTURES:
        raise DataError(f"{count} pictures are named one by one: name their folder, or put the pattern in quotes")
    found: list[tuple[str, str | None, bool]] = []
    different = list(dict.fromkeys(specs))
    faults: list[DataError] = []
    for spec, cameras in zip(different, listing(different, topics), strict=True):
        if isinstance(cameras, DataError):
            faults.append(cameras)
            cameras = [None]
        found += [(spec, topic, len(cameras) > 1) for topic in cameras]
    if len(faults) == len(found):
        raise faults[0]
    known = {topic for _, topic, _ in found}
    # A bag that cannot be read may hold the others.
    if not faults and (missing := [topic for topic in topics if topic not in known]):
        there = ", ".join(_topics_of(specs)) or "none, because none of the sources is a bag"
        raise NoSuchTopic(f"no source holds images on {', '.join(missing)}; the topics that there are: {there}")
    names = _different(name_of(spec, topic if is_one_of_several else None) for spec, topic, is_one_of_several in found)
    return tuple(Source(name, spec, topic) for name, (spec, topic, _) in zip(names, found, strict=True))


def name_of(spec: str, topic: str | None = None) -> str:
    """Returns the name of a source: the last part of its path, without the ending of a file, and its topic."""
    # Of "photos/*.jpg", the folder says more.
    parts = [each for each in re.split(r"[/\\]", spec) if each and "*" not in each] or [""]
    stem, dot, ending = parts[-1].rpartition(".")
    last = stem if dot and stem and len(ending) < _KEPT_ENDINGS else parts[-1]
    whole = last if topic is None else f"{last}_{topic.strip('/')}"
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", whole).strip("._") or "source"


def cameras_of(spec: str, topics: Sequence[str]) -> Cameras:
    """Returns the topics of what is named, or why a recording that is there cannot be read.

    Raises:
        DataError: It is not there.
        NoSuchTopic: It holds none of the topics.
    """
    with brought(spec) as files:
        try:
            return _cameras(files.spec, topics)
        except NoSuchTopic:
            raise
        except DataError as error:
            if not _is_recording(files.spec):
                raise
            return error


def _cameras(spec: str, topics: Sequence[str]) -> list[str | None]:
    """Returns the topics of what is named; ``None`` alone if it is no bag."""
    path = Path(spec).expanduser()
    if spec.isdecimal() and not path.exists():
        raise DataError(f"the webcam {spec} gives other images each time: record it first, and name the recording")
    if not (path.exists() and is_bag(path)):
        as_numbered(open_frames(spec))
        return [None]
    if not topics:
        return [*color_topics(path)]
    wanted = [BagFrames(path, each).topic for each in topics if each in _image_topics(path)]
    if not wanted:
        raise NoSuchTopic(
            f"{spec} holds no colour images on {', '.join(topics)}; it holds {', '.join(color_topics(path))}"
        )
    return [*wanted]


def _is_recording(spec: str) -> bool:
    """Returns whether there is a file or a bag of that name on this machine."""
    path = Path(spec).expanduser()
    return path.exists() and (path.is_file() or is_bag(path))


def _topics_of(specs: Iterable[str]) -> list[str]:
    """Returns the topics of colour images of all bags, which can be read."""
    found: dict[str, None] = {}
    for spec in specs:
        with brought(spec) as files:
            path = Path(files.spec).expanduser()
            if path.exists() and is_bag(path):
                found.update(dict.fromkeys(color_topics(path)))
    return list(found)


def _different(names: Iterable[str]) -> list[str]:
    """Returns names of which no two are alike, also where letters have no case."""
    found: list[str] = []
    taken: set[str] = set()
    for name in names:
        new, number = name, 1
        while new.lower() in taken:
            number += 1
            new = f"{name}_{number}"
        taken.add(new.lower())
        found.append(new)
    return found


def _image_topics(bag: Path) -> set[str]:
    with open_bag(bag, salvage=True) as opened:
        return {each.name for each in opened.topics if each.kind in IMAGE_TYPES}
