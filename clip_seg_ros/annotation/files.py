# SPDX-License-Identifier: Apache-2.0
"""Writes files that are whole or not there at all, whenever the program is stopped."""

from __future__ import annotations

import ctypes
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PARTIAL = ".partial"
"""The ending of files that are not finished; what a stopped program leaves of them is of no use."""


@contextmanager
def whole_file(path: Path, is_lasting: bool = True) -> Iterator[BinaryIO]:
    """Opens a new file that takes the place of ``path`` when all has been written, and is removed if that fails.

    Its folder is made. Several processes may write the same file at once; the last one that ends wins.

    Args:
        path: Where the file will be.
        is_lasting: Whether it is on the disk before it takes its place, even if the power fails; that takes time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        with partial.open("xb") as file:
            yield file
            if is_lasting:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_whole(path: Path, data: bytes, is_lasting: bool = True) -> None:
    """Writes a file as ``whole_file`` does."""
    with whole_file(path, is_lasting) as file:
        file.write(data)


def settle(folder: Path) -> None:
    """Waits until all that was written into a folder is on the disk, even if the power fails."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Python itself can only have the disks of the whole machine written.
        sync = getattr(ctypes.CDLL(None), "syncfs", None)
        if sync is None or sync(descriptor) != 0:
            os.sync()
    finally:
        os.close(descriptor)


def remove_partial(folder: Path) -> None:
    """Removes what stopped programs left in a folder and below; nobody may be writing there."""
    for path in folder.rglob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)
