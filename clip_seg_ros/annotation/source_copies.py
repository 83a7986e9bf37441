# SPDX-License-Identifier: Apache-2.0
"""Recordings at addresses, as files of this machine: bags and videos are read with seeking.

All processes of a machine share the copies. They lie in one folder of limited size: what nobody reads is removed when
room is needed, and at the end of each process that used it.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from clip_seg_ros.annotation.storage import attempted, bring, file_system, is_address
from clip_seg_ros.data.samples import DataError

SIZE_VARIABLE = "CLIP_SEG_COPIES_GB"
"""The environment variable that says how much the copies may take, in 10^9 bytes."""
FOLDER_VARIABLE = "CLIP_SEG_COPIES_DIR"
"""The environment variable that names their folder; default: one of the user's in the folder for passing files."""
_SIZE_GB = 50.0
_ANY = "*?["


@dataclass(frozen=True)
class Brought:
    """Something to read, as files of this machine."""

    spec: str
    """What ``sources.frames.open_frames`` opens."""
    address: str
    """As it was named."""

    def named(self, name: str) -> str:
        """Returns the name of an image in it without the place of the copy, which differs between machines."""
        return name.replace(self.spec, self.address, 1) if self.spec != self.address else name


@dataclass(frozen=True)
class _Remote:
    """Files at an address: (path, name below the copy, bytes, time of the last change in seconds)."""

    key: str
    files: tuple[tuple[str, str, int, float], ...]
    is_single: bool

    @property
    def size(self) -> int:
        return sum(size for _, _, size, _ in self.files)


class SourceCopies:
    """The copies of a machine.

    Args:
        folder: Their folder.
        most_bytes: How much they may take.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder, self.most_bytes = folder, most_bytes
        self._used: set[str] = set()

    @contextmanager
    def held(self, address: str) -> Iterator[Path]:
        """Gives the copy of a file, folder or pattern, which stays while the block runs.

        Raises:
            DataError: It cannot be read, or is too large for the folder.
        """
        files, path = file_system(address)
        remote = attempted(lambda: _look(files, path), address)
        if not remote.files:
            raise DataError(f"there is nothing at {address}")
        self.folder.mkdir(parents=True, exist_ok=True)
        entry = self.folder / remote.key
        self._used.add(remote.key)
        while True:
            with _locked(self._lock(remote.key), fcntl.LOCK_SH):
                if entry.is_dir():
                    os.utime(entry)
                    yield entry / remote.files[0][1] if remote.is_single else entry
                    return
            with _locked(self._lock(remote.key), fcntl.LOCK_EX):
                if not entry.is_dir():
                    self._remove_parts(remote.key)
                    self._make_room(remote, address)
                    self._copy(files, remote, entry)

    def clear(self) -> None:
        """Removes the copies that this process used, except those that others are reading."""
        for key in sorted(self._used):
            self._remove(key)
        self._used.clear()
        with suppress(OSError):
            self.folder.rmdir()

    def _copy(self, files: Any, remote: _Remote, entry: Path) -> None:
        passing = self.folder / f"{remote.key}.{uuid.uuid4().hex}.part"
        try:
            for path, name, _, changed_s in remote.files:
                bring(files, path, passing / name)
                os.utime(passing / name, (changed_s, changed_s))
            passing.rename(entry)
        finally:
            shutil.rmtree(passing, ignore_errors=True)

    def _make_room(self, remote: _Remote, address: str) -> None:
        entries = sorted(filter(Path.is_dir, self.folder.iterdir()), key=lambda entry: entry.stat().st_mtime)
        sizes = {entry: sum(file.stat().st_size for file in entry.rglob("*") if file.is_file()) for entry in entries}
        taken = sum(sizes.values())
        for entry in entries:
            if taken + remote.size <= self.most_bytes:
                break
            # What a killed process left half copied has a name of its own, which nobody holds.
            if self._remove(entry.name):
                taken -= sizes[entry]
        free = shutil.disk_usage(self.folder).free
        if taken + remote.size > self.most_bytes or remote.size > free:
            raise DataError(
                f"{address} takes {remote.size / 1e9:.1f} GB, for which there is no room in {self.folder}: "
                f"{taken / 1e9:.1f} of {self.most_bytes / 1e9:.1f} GB are in use, and {free / 1e9:.1f} GB of the disk "
                f"are free. Set {SIZE_VARIABLE} or {FOLDER_VARIABLE}"
            )

    def _remove(self, key: str) -> bool:
        try:
            with _locked(self._lock(key.partition(".")[0]), fcntl.LOCK_EX | fcntl.LOCK_NB):
                shutil.rmtree(self.folder / key, ignore_errors=True)
                self._remove_parts(key.partition(".")[0])
                self._lock(key.partition(".")[0]).unlink(missing_ok=True)
        except OSError:
            return False
        return True

    def _remove_parts(self, key: str) -> None:
        """Removes what killed processes copied in part; whoever holds the lock of the key alone may do so."""
        for part in self.folder.glob(f"{key}.*.part"):
            shutil.rmtree(part, ignore_errors=True)

    def _lock(self, key: str) -> Path:
        return self.folder / f"{key}.lock"


@contextmanager
def brought(spec: str, copies: SourceCopies | None = None) -> Iterator[Brought]:
    """Gives what is named as files of this machine, which stay while the block runs; paths are left as they are.

    Args:
        spec: A path, or an address of a file, of a folder or of files by a pattern.
        copies: Where copies are kept; default: those of this process.

    Raises:
        DataError: It cannot be read, or there is no room for it.
    """
    if not is_address(spec):
        yield Brought(spec, spec)
        return
    with (copies or own_copies()).held(spec) as path:
        yield Brought(str(path), spec)


_own: list[SourceCopies] = []


def own_copies() -> SourceCopies:
    """Returns the copies that this process uses; what it used is removed when it ends.

    Raises:
        DataError: The variable for their size is no number.
    """
    if not _own:
        named, size = os.environ.get(FOLDER_VARIABLE), os.environ.get(SIZE_VARIABLE, str(_SIZE_GB))
        folder = Path(named) if named else Path(tempfile.gettempdir()) / f"clip_seg_copies_{os.getuid()}"
        try:
            most_bytes = int(1e9 * float(size))
        except ValueError as error:
            raise DataError(f"{SIZE_VARIABLE}={size} is no number of gigabytes") from error
        _own.append(SourceCopies(folder, most_bytes))
        atexit.register(_own[0].clear)
    return _own[0]


@contextmanager
def _locked(file: Path, kind: int) -> Iterator[None]:
    """Holds a lock between processes; raises BlockingIOError if somebody else does and ``kind`` says not to wait."""
    while True:
        lock = os.open(file, os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(lock, kind)
            # Where the file was removed meanwhile, others would not see this lock.
            if _is_at(lock, file):
                yield
                return
        finally:
            os.close(lock)


def _is_at(lock: int, file: Path) -> bool:
    try:
        return os.fstat(lock).st_ino == file.stat().st_ino
    except FileNotFoundError:
        return False


def is_pattern(path: str) -> bool:
    """Returns whether a path in a file system of fsspec stands for several files."""
    if path.startswith(("http://", "https://")):
        # The query of an address begins with "?", and its values may have any sign.
        path = path.partition("?")[0]
    return any(sign in path for sign in _ANY)


def _look(files: Any, path: str) -> _Remote:
    if is_pattern(path):
        found, is_single = sorted(files.glob(path)), False
        root = os.path.commonpath([os.path.dirname(each) for each in found]) if found else path
    elif files.isdir(path):
        found, is_single, root = sorted(files.find(path)), False, path
    else:
        found, is_single, root = [path], True, os.path.dirname(path)
    listed, identity = [], hashlib.sha256()
    for each in found:
        info = files.info(each)
        name = os.path.basename(each.partition("?")[0]) if is_single else each.removeprefix(root).lstrip("/")
        listed.append((each, name, int(info.get("size") or 0), _changed_s(info)))
        identity.update(f"{type(files).__name__} {each} {files.ukey(each)}\n".encode())
    return _Remote(identity.hexdigest()[:32], tuple(listed), is_single)


def _changed_s(info: dict[str, Any]) -> float:
    """Returns when a file was last changed, in seconds; 0 if its file system does not say."""
    for name in ("mtime", "LastModified", "last_modified", "updated", "created"):
        value = info.get(name)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, (int, float)):
            return float(value)
    return 0.0
