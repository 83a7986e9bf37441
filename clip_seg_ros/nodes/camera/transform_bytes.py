# SPDX-License-Identifier: Apache-2.0
"""Reads transforms directly from the bytes of a tf message, without deserializing it.

A robot's state arrives as dozens of transforms fifty times a second, of which a camera needs a few. Making Python
messages of all of them costs a hundred times as much as checking that the names are those of the last message.
"""

from __future__ import annotations

import struct
from operator import itemgetter

from geometry_msgs.msg import TransformStamped
from rclpy.serialization import deserialize_message
from tf2_msgs.msg import TFMessage

_LITTLE_ENDIAN_CDR = b"\x00\x01"
_HEADER_BYTES = 4
"""Size of the encapsulation header in front of the data; alignment is relative to its end."""
_FIRST = 8
"""Offset of the first transform, which begins with its stamp, after the number of transforms."""
_COUNT, _STAMP, _NUMBERS = struct.Struct("<I"), struct.Struct("<iI"), struct.Struct("<7d")
_MOST_LAYOUTS, _MOST_ENTRIES = 512, 16384
"""The largest number of layouts that are remembered, and of transforms in all of them. A robot has a few; with endless
new names, all are forgotten."""


class Entry:
    """One transform of a layout: its frames, and the offsets of its stamp and its numbers."""

    def __init__(self, parent: str, child: str, stamp_at: int, numbers_at: int) -> None:
        self.parent, self.child = bare(parent), bare(child)
        self._stamp_at, self._numbers_at = stamp_at, numbers_at
        # The message is reused, because making one is expensive.
        self._message = TransformStamped(child_frame_id=child)
        self._message.header.frame_id = parent

    @property
    def link(self) -> tuple[str, str]:
        """The child and its parent."""
        return self.child, self.parent

    def stamp_ns(self, raw: bytes) -> int:
        """Returns the stamp of the transform in nanoseconds."""
        seconds, nanoseconds = _STAMP.unpack_from(raw, self._stamp_at)
        return seconds * 1_000_000_000 + nanoseconds

    def read(self, raw: bytes) -> TransformStamped:
        """Returns the transform in a message of this layout; it is valid until the next call."""
        message = self._message
        stamp, transform = message.header.stamp, message.transform
        shift, turn = transform.translation, transform.rotation
        stamp.sec, stamp.nanosec = _STAMP.unpack_from(raw, self._stamp_at)
        shift.x, shift.y, shift.z, turn.x, turn.y, turn.z, turn.w = _NUMBERS.unpack_from(raw, self._numbers_at)
        return message


class Layout:
    """The layout of messages with the same frames at the same offsets; only their stamps and numbers differ.

    Args:
        raw: The bytes of one such message.

    Raises:
        ValueError: The bytes are not those of a tf message in little-endian CDR.
    """

    def __init__(self, raw: bytes) -> None:
        if raw[:2] != _LITTLE_ENDIAN_CDR:
            raise ValueError("not little-endian CDR")
        try:
            self.entries, fixed, end = _walk(raw)
        except struct.error as error:
            raise ValueError(f"too short: {error}") from error
        if end != len(raw):
            raise ValueError(f"{len(raw) - end} bytes too many")
        self._names_of = itemgetter(*fixed)
        self._names = self._names_of(raw)
        self.wanted: list[Entry] = []
        """The entries that are needed, as of the version ``wanted_at``."""
        self.wanted_at = -1

    def fits(self, raw: bytes) -> bool:
        """Returns whether a message of the layout's length has this layout."""
        return self._names_of(raw) == self._names


class Layouts:
    """Remembers the layouts of earlier messages."""

    def __init__(self) -> None:
        self._known: dict[object, Layout] = {}
        self._entries = 0
        """The number of entries of the layouts that are remembered."""

    def of(self, raw: bytes) -> tuple[Layout, bool]:
        """Returns a message's layout, and whether it is new.

        Raises:
            ValueError: The bytes are not those of a tf message, or not in little-endian CDR.
        """
        # The length and the first frames tell senders apart.
        key = (len(raw), *_first_names(raw))
        layout = self._known.get(key)
        if layout is not None and layout.fits(raw):
            return layout, False
        layout = Layout(raw)
        self._entries += len(layout.entries)
        if len(self._known) >= _MOST_LAYOUTS or self._entries > _MOST_ENTRIES:
            self._known.clear()
            self._entries = len(layout.entries)
        # One that takes the place of another with the same key is counted on top, until all are forgotten.
        self._known[key] = layout
        return layout, True


def bare(frame: str) -> str:
    """Returns a frame's name as tf2 stores it, without a slash in front."""
    return frame.removeprefix("/")


def transforms_of(raw: bytes) -> list[TransformStamped]:
    """Returns the transforms of a message in any encoding that the middleware can read.

    Raises:
        Exception: The middleware cannot read it.
    """
    return deserialize_message(raw, TFMessage).transforms


def _first_names(raw: bytes) -> tuple[bytes, bytes]:
    """Returns the names of the first transform, a parent and its child; anything if the bytes are no tf message."""
    try:
        begin = _FIRST + _STAMP.size + _COUNT.size
        end = begin + _COUNT.unpack_from(raw, begin - _COUNT.size)[0]
        begin_of_child = _aligned(end, 4) + _COUNT.size
        size_of_child = _COUNT.unpack_from(raw, begin_of_child - _COUNT.size)[0]
    except struct.error:
        return b"", b""
    return raw[begin:end], raw[begin_of_child : begin_of_child + size_of_child]


def _walk(raw: bytes) -> tuple[list[Entry], list[slice], int]:
    """Returns the transforms of a message, the constant slices of its bytes, and the end of the last transform."""
    (count,) = _COUNT.unpack_from(raw, _HEADER_BYTES)
    entries, fixed, at = [], [slice(0, _FIRST)], _FIRST
    for _ in range(count):
        stamp_at = at
        parent, parent_end = _text(raw, at + _STAMP.size)
        child_at = _aligned(parent_end, 4)
        child, at = _text(raw, child_at)
        # The bytes that fill up between them may be anything.
        fixed += [slice(stamp_at + _STAMP.size, parent_end), slice(child_at, at)]
        numbers_at = _aligned(at, 8)
        at = numbers_at + _NUMBERS.size
        if at > len(raw):
            raise ValueError("too short")
        entries.append(Entry(parent, child, stamp_at, numbers_at))
    return entries, fixed, at


def _text(raw: bytes, at: int) -> tuple[str, int]:
    (size,) = _COUNT.unpack_from(raw, at)
    begin, end = at + _COUNT.size, at + _COUNT.size + size
    if size == 0 or end > len(raw) or raw[end - 1] != 0:
        raise ValueError("a name without an end")
    return raw[begin : end - 1].decode(), end


def _aligned(at: int, size: int) -> int:
    return at + (_HEADER_BYTES - at) % size
