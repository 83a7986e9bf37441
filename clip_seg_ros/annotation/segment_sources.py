# SPDX-License-Identifier: Apache-2.0
"""What somebody names on a command line, opened: pictures that follow each other are one source."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from clip_seg_ros.annotation.naming import name_of
from clip_seg_ros.annotation.segmenting import Placing
from clip_seg_ros.data.samples import PICTURE_SUFFIXES, DataError
from clip_seg_ros.sources.bag_frames import color_topics
from clip_seg_ros.sources.bag_tf import BagTransforms
from clip_seg_ros.sources.bags import is_bag
from clip_seg_ros.sources.frame import Frames
from clip_seg_ros.sources.frames import KINDS, StillFrames, open_frames


@dataclass(frozen=True)
class NamedSource:
    """A source that was named, and is not opened yet."""

    name: str
    """Its name in the results."""
    specs: tuple[str, ...]
    """What was typed: one thing, or several pictures."""
    topic: str | None = None
    """The topic of the colour images in a bag."""

    @property
    def is_bag(self) -> bool:
        """Whether it is a recording of ROS."""
        path = Path(self.specs[0]).expanduser()
        return path.exists() and is_bag(path)

    @property
    def base(self) -> Path | None:
        """The folder whose pictures it has, or that a pattern begins with; ``None`` for others."""
        path = Path(self.specs[0]).expanduser()
        if path.exists():
            return path if self.is_folder else None
        fixed = [part for part in path.parents if not _has_wildcard(str(part))]
        return fixed[0] if _has_wildcard(self.specs[0]) else None

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of pictures."""
        return Path(self.specs[0]).expanduser().is_dir() and not self.is_bag

    def open(self) -> Frames:
        """Opens it. Raises DataError if it holds no images that can be read."""
        if len(self.specs) > 1:
            return StillFrames(self.name, [Path(spec).expanduser() for spec in self.specs])
        return open_frames(self.specs[0], self.topic)

    def placing(self, frame: str, stack: ExitStack) -> Placing | None:
        """Returns the frame for positions, for a bag, until ``stack`` is closed; ``None`` for others.

        Raises:
            DataError: The bag holds no transforms.
        """
        if not frame or not self.is_bag:
            return None
        return Placing(frame, stack.enter_context(BagTransforms(Path(self.specs[0]).expanduser())))


def named_sources(specs: Sequence[str], topics: Sequence[str] = ()) -> list[NamedSource]:
    """Sorts what somebody names.

    Args:
        specs: What ``open_frames`` opens, at least one.
        topics: The topics of the colour images of bags; each is a source of its own. Without any, all that bags have.

    Raises:
        DataError: One of them does not exist, or topics were named for what is no bag.
    """
    for spec in specs:
        if not spec.isdecimal() and not Path(spec).expanduser().exists() and not _matches(spec):
            wanted = "pattern matches no file" if _has_wildcard(spec) else "file or folder is not there"
            raise DataError(f"{spec}: this {wanted}; name {KINDS}")
    found: list[NamedSource] = []
    pictures: list[str] = []
    for spec in specs:
        if _is_picture(spec):
            pictures.append(spec)
            continue
        _add_pictures(found, pictures)
        found += _of_topics(NamedSource(_name(spec), (spec,)), topics)
    _add_pictures(found, pictures)
    if topics and not any(each.is_bag for each in found):
        raise DataError(f"--topic {' '.join(topics)} is for bags, and there is none among {', '.join(specs)}")
    return found


def _of_topics(source: NamedSource, topics: Sequence[str]) -> list[NamedSource]:
    """Returns a source for each camera of a bag, and others as they are."""
    if not source.is_bag:
        return [source]
    spec = source.specs[0]
    try:
        named = topics or color_topics(Path(spec).expanduser())
    except DataError:  # which opening it says again, when others are opened, too
        return [source]
    return [NamedSource(name_of(spec, topic if len(named) > 1 else None), (spec,), topic) for topic in named]


def _add_pictures(found: list[NamedSource], pictures: list[str]) -> None:
    """Makes one source of the pictures that were collected, and forgets them."""
    if pictures:
        others = f" and {len(pictures) - 1} more" if len(pictures) > 1 else ""
        found.append(NamedSource(f"{Path(pictures[0]).name}{others}", tuple(pictures)))
        pictures.clear()


def _is_picture(spec: str) -> bool:
    path = Path(spec).expanduser()
    return path.is_file() and path.suffix.lower() in PICTURE_SUFFIXES


def _has_wildcard(text: str) -> bool:
    return bool(set("*?[") & set(text))


def _matches(spec: str) -> bool:
    return _has_wildcard(spec) and bool(glob.glob(str(Path(spec).expanduser()), recursive=True))


def _name(spec: str) -> str:
    if spec.isdecimal():
        return f"webcam_{spec}"
    path = Path(spec).expanduser()
    if not path.exists():
        return spec
    path = path.resolve()
    return path.name if path.is_dir() else path.stem
