# SPDX-License-Identifier: Apache-2.0
"""Writes MCAP bags that ROS 2 plays and Foxglove opens, by the package ``rosbags``, which needs no ROS."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from clip_seg_ros.sources.bag_messages import Messages, RecordingError

SUFFIX = ".mcap"
STATIC_TRANSFORMS = "/tf_static"
_UNFINISHED = ".recording_"
"""What the names of the folders begin with in which files are written."""
_NAME = "recording"
"""The file's name while it is written, which also stands in it: the same messages give the same bytes."""


class BagWriter:
    """Writes one MCAP file; use it as a context manager. Nothing is left of it if the block ends with an exception.
    What a killed program left beside it is removed.

    The file appears under its name when the block ends. In memory is not more than the last megabyte, and some bytes
    for every megabyte before.

    Args:
        path: Its name ends with .mcap.
        replace: Whether a file that is there already is replaced.

    Raises:
        RecordingError: The file exists or cannot be written, or rosbags is missing.
    """

    def __init__(self, path: Path, replace: bool = False) -> None:
        self._path, self._replace = Path(path), replace
        self._stack = ExitStack()
        self._connections: dict[tuple[str, str], Any] = {}
        if self._path.suffix != SUFFIX:
            raise RecordingError(f"a recording is a file whose name ends with {SUFFIX}, not {self._path.name}")
        self.messages = Messages()
        """Makes what ``add`` takes."""

    def __enter__(self) -> BagWriter:
        from rosbags.rosbag2 import StoragePlugin, Writer

        self._refuse_existing()
        if not self._path.parent.is_dir():
            raise RecordingError(f"{self._path} cannot be written: there is no folder {self._path.parent}")
        try:
            with _held(self._path.parent, fcntl.LOCK_EX):
                _remove_abandoned(self._path.parent)
                folder = tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=self._path.parent)
                self._folder = Path(self._stack.enter_context(folder)) / _NAME
                self._stack.enter_context(_held(self._folder.parent, fcntl.LOCK_SH))
            self._writer = Writer(self._folder, version=9, storage_plugin=StoragePlugin.MCAP)
            self._writer.open()
        except OSError as error:
            self._stack.close()
            raise self._failed(error) from error
        return self

    def add(self, topic: str, message: Any, stamp_ns: int) -> None:
        """Adds a message.

        Args:
            topic: Its topic, which begins with "/".
            message: One that ``messages`` made.
            stamp_ns: When it was recorded, nanoseconds.

        Raises:
            RecordingError: It cannot be written.
        """
        kind = message.__msgtype__
        try:
            if (topic, kind) not in self._connections:
                self._connections[topic, kind] = self._connection(topic, kind)
            data = self.messages.store.serialize_cdr(message, kind)
            self._writer.write(self._connections[topic, kind], stamp_ns, data)
        except OSError as error:
            raise self._failed(error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._stack:
            if error is not None:
                self._writer.abort()
                return
            try:
                self._writer.close()
                self._refuse_existing()
                os.replace(self._folder / f"{_NAME}{SUFFIX}", self._path)
            except OSError as wrong:
                raise self._failed(wrong) from wrong

    def _connection(self, topic: str, kind: str) -> Any:
        qos = [_latched()] if topic == STATIC_TRANSFORMS else []
        return self._writer.add_connection(topic, kind, typestore=self.messages.store, offered_qos_profiles=qos)

    def _refuse_existing(self) -> None:
        if self._path.exists() and not self._replace:
            raise RecordingError(f"{self._path} exists already; choose another name")

    def _failed(self, error: OSError) -> RecordingError:
        return RecordingError(f"{self._path} cannot be written: {error}")


@contextmanager
def _held(folder: Path, kind: int) -> Iterator[bool]:
    """Holds a folder against others who do the same; gives whether it could, which not all file systems can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, kind)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _remove_abandoned(folder: Path) -> None:
    """Removes what is unfinished in a folder and held by nobody, because its program was killed."""
    for left in folder.glob(f"{_UNFINISHED}*"):
        with suppress(OSError), _held(left, fcntl.LOCK_EX | fcntl.LOCK_NB) as is_abandoned:
            if is_abandoned:
                shutil.rmtree(left, ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    """Removes what killed programs left of recordings in a folder; nobody may be writing there."""
    for left in folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)


def _latched() -> Any:
    """Returns the quality of service of /tf_static, so that players keep its message for those who come later."""
    from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

    always = QosTime(2**31 - 1, 2**32 - 1)
    return Qos(
        QosHistory.KEEP_LAST,
        1,
        QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL,
        always,
        always,
        QosLiveliness.AUTOMATIC,
        always,
        False,
    )
