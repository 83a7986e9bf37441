# SPDX-License-Identifier: Apache-2.0
"""The folder of converted models in the user's cache: complete or not there, checked when read, bounded in size."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from clip_seg_ros import resources
from clip_seg_ros.models.base import PromptableSegmenter
from clip_seg_ros.models.checkpoints import sha256

METADATA = "metadata.json"
SUMS = "files"
"""The key of the metadata under which stand the SHA-256 of all other files, by their names."""
KEPT = "kept"
"""The key of the metadata that is true for what a user made on purpose and what therefore is not dropped."""
_LIMIT_BYTES = 6_000_000_000
_LIMIT_COUNT = 32
_ABANDONED_S = 3600.0
_LOG = logging.getLogger(__name__)


def engines_dir() -> Path:
    """Returns the folder of converted models, which may not exist yet."""
    return resources.user_cache_dir() / "engines"


def form_of(file_format: str, precision: str) -> str:
    """Returns the ``form`` of ``engine_key``: the engines compute in halves from files in float32, not so in int8."""
    return f"{file_format}-int8" if precision == "int8" else file_format


def engine_key(
    model: PromptableSegmenter, fingerprint: str, form: str, size: tuple[int, int], packages: tuple[str, ...]
) -> str:
    """Returns the name of the folder for a converted model: another one for whatever changes its contents.

    Args:
        model: The model.
        fingerprint: What identifies its weights.
        form: The format, and the precision if it is part of the files, as ``form_of`` returns it.
        size: (h, w) of the pixels.
        packages: The names of the packages that convert it; their versions count, and torch's.
    """
    configs = {name: repr(part.config) for name, part in model.named_modules() if hasattr(part, "config")}
    versions = {name: metadata.version(name) for name in packages}
    spec = {name: value for name, value in asdict(model.spec).items() if name != "unknown_words"}
    parts = [fingerprint, form, size, type(model).__qualname__, str(model), configs, spec, versions]
    digest = hashlib.sha256(repr([*parts, torch.__version__, _sources()]).encode()).hexdigest()
    name = re.sub(r"[^A-Za-z0-9.-]", "_", model.name)[:60]
    return f"{name}-{size[0]}x{size[1]}-{form}-{digest[:16]}"


class EngineCache:
    """Keeps folders of files, each complete and with ``METADATA``.

    Args:
        folder: Where they are; by default in the user's cache.
        limit_bytes: The size of all folders together, above which those that were used longest ago are dropped.
    """

    def __init__(self, folder: Path | None = None, limit_bytes: int = _LIMIT_BYTES) -> None:
        self.folder = folder or engines_dir()
        self._limit_bytes = limit_bytes

    def find(self, key: str) -> Path | None:
        """Returns the folder of ``key``; ``None`` if there is none. A damaged one is removed."""
        folder = self.folder / key
        if not folder.is_dir():
            return None
        try:
            sums = read_metadata(folder)[SUMS]
            whole = bool(sums) and all(sha256(folder / name) == wanted for name, wanted in sums.items())
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            whole = False
        if not whole:
            _LOG.warning("the converted model in %s is damaged; it is made again", folder)
            shutil.rmtree(folder, ignore_errors=True)
            return None
        with suppress(OSError):  # another user's, or on a disk that cannot be written
            os.utime(folder / METADATA)
        return folder

    def sizes(self, key: Callable[[tuple[int, int]], str], form: str) -> list[tuple[int, int]]:
        """Returns the sizes (h, w) for which there is a folder, whole or not, the one that was used last first.

        Args:
            key: Returns the name of the folder for a size.
            form: The ``form`` in these names, by which most other folders are told apart.
        """
        found: list[tuple[float, tuple[int, int]]] = []
        for marker in self.folder.glob(f"[!.]*-{form}-*/{METADATA}"):
            for height, width in re.findall(r"-(\d+)x(\d+)(?=-)", marker.parent.name):
                size = int(height), int(width)
                with suppress(OSError):  # removed meanwhile
                    if key(size) == marker.parent.name:
                        found.append((marker.stat().st_mtime, size))
        return [size for _, size in sorted(found, reverse=True)]

    def store(self, key: str, write: Callable[[Path], Mapping[str, Any]]) -> Path:
        """Makes the folder of ``key``, unless another process was faster.

        Args:
            key: Its name.
            write: Writes all files into the folder that it is given, and returns the metadata.

        Raises:
            OSError: The disk is full, or cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f".{key}.{os.getpid()}.{time.monotonic_ns()}"
        partial.mkdir()
        try:
            finish_folder(partial, write(partial))
            target = self.folder / key
            # What lies there was not found to be whole, or another process has just put it there.
            with suppress(FileNotFoundError):
                target.rename(partial.with_name(f"{partial.name}.old"))
            partial.rename(target)
        finally:
            for left in self.folder.glob(f"{partial.name}*"):
                shutil.rmtree(left, ignore_errors=True)
        self._trim()
        return target

    def _trim(self) -> None:
        """Drops what was used longest ago until the rest is within the limits, but not what was just stored."""
        for partial in self.folder.glob(".*"):
            with suppress(OSError):
                if time.time() - partial.stat().st_mtime > _ABANDONED_S:  # a process was killed
                    shutil.rmtree(partial, ignore_errors=True)
        by_age = sorted(self._droppable())
        total = sum(size for _, size, _ in by_age)
        while len(by_age) > 1 and (total > self._limit_bytes or len(by_age) > _LIMIT_COUNT):
            _, size, folder = by_age.pop(0)
            total -= size
            shutil.rmtree(folder, ignore_errors=True)

    def _droppable(self) -> Iterator[tuple[float, int, Path]]:
        """Yields when each folder was last used, its size in bytes, and the folder."""
        for marker in self.folder.glob(f"[!.]*/{METADATA}"):
            with suppress(OSError, ValueError, AttributeError):
                if not read_metadata(marker.parent).get(KEPT):
                    size = sum(path.stat().st_size for path in marker.parent.iterdir())
                    yield marker.stat().st_mtime, size, marker.parent


def finish_folder(folder: Path, values: Mapping[str, Any]) -> None:
    """Writes ``METADATA`` of ``values`` and the checksums of all other files in ``folder``."""
    sums = {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.name != METADATA}
    text = json.dumps({**values, SUMS: sums}, indent=1)
    (folder / METADATA).write_text(text + "\n", encoding="utf-8")


def read_metadata(folder: Path) -> dict[str, Any]:
    """Reads ``METADATA`` of ``folder``. Raises OSError or ValueError if it cannot be read."""
    return json.loads((folder / METADATA).read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def _sources() -> str:
    """Returns a digest of the code of all models and of what exports them; the package's version is too coarse."""
    digest = hashlib.sha256()
    package = Path(__file__).parents[1]
    for path in [*sorted((package / "models").rglob("*.py")), package / "runtime" / "graphs.py"]:
        digest.update(path.read_bytes())
    return digest.hexdigest()
