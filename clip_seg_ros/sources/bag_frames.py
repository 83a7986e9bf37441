# SPDX-License-Identifier: Apache-2.0
"""The images of a camera in a ROS bag, each with the depth image and the intrinsics that belong to it."""

from __future__ import annotations

import sys
from array import array
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from clip_seg_ros.data.samples import DataError
from clip_seg_ros.sources.bags import IMAGE_TYPES, BagMessage, OpenBag, depth_of, is_depth, open_bag, rgb_of
from clip_seg_ros.sources.frame import Frame, Kind, Stretch, note
from clip_seg_ros.sources.messages import ConversionError, camera_info_to_intrinsics
from clip_seg_ros.types import CameraIntrinsics

INFO_TYPE = "sensor_msgs/msg/CameraInfo"
TOLERANCE_S = 0.02
"""The largest difference in seconds between the stamps of a colour image and its depth image."""
_TOLERANCE_NS = round(TOLERANCE_S * 1e9)
_WAITING = 16
"""The number of colour images that may wait for their depth, and of depth images that are kept for those."""


@dataclass(frozen=True)
class _Seen:
    """What the first message on a topic of images tells."""

    topic: str
    is_depth: bool
    is_grey: bool
    """Whether it is an image without colours, such as one of an infrared camera."""
    size: tuple[int, int]
    """(H, W) of the image."""
    frame_id: str


@dataclass(frozen=True)
class _Match:
    """A colour image and what belongs to it, not decoded yet."""

    number: int
    """Its number among the colour images, from 0."""
    stamp_ns: int
    color: BagMessage
    depth: BagMessage | None
    intrinsics: CameraIntrinsics | None


class _Pairing:
    """Finds the depth image and the camera_info that belong to each colour image, by their stamps.

    Args:
        color: The topic of the colour images.
        depth: That of the depth images; ``None``: there are none.
        info: That of the camera_info, likewise.
        intrinsics: The first intrinsics, which may be recorded after the first image.
        number: The number of the first colour image that comes.
    """

    def __init__(
        self, color: str, depth: str | None, info: str | None, intrinsics: CameraIntrinsics | None, number: int = 0
    ) -> None:
        self._number = number
        self._color, self._depth, self._info = color, depth, info
        self.topics = {each for each in (color, depth, info) if each is not None}
        self._colors: deque[tuple[int, int, BagMessage]] = deque()
        self._depths: deque[tuple[int, BagMessage]] = deque(maxlen=_WAITING)
        # A lens that zooms changes them.
        self._lenses: deque[tuple[int, CameraIntrinsics]] = deque(maxlen=_WAITING)
        if intrinsics is not None:
            self._lenses.append((0, intrinsics))

    def add(self, message: BagMessage) -> None:
        """Takes the next message. Raises DataError if it is damaged, or describes no camera."""
        number = self._number
        if message.topic == self._color:
            self._number += 1  # one that is damaged counts, too
        stamp_ns = _stamp(message)
        if message.topic == self._info:
            self._lenses.append((stamp_ns, _intrinsics_of(message)))
        elif message.topic == self._color:
            self._colors.append((stamp_ns, number, message))
        else:
            self._depths.append((stamp_ns, message))

    def settled(self) -> Iterator[_Match]:
        """Yields the colour images to which no later message can belong."""
        while self._colors and self._is_settled(self._colors[0][0]):
            yield self._match(*self._colors.popleft())

    def rest(self) -> Iterator[_Match]:
        """Yields all others."""
        while self._colors:
            yield self._match(*self._colors.popleft())

    def _is_settled(self, stamp_ns: int) -> bool:
        if self._depth is None or len(self._colors) > _WAITING:
            return True
        return any(other == stamp_ns or other > stamp_ns + _TOLERANCE_NS for other, _ in self._depths)

    def _match(self, stamp_ns: int, number: int, color: BagMessage) -> _Match:
        def distance(other: tuple[int, object]) -> int:
            return abs(other[0] - stamp_ns)

        depth = min(self._depths, key=distance, default=None)
        lens = min(self._lenses, key=distance, default=None)
        is_near = depth is not None and distance(depth) <= _TOLERANCE_NS
        return _Match(number, stamp_ns, color, depth[1] if depth and is_near else None, lens[1] if lens else None)


def color_topics(bag: Path) -> list[str]:
    """Returns the topics of colour images in a bag, one for each camera. Raises DataError if it cannot be read."""
    with open_bag(bag, salvage=True) as opened:
        return [each.topic for each in _cameras([each for each in _images(opened, bag) if not each.is_depth])]


class BagFrames:
    """The images of a camera in a bag of ROS 2 (sqlite3 or MCAP) or ROS 1.

    Depth images are used if they have the size of the colour images, as those that are aligned with them have; among
    several, one whose topic says "aligned", and then one of the same camera.

    Args:
        bag: The folder with ``metadata.yaml``, a single ``.db3`` or ``.mcap`` file, or a ``.bag`` file. Of one whose
            end is missing, the rest is read.
        topic: The topic of the colour images; it may be omitted if the bag has one alone.

    Raises:
        DataError: There is no such bag, it cannot be read, it holds no images, or the topic is not clear.
    """

    kind: Kind = "recorded"

    def __init__(self, bag: Path, topic: str | None = None) -> None:
        self._bag = bag
        self.notes: list[str] = []
        self.faults: list[str] = []
        with open_bag(bag, salvage=True) as opened:
            seen = _images(opened, bag)
            color = _chosen([each for each in seen if not each.is_depth], topic, bag)
            self._count = sum(each.count or 0 for each in opened.topics if each.name == color.topic)
            self._color, self._depth = color.topic, _depth_topic(seen, color)
            self._info, self._frame_id = _info_topic(opened, color), color.frame_id
            self._intrinsics = self._first_intrinsics(opened, color.size)
            self._fault = opened.fault
        self.title = f"{bag.resolve().name} {self._color}"
        self.topic = self._color
        """That of the colour images."""
        if self._depth is None:
            self.notes.append("no depth images of the size of the colour images: things have no positions")
        elif self._intrinsics is None:
            self.notes.append("no camera_info that fits the colour images: things have no positions")
        if self._fault:
            self.faults.append(f"{self._fault}: only the part before is there")

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Generator[Frame, None, None]:
        fault = ""

        def end(why: str) -> None:
            nonlocal fault
            fault = why

        for _, frame in self._read(Stretch(0, sys.maxsize), end):
            yield frame
        if fault:
            raise DataError(fault)

    def places(self) -> np.ndarray:
        found = array("q")
        with open_bag(self._bag, salvage=True) as bag:
            try:
                for message in bag.messages({self._color}):
                    found.append(message.logged_ns)
            except DataError as error:
                note(self.faults, str(error))
        return np.array(found, np.int64)

    def between(self, stretch: Stretch) -> Generator[tuple[int, Frame], None, None]:
        return self._read(stretch, lambda why: note(self.faults, why))

    def _read(self, stretch: Stretch, end: Callable[[str], None]) -> Generator[tuple[int, Frame], None, None]:
        """Yields images; calls ``end`` with the reason if the bag ends too early."""
        pairing = _Pairing(self._color, self._depth, self._info, self._intrinsics, stretch.from_number)
        with open_bag(self._bag, salvage=True) as bag:
            messages = self._messages(bag.messages(pairing.topics, stretch.from_ns), end)
            for message in messages:
                try:
                    pairing.add(message)
                except DataError as error:
                    note(self.faults, str(error))
                for match in pairing.settled():
                    if match.number >= stretch.end:
                        return
                    yield from self._frames(match, stretch)
            for match in pairing.rest():
                yield from self._frames(match, stretch)

    def _messages(self, messages: Iterator[BagMessage], end: Callable[[str], None]) -> Iterator[BagMessage]:
        try:
            yield from messages
        except DataError as error:
            end(str(error))
        else:
            if self._fault:
                end(self._fault)

    def _frames(self, match: _Match, stretch: Stretch) -> Iterator[tuple[int, Frame]]:
        """Decodes an image that is wanted; one that cannot be decoded is left out and noted."""
        if not stretch.has(match.number):
            return
        name = f"{self._color} {match.stamp_ns}"
        try:
            rgb = rgb_of(match.color, name)
            depth_m = None if match.depth is None else depth_of(match.depth, f"{self._depth} {match.stamp_ns}")
        except DataError as error:
            note(self.faults, str(error))
            return
        size, lens = rgb.shape[:2], match.intrinsics
        depth_m = depth_m if depth_m is not None and depth_m.shape == size else None
        lens = lens if lens is not None and (lens.height, lens.width) == size else None
        yield match.number, Frame(rgb, depth_m, lens, match.stamp_ns, name, self._frame_id)

    def _first_intrinsics(self, bag: OpenBag, size: tuple[int, int]) -> CameraIntrinsics | None:
        if self._info is None:
            return None
        message = next(bag.messages({self._info}), None)
        if message is None:
            return None
        try:
            intrinsics = _intrinsics_of(message)
        except DataError as error:
            self.notes.append(str(error))
            return None
        return intrinsics if (intrinsics.height, intrinsics.width) == size else None


def _intrinsics_of(message: BagMessage) -> CameraIntrinsics:
    """Reads a camera_info of ROS 1 or ROS 2. Raises DataError if it describes no camera."""
    try:
        return camera_info_to_intrinsics(_as_ros_2(message.read()))
    except ConversionError as error:
        raise DataError(f"{message.topic}: {error}") from error


def _images(bag: OpenBag, path: Path) -> list[_Seen]:
    """Looks at the first message on each topic of images. Raises DataError if there is none."""
    topics = [each for each in bag.topics if each.kind in IMAGE_TYPES and each.count != 0]
    if not topics:
        others = ", ".join(sorted({each.name for each in bag.topics})) or "nothing at all"
        raise DataError(f"{path} holds no images ({' or '.join(IMAGE_TYPES)}), but {others}")
    seen, faults = [], []
    for topic in topics:
        try:
            message = next(bag.messages({topic.name}), None)
            if message is not None:
                seen.append(_look(message))
        except DataError as error:
            faults.append(str(error))
    if not seen:
        why = faults[0] if faults else f"{bag.fault or 'it'} ends before the first of them"
        raise DataError(f"no image of {path} can be read: {why}")
    return seen


def _look(message: BagMessage) -> _Seen:
    """Returns what an image message tells. Raises DataError if it cannot be read."""
    image = message.read()
    read = depth_of if is_depth(image) else rgb_of
    height, width = read(message, message.topic).shape[:2]
    encoding = getattr(image, "encoding", None) or image.format.partition(";")[0]
    is_grey = encoding.startswith(("mono", "8UC1", "16UC1"))
    return _Seen(message.topic, is_depth(image), is_grey, (height, width), image.header.frame_id)


def _chosen(colors: list[_Seen], topic: str | None, bag: Path) -> _Seen:
    """Returns the topic of colour images that is meant. Raises DataError if that is not clear."""
    listed = ", ".join(each.topic for each in colors)
    if not colors:
        raise DataError(f"{bag} holds depth images alone, and no colours")
    if topic is not None:
        named = next((each for each in colors if each.topic == topic), None)
        if named is None:
            raise DataError(f"{bag} holds no colour images on {topic}; it holds {listed}")
        return named
    cameras = _cameras(colors)
    if len(cameras) > 1:
        names = ", ".join(each.topic for each in cameras)
        raise DataError(f"{bag} holds several topics of colour images, name one with --topic: {names}")
    return cameras[0]


def _cameras(colors: list[_Seen]) -> list[_Seen]:
    """Returns the topics of different cameras, without those that have no colours if there are others."""
    # The same images may be there twice, as they came and compressed.
    raw = {each.topic for each in colors}
    once = [each for each in colors if each.topic.removesuffix("/compressed") not in raw - {each.topic}]
    return [each for each in once if not each.is_grey] or once


def _depth_topic(seen: list[_Seen], color: _Seen) -> str | None:
    fitting = [each for each in seen if each.is_depth and each.size == color.size]
    if not fitting:
        return None
    # The same images may be there twice, as they came and compressed.
    return max(fitting, key=lambda e: ("aligned" in e.topic, _alike(e, color), "compressedDepth" not in e.topic)).topic


def _alike(one: _Seen, other: _Seen) -> tuple[bool, int]:
    """Returns how likely two topics are of one camera: the same frame, and as many equal first parts of the names."""
    parts = zip(one.topic.strip("/").split("/"), other.topic.strip("/").split("/"), strict=False)
    same = 0
    for left, right in parts:
        if left != right:
            break
        same += 1
    return one.frame_id == other.frame_id, same


def _info_topic(bag: OpenBag, color: _Seen) -> str | None:
    """Returns the topic of the camera_info beside the colour images; else the only one that there is."""
    names = [each.name for each in bag.topics if each.kind == INFO_TYPE and each.count != 0]
    beside = f"{color.topic.removesuffix('/compressed').rpartition('/')[0]}/camera_info"
    if beside in names:
        return beside
    return names[0] if len(names) == 1 else None


def _stamp(message: BagMessage) -> int:
    """Returns the stamp of a message in nanoseconds; when it was recorded if it has none."""
    stamp = message.read().header.stamp
    return stamp.sec * 10**9 + stamp.nanosec or message.logged_ns


def _as_ros_2(info: Any) -> Any:
    """Returns a camera_info with the names of ROS 2, where K of ROS 1 is k."""
    if hasattr(info, "k"):
        return info
    return SimpleNamespace(**{name.lower() if len(name) == 1 else name: value for name, value in vars(info).items()})
