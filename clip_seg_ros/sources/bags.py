# SPDX-License-Identifier: Apache-2.0
"""Opens ROS 1 and ROS 2 bags by the package ``rosbags``, which needs no ROS, and reads what is left of cut ones.

whole bag                                   -> rosbags
MCAP without its end                        -> its whole records, with an end of ours -> rosbags
sqlite3 that is shorter than its own header -> the messages that can be read, in their order
    bag of ROS 1 without its index              -> likewise
"""

from __future__ import annotations

import io
import os
import sqlite3
import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from clip_seg_ros.data.samples import DataError
from clip_seg_ros.sources.bag_ros1 import CutOff, connections_of, messages_of
from clip_seg_ros.sources.messages import (
    DEPTH_ENCODINGS,
    ConversionError,
    compressed_depth_to_metres,
    compressed_to_rgb,
    depth_to_metres,
    image_to_rgb,
)

NO_ROSBAGS = "bags are read by the package rosbags, which is not installed: pip install rosbags"
IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
BAG_SUFFIXES = (".bag", ".active", ".db3", ".mcap")
_MAGIC = b"\x89MCAP0\r\n"
_RECORD = struct.Struct("<BQ")
"""The head of a record of an MCAP: what it is, and its length in bytes."""
_END = _RECORD.pack(0x02, 20) + bytes(20) + _MAGIC
"""The end of an MCAP without a summary."""
_LAST_RECORDS = (0x0F, 0x02)
"""What follows the messages of a whole MCAP: the end of the data, and the end of the file."""


@dataclass(frozen=True)
class BagTopic:
    """A topic of a bag."""

    name: str
    kind: str
    """The type of its messages, such as "sensor_msgs/msg/Image"."""
    count: int | None
    """The number of messages; ``None`` where only reading them would tell."""


@dataclass(frozen=True)
class BagMessage:
    """A message of a bag, which is decoded when it is read."""

    topic: str
    kind: str
    logged_ns: int
    """When it was recorded."""
    read: Callable[[], Any]
    """Returns an object with the fields of the message; raises DataError if it is damaged."""


class OpenBag(Protocol):
    """A bag while it is open."""

    fault: str
    """What is missing of it, for people; empty if it is whole."""
    topics: tuple[BagTopic, ...]
    span_ns: tuple[int, int]
    """When the first and the last message were recorded; (0, 0) where only reading them would tell."""

    def messages(self, topics: Collection[str], from_ns: int | None = None) -> Iterator[BagMessage]:
        """Yields the messages on some topics in the order of their recording.

        Args:
            topics: The names of the topics.
            from_ns: Those that were recorded before are left out.

        Raises:
            DataError: The rest cannot be read.
        """

    def close(self) -> None:
        """Closes its files; messages that were not read yet stay readable."""


@contextmanager
def open_bag(bag: Path, salvage: bool = False) -> Iterator[OpenBag]:
    """Opens a bag: the folder with ``metadata.yaml``, a single ``.db3`` or ``.mcap`` file, or a ``.bag`` file.

    Args:
        bag: Its path.
        salvage: Whether one whose end is missing is opened, too, as far as it can be read.

    Raises:
        DataError: There is no such bag, it cannot be read, or rosbags is not installed.
    """
    if not bag.exists():
        raise DataError(f"there is no bag {bag}")
    try:
        opened: OpenBag = _Whole([bag], bag)
    except DataError as error:
        rest = _salvaged(bag, error) if salvage else None
        if rest is None:
            raise
        opened = rest
    try:
        yield opened
    finally:
        opened.close()


def is_depth(message: Any) -> bool:
    """Returns whether an image message, decoded, holds depth; 16UC1 counts as such."""
    if hasattr(message, "format"):
        return "compressedDepth" in message.format
    return message.encoding in DEPTH_ENCODINGS


def rgb_of(message: BagMessage, name: str) -> np.ndarray:
    """Decodes a message of ``IMAGE_TYPES`` with colours or grey as (H, W, 3) uint8 RGB.

    Raises:
        DataError: It is damaged, or holds depth; the message begins with ``name``.
    """
    image = message.read()
    if is_depth(image):
        raise DataError(f"{name} holds depth ({getattr(image, 'encoding', 'compressed')}), and no colours")
    try:
        return compressed_to_rgb(image) if hasattr(image, "format") else image_to_rgb(image)
    except ConversionError as error:
        raise DataError(f"{name} cannot be read: {error}") from error


def depth_of(message: BagMessage, name: str) -> np.ndarray:
    """Decodes a message of ``IMAGE_TYPES`` with depth as (H, W) float32 metres, NaN where there is none.

    Raises:
        DataError: It is damaged, or holds no depth; the message begins with ``name``.
    """
    image = message.read()
    try:
        return compressed_depth_to_metres(image) if hasattr(image, "format") else depth_to_metres(image)
    except ConversionError as error:
        raise DataError(f"{name} cannot be read: {error}") from error


def is_bag(path: Path) -> bool:
    """Returns whether a path looks like a bag: by its ending, or by what its folder holds."""
    if path.is_dir():
        return (path / "metadata.yaml").is_file() or bool(_files_in(path))
    return path.suffix.lower() in BAG_SUFFIXES


class _Whole:
    """A bag that rosbags reads; its errors and those of broken files become a DataError.

    Args:
        paths: What rosbags opens, in the order of the recording.
        bag: The bag, for messages.
        fault: The attribute of this name.
    """

    def __init__(self, paths: Sequence[Any], bag: Path, fault: str = "") -> None:
        try:
            from rosbags.highlevel import AnyReader
            from rosbags.typesys import Stores, get_typestore
        except ImportError as error:
            raise DataError(NO_ROSBAGS) from error
        self.fault, self._bag = fault, bag
        try:
            # sqlite3 bags before Iron have no definitions of their messages.
            self._reader = AnyReader(list(paths), default_typestore=get_typestore(Stores.ROS2_HUMBLE))
            self._reader.open()
        except Exception as error:  # a damaged file breaks the reader in many ways
            raise DataError(f"{bag} is no bag that can be read: {error}") from error
        # The store of types is kept, because the reader forgets it at its end, and a message may be read later.
        types = self._reader.typestore
        self._decode = types.deserialize_cdr if self._reader.is2 else types.deserialize_ros1
        self.span_ns = self._reader.start_time, self._reader.end_time
        counts: dict[tuple[str, str], int] = {}
        for each in self._reader.connections:
            counts[each.topic, each.msgtype] = counts.get((each.topic, each.msgtype), 0) + each.msgcount
        self.topics = tuple(BagTopic(name, kind, count) for (name, kind), count in counts.items())

    def messages(self, topics: Collection[str], from_ns: int | None = None) -> Iterator[BagMessage]:
        connections = [each for each in self._reader.connections if each.topic in topics]
        if not connections:
            return
        try:
            for each, logged_ns, data in self._reader.messages(connections, start=from_ns):
                yield _message(self._decode, each.topic, each.msgtype, logged_ns, data)
        except Exception as error:  # as above; exceptions of the caller are not caught here
            raise DataError(f"{self._bag} is damaged: {error}") from error

    def close(self) -> None:
        self._reader.close()


class _Rest:
    """The messages of sqlite3 files whose end is missing."""

    def __init__(self, files: Sequence[Path], fault: str) -> None:
        from rosbags.typesys import Stores, get_typestore

        self.fault, self._files, self.span_ns = fault, files, (0, 0)
        self._decode = get_typestore(Stores.ROS2_HUMBLE).deserialize_cdr
        self._databases = [sqlite3.connect(f"file:{file}?immutable=1", uri=True) for file in files]
        topics: dict[BagTopic, None] = {}
        for database in self._databases:
            # Without this, SQLite refuses a file that has fewer pages than its header says.
            database.execute("PRAGMA writable_schema=ON")
            rows = database.execute("SELECT name, type FROM topics").fetchall()
            topics |= dict.fromkeys(BagTopic(name, kind, None) for name, kind in rows)
        self.topics = tuple(topics)

    def messages(self, topics: Collection[str], from_ns: int | None = None) -> Iterator[BagMessage]:
        for file, database in zip(self._files, self._databases, strict=True):
            named = {key: (name, kind) for key, name, kind in database.execute("SELECT id, name, type FROM topics")}
            try:
                for key, logged_ns, data in database.execute("SELECT topic_id, timestamp, data FROM messages"):
                    if key in named and named[key][0] in topics and _is_from(logged_ns, from_ns):
                        yield _message(self._decode, *named[key], logged_ns, data)
            except sqlite3.Error as error:
                raise DataError(f"{file} is cut off here: {error}") from error

    def close(self) -> None:
        for database in self._databases:
            database.close()


class _RestOfRos1:
    """The messages of a bag of ROS 1 without its index."""

    def __init__(self, file: Path, fault: str) -> None:
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore

        self.fault, self._file, self.span_ns = fault, file, (0, 0)
        self._connections = connections_of(file)
        store = get_typestore(Stores.EMPTY)
        for each in self._connections.values():
            store.register(get_types_from_msg(each.definition, each.kind))
        self._decode = store.deserialize_ros1
        topics = dict.fromkeys(BagTopic(each.topic, each.kind, None) for each in self._connections.values())
        self.topics = tuple(topics)

    def messages(self, topics: Collection[str], from_ns: int | None = None) -> Iterator[BagMessage]:
        wanted = {number: each for number, each in self._connections.items() if each.topic in topics}
        try:
            for number, logged_ns, data in messages_of(self._file, wanted):
                if _is_from(logged_ns, from_ns):
                    yield _message(self._decode, wanted[number].topic, wanted[number].kind, logged_ns, data)
        except (CutOff, struct.error) as error:
            raise DataError(f"{self._file} is cut off here: {error}") from error

    def close(self) -> None:
        """Does nothing: the file is open only while messages are read."""


def _is_from(logged_ns: int, from_ns: int | None) -> bool:
    return from_ns is None or logged_ns >= from_ns


def _message(decode: Callable[[bytes, str], Any], topic: str, kind: str, logged_ns: int, data: bytes) -> BagMessage:
    return BagMessage(topic, kind, logged_ns, partial(_read, decode, data, kind, f"{topic} {logged_ns}"))


def _read(decode: Callable[[bytes, str], Any], data: bytes, kind: str, name: str) -> Any:
    try:
        return decode(data, kind)
    except Exception as error:  # a damaged message breaks the reader in many ways
        raise DataError(f"{name} cannot be read: {error}") from error


def _salvaged(bag: Path, error: DataError) -> OpenBag | None:
    """Opens what is left of a bag that rosbags refuses; returns ``None`` if that is nothing."""
    files = _files_in(bag) if bag.is_dir() else [bag]
    if {file.suffix for file in files} == {".mcap"}:
        mended = [_Mcap(file) for file in files]
        cut = [f"{file} is cut off" for file, each in zip(files, mended, strict=True) if each.is_cut]
        try:
            return _Whole(mended, bag, "; ".join(cut) or f"{bag} has no metadata that can be read")
        except DataError:
            return None
    if not bag.is_dir() and bag.suffix in (".bag", ".active"):
        try:
            return _RestOfRos1(bag, f"{bag} is cut off, or has no index")
        except Exception:  # nothing of it can be used, whatever the reason is
            return None
    if {file.suffix for file in files} != {".db3"}:
        return None
    try:
        return _Whole(files, bag, f"{bag} has no metadata that can be read")
    except DataError:
        pass
    try:
        return _Rest(files, f"{bag} is cut off or damaged")
    except (ImportError, sqlite3.Error):
        return None


def _files_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in (".mcap", ".db3"))


class _Mcap:
    """An MCAP, as rosbags opens paths, that ends behind its last whole record if its own end is missing."""

    suffix = ".mcap"

    def __init__(self, file: Path) -> None:
        self._file = file
        self._length = _whole_length(file)
        self.is_cut = self._length is not None
        """Whether its end is missing."""

    def __str__(self) -> str:
        return str(self._file)

    def exists(self) -> bool:
        return self._file.exists()

    def is_dir(self) -> bool:
        return False

    def open(self, mode: str) -> Any:
        file = self._file.open("rb")
        return file if self._length is None else io.BufferedReader(_Mended(file, self._length))


class _Mended(io.RawIOBase):
    """The first ``length`` bytes of a file, and the end of an MCAP behind them."""

    def __init__(self, file: Any, length: int) -> None:
        super().__init__()
        self._file, self._length, self._at = file, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length + len(_END)}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        if self._at < self._length:
            self._file.seek(self._at)
            data = self._file.read(min(len(buffer), self._length - self._at))
        else:
            begin = self._at - self._length
            data = _END[begin : begin + len(buffer)]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _whole_length(file: Path) -> int | None:
    """Returns the length of the whole records of an MCAP whose end is missing; ``None`` if it is whole, or no MCAP."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        if opened.read(len(_MAGIC)) != _MAGIC:
            return None
        at = opened.tell()
        opened.seek(max(at, size - len(_MAGIC)))
        if opened.read() == _MAGIC:
            return None
        while True:
            opened.seek(at)
            head = opened.read(_RECORD.size)
            if len(head) < _RECORD.size:
                return at
            kind, length = _RECORD.unpack(head)
            if at + _RECORD.size + length > size or kind in _LAST_RECORDS:
                return at
            at += _RECORD.size + length
