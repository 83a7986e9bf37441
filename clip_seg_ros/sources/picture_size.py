# SPDX-License-Identifier: Apache-2.0
"""Reads the size of a JPEG or PNG from its header before decoding, because a few bytes may claim a billion pixels."""

from __future__ import annotations

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
SCAN_START, SCAN_END = b"\xff\xda", b"\xff\xd9"
# The markers "start of frame"; C4, C8 and CC in this range have other meanings.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xDA)))


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Returns (height, width) of a JPEG or PNG in pixels; ``None`` if they cannot be read from its header."""
    if data.startswith(PNG):
        # The signature is followed by the length and the name of the first chunk, and then by its content.
        return (int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")) if len(data) >= 24 else None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _FRAMES:
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
        else:
            at += 2 if marker in _WITHOUT_LENGTH else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
