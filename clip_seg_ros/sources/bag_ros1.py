# SPDX-License-Identifier: Apache-2.0
"""The messages of a bag of ROS 1 whose index is missing, as of a recording that was killed: http://wiki.ros.org/Bags."""

from __future__ import annotations

import bz2
import io
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

_MAGIC = b"#ROSBAG V2.0\n"
_LENGTH = struct.Struct("<I")
_MESSAGE, _CHUNK, _CONNECTION = 0x02, 0x05, 0x07


class CutOff(Exception):
    """The file ends within a record, or holds nonsense from there on."""


@dataclass(frozen=True)
class RosConnection:
    """A topic of a bag, and the type of its messages."""

    topic: str
    kind: str
    """Such as "sensor_msgs/msg/Image"."""
    definition: str
    """The definition of the type, with those of its parts."""


def connections_of(file: Path) -> dict[int, RosConnection]:
    """Returns the connections of a bag, by their numbers, as far as it can be read. Raises CutOff if it is no bag."""
    found: dict[int, RosConnection] = {}
    with file.open("rb") as opened:
        try:
            for fields, data in _records(opened):
                if fields["op"][0] == _CONNECTION:
                    found[_number(fields["conn"])] = _connection(fields, data)
        except CutOff:
            if not found:
                raise
    return found


def messages_of(file: Path, connections: Collection[int]) -> Iterator[tuple[int, int, bytes]]:
    """Yields (connection, when it was recorded in nanoseconds, bytes) of messages. Raises CutOff at a cut."""
    with file.open("rb") as opened:
        for fields, data in _records(opened):
            if fields["op"][0] == _MESSAGE and (number := _number(fields["conn"])) in connections:
                seconds, nanoseconds = struct.unpack("<II", fields["time"])
                yield number, seconds * 10**9 + nanoseconds, data


def _connection(fields: dict[str, bytes], data: bytes) -> RosConnection:
    about = _fields(data)
    package, _, name = about["type"].decode().partition("/")
    definition = about["message_definition"].decode(errors="replace")
    return RosConnection(fields["topic"].decode(), f"{package}/msg/{name}", definition)


def _records(file: BinaryIO, is_within: bool = False) -> Iterator[tuple[dict[str, bytes], bytes]]:
    """Yields the header and the data of records, those within chunks instead of the chunks."""
    if not is_within and file.read(len(_MAGIC)) != _MAGIC:
        raise CutOff("it does not begin like a bag of ROS 1")
    while (begin := file.read(_LENGTH.size)) != b"":
        fields = _fields(_exactly(file, _LENGTH.unpack(begin)[0] if len(begin) == _LENGTH.size else 1 << 32))
        data = _exactly(file, _LENGTH.unpack(_exactly(file, _LENGTH.size))[0])
        if "op" not in fields:
            raise CutOff("a record does not say what it is")
        if fields["op"][0] == _CHUNK and not is_within:
            yield from _records(io.BytesIO(_unpacked(fields.get("compression", b"none"), data)), is_within=True)
        else:
            yield fields, data


def _unpacked(compression: bytes, data: bytes) -> bytes:
    try:
        if compression == b"bz2":
            return bz2.decompress(data)
        if compression == b"lz4":
            import lz4.frame

            return lz4.frame.decompress(data)
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        raise CutOff(f"a chunk cannot be unpacked: {error}") from error
    if compression == b"none":
        return data
    raise CutOff(f"a chunk is packed with {compression!r}, which nobody knows")


def _fields(data: bytes) -> dict[str, bytes]:
    fields, at = {}, 0
    while at + _LENGTH.size <= len(data):
        length = _LENGTH.unpack_from(data, at)[0]
        name, _, value = data[at + _LENGTH.size : at + _LENGTH.size + length].partition(b"=")
        fields[name.decode(errors="replace")] = value
        at += _LENGTH.size + length
    return fields


def _number(value: bytes) -> int:
    return int(_LENGTH.unpack(value)[0])


def _exactly(file: Any, count: int) -> bytes:
    data = file.read(count) if count < 1 << 32 else b""
    if len(data) < count:
        raise CutOff("it is cut off within a record")
    return data
