# SPDX-License-Identifier: Apache-2.0
"""Where a run reads and writes: paths as they are, and addresses that fsspec opens, such as "s3://bucket/run".

Whoever works on a run uses files of this machine alone. ``open_storage`` gives the folder in which they are written:
that of the run itself, or one beside it whose files are published at the address once they are whole.
``source_copies.brought`` does the same for what is read. Paths never go through fsspec.
"""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, Protocol, TypeVar

from clip_seg_ros.annotation.files import PARTIAL
from clip_seg_ros.data.samples import DataError

_AT_ONCE = frozenset(("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "memory"))
"""Protocols where a file is there as a whole or not at all, so that no other name is needed first."""
_TRIES = 4
_FIRST_PAUSE_S = 0.5
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError)
"""What does not get better by another try."""
_T = TypeVar("_T")


class Storage(Protocol):
    """The folder of a run. Names are relative to it, with "/", as in ``layout``."""

    address: str
    """The folder as it was named."""
    folder: Path
    """Where its files are written and read on this machine."""

    def has(self, name: str) -> bool:
        """Returns whether there is such a file."""

    def is_empty(self) -> bool:
        """Returns whether nothing is there, not even a file of that name."""

    def fetch(self, name: str) -> None:
        """Brings a file, or all below a folder, into ``folder``; nothing if there is no such thing."""

    def publish(self, name: str) -> None:
        """Moves a file of ``folder``, or all below a folder of it, to where the run is; whatever was there is replaced.

        Each file appears as a whole or not at all.
        """

    def close(self) -> None:
        """Removes what is only a copy."""

    def __enter__(self) -> Storage: ...

    def __exit__(self, *exc_info: object) -> None: ...


class LocalStorage:
    """A folder of this machine, or of a network that all machines have mounted at the same path."""

    def __init__(self, folder: Path) -> None:
        self.address, self.folder = str(folder), folder

    def has(self, name: str) -> bool:
        """See ``Storage``."""
        return (self.folder / name).is_file()

    def is_empty(self) -> bool:
        """See ``Storage``."""
        if self.folder.exists() and not self.folder.is_dir():
            return False
        # What a killed run left half written is its own.
        return not self.folder.exists() or all(each.name.endswith(PARTIAL) for each in self.folder.iterdir())

    def fetch(self, name: str) -> None:
        """Does nothing: it is there."""

    def publish(self, name: str) -> None:
        """Does nothing: it is there."""

    def close(self) -> None:
        """Does nothing."""

    def __enter__(self) -> LocalStorage:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class RemoteStorage:
    """A folder at an address that fsspec opens, and a passing folder of this machine beside it.

    Args:
        address: The address.

    Raises:
        DataError: It cannot be used; the message says why.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._files, self._root = file_system(address)
        self.folder = Path(tempfile.mkdtemp(prefix="clip_seg_run_"))

    def has(self, name: str) -> bool:
        """See ``Storage``. Raises DataError if the address cannot be reached."""
        return bool(attempted(lambda: self._files.isfile(self._at(name)), self.address))

    def is_empty(self) -> bool:
        """See ``Storage``. Raises DataError if the address cannot be reached."""

        def found() -> list[dict[str, Any]]:
            self._files.invalidate_cache()
            try:
                return list(self._files.ls(self._root, detail=True))
            except FileNotFoundError:
                return []

        # Some stores keep an empty file for a folder itself.
        own = self._root.rstrip("/")
        return all(each["name"].rstrip("/") == own and not each.get("size") for each in attempted(found, self.address))

    def fetch(self, name: str) -> None:
        """See ``Storage``. Raises DataError if something cannot be read."""

        def found() -> list[str]:
            # What other programs have listed may be out of date.
            self._files.invalidate_cache()
            return sorted(self._files.find(self._at(name)))

        for path in attempted(found, self.address):
            inner = path.removeprefix(self._root.rstrip("/")).lstrip("/")
            bring(self._files, path, self.folder / inner)

    def publish(self, name: str) -> None:
        """See ``Storage``. Raises DataError if something cannot be written."""
        begin = self.folder / name
        for file in sorted(begin.rglob("*")) if begin.is_dir() else [begin]:
            if file.is_file():
                self._put(file, self._at(file.relative_to(self.folder).as_posix()))
                file.unlink()

    def close(self) -> None:
        """Removes the passing folder; what was not published is lost."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> RemoteStorage:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _put(self, file: Path, path: str) -> None:
        files, protocol = self._files, self._files.protocol
        names = {protocol} if isinstance(protocol, str) else set(protocol)

        def put() -> None:
            files.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
            if names & _AT_ONCE:
                files.put_file(str(file), path)
                return
            passing = f"{path}.{os.getpid()}-{time.monotonic_ns()}.part"
            files.put_file(str(file), passing)
            # Not all file systems rename onto a file that is there.
            if "file" not in names and files.exists(path):
                files.rm_file(path)
            files.mv(passing, path)

        attempted(put, self.address)


def is_address(spec: str) -> bool:
    """Returns whether ``spec`` is an address for fsspec, and not a path."""
    return "://" in spec


def open_storage(out: str) -> Storage:
    """Returns the folder of a run, which need not exist. Raises DataError if it cannot be used."""
    return RemoteStorage(out) if is_address(out) else LocalStorage(Path(out).expanduser())


def file_system(address: str) -> tuple[Any, str]:
    """Returns the file system of fsspec that opens ``address``, and the path in it.

    Raises:
        DataError: A package is missing, or there is no such kind of address; the message says so.
    """
    try:
        files, path = _fsspec().core.url_to_fs(address)
    except Exception as error:
        # Each file system raises errors of its own, which have no class in common.
        raise DataError(f"{address} cannot be opened: {error}") from error
    return files, path


def bring(files: Any, path: str, to: Path) -> None:
    """Copies the file ``path`` of a file system to the file ``to``, which appears as a whole or not at all.

    Raises:
        DataError: It cannot be read or written.
    """
    passing = to.with_name(f"{to.name}.{os.getpid()}.part")

    def get() -> None:
        to.parent.mkdir(parents=True, exist_ok=True)
        files.get_file(path, str(passing))
        passing.replace(to)

    try:
        attempted(get, path)
    finally:
        passing.unlink(missing_ok=True)


def attempted(action: Callable[[], _T], what: str) -> _T:
    """Returns what ``action`` returns; after an error of the network it is tried again, some times.

    Raises:
        DataError: It fails all the same; the message names ``what``.
    """
    for trial in range(_TRIES):
        try:
            return action()
        except Exception as error:
            # Those of the network are of classes that aiohttp, botocore and others have made for themselves.
            if trial == _TRIES - 1 or isinstance(error, _FINAL):
                raise DataError(f"{what}: {type(error).__name__}: {error}") from error
            time.sleep(_FIRST_PAUSE_S * 2**trial)
    raise AssertionError("unreachable")


def _fsspec() -> ModuleType:
    try:
        return importlib.import_module("fsspec")
    except ImportError as error:
        raise DataError(
            "addresses need the package fsspec: type `pip install clip_seg_ros[ray]`, or name a path instead"
        ) from error
