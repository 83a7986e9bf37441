# SPDX-License-Identifier: Apache-2.0
"""The file in which a node keeps its memory of objects. Whatever is wrong with it is a fault, and the node goes on."""

from __future__ import annotations

import itertools
from pathlib import Path

from clip_seg_ros.nodes.common.faults import FaultLog
from clip_seg_ros.pipeline.stream.recollection import ObjectMemory
from clip_seg_ros.pipeline.stream.recollection_file import MemoryFileError, load_memory, save_memory

_READ, _WRITTEN = "memory file", "memory file, written"


class MemoryFile:
    """Reads and writes a memory. A file that cannot be read is kept under another name before a new one is written.

    Args:
        path: Path of the file, which may begin with "~"; empty for none.
        frame_id: Name of the fixed frame.
        faults: Log of what is wrong with the file.
    """

    def __init__(self, path: str, frame_id: str, faults: FaultLog) -> None:
        self._path = Path(path).expanduser() if path else None
        self._frame_id, self._faults = frame_id, faults
        self._is_foreign = False
        """Whether the file there was not read and must be kept."""
        for source in (_READ, _WRITTEN):
            faults.clear(source)

    def __bool__(self) -> bool:
        """Whether there is a file."""
        return self._path is not None

    def load(self) -> ObjectMemory:
        """Returns what the file holds, or an empty memory if there is none or it is of no use, which is reported."""
        path = self._path
        if path is None:
            return ObjectMemory()
        try:
            return load_memory(path, self._frame_id)
        except FileNotFoundError:
            if not path.parent.is_dir():
                note = f"the folder {path.parent} does not exist, so that nothing can be kept: create it"
                self._faults.report(_READ, "folder", note, always=True)
        except (MemoryFileError, OSError) as error:
            self._is_foreign = True
            note = f"{error}: the memory is empty. Before it is saved, this file becomes {self._other_name(path).name}"
            self._faults.report(_READ, "content", note, always=True)
        return ObjectMemory()

    def save(self, memory: ObjectMemory) -> bool:
        """Writes a memory; returns whether that could be done, and otherwise reports why not."""
        path = self._path
        if path is None:
            return False
        try:
            if self._is_foreign and path.exists():
                path.rename(self._other_name(path))
            self._is_foreign = False
            save_memory(memory, path, self._frame_id)
        except OSError as error:
            self._faults.report(_WRITTEN, str(error.errno), f"what is remembered cannot be written to {path}: {error}")
            return False
        self._faults.clear(_WRITTEN)
        return True

    @staticmethod
    def _other_name(path: Path) -> Path:
        """Returns a path beside a file that does not exist yet."""
        return next(
            other
            for number in itertools.count(1)
            if not (other := path.with_name(f"{path.name}.kept-{number}")).exists()
        )
