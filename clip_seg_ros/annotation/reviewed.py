# SPDX-License-Identifier: Apache-2.0
"""Writes the data set of a run anew, with what people decided about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from clip_seg_ros.annotation.formats import FORMATS
from clip_seg_ros.annotation.linking import all_frames
from clip_seg_ros.annotation.manifest import read_job, read_manifest
from clip_seg_ros.annotation.review import with_decisions
from clip_seg_ros.data.samples import DataError


def formats_of(out: Path) -> list[str]:
    """Returns the formats in which a run was written.

    Raises:
        DataError: It was not written yet.
    """
    manifest = read_manifest(out)
    if manifest is None or not manifest.get("formats"):
        raise DataError(f"{out} has no written formats yet: name them with --formats {','.join(FORMATS)}")
    return list(manifest["formats"])


def write_reviewed(out: Path, formats: Sequence[str]) -> Iterator[str]:
    """Writes a run in some formats with what was decided; yields the name of each one that is written.

    Args:
        out: The folder of the run.
        formats: Names of ``formats.FORMATS``.

    Raises:
        DataError: There is no such format or no run, or it is damaged.
        OSError: Something cannot be read or written.
    """
    if unknown := [name for name in formats if name not in FORMATS]:
        raise DataError(f"there is no format {unknown[0]!r}; there are {', '.join(FORMATS)}")
    job = read_job(out)
    frames = with_decisions(out, lambda: all_frames(out, job))
    for name in formats:
        FORMATS[name](out, frames, job)
        yield name
