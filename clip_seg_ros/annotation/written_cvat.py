# SPDX-License-Identifier: Apache-2.0
"""The format "cvat": the images and their objects in one file, which CVAT imports as "COCO 1.0"."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from clip_seg_ros.annotation.files import whole_file
from clip_seg_ros.annotation.job import Job
from clip_seg_ros.annotation.layout import COCO, CVAT
from clip_seg_ros.annotation.writing import Frames, picture_name
from clip_seg_ros.annotation.written_coco import coco_parts

_PICTURES = "images/default"
"""The folder of the images, by the name of the subset that the name of the file of annotations ends with."""


def write_cvat(out: Path, frames: Frames, job: Job) -> None:
    """Writes the zip file of a run.

    Args:
        out: The folder of the run, which holds the images.
        frames: All images, at each call.
        job: What was asked.

    Raises:
        OSError: An image is missing.
    """
    with whole_file(out / CVAT) as file, ZipFile(file, "w") as archive:
        with archive.open(_entry(COCO, ZIP_DEFLATED), "w", force_zip64=True) as annotations:
            for part in coco_parts(out, frames, job, with_attributes=True):
                annotations.write(part)
        for frame in frames():
            entry = _entry(f"{_PICTURES}/{picture_name(frame)}", ZIP_STORED)
            archive.writestr(entry, (out / frame.picture).read_bytes())


def _entry(name: str, way: int) -> ZipInfo:
    """Returns a file in the archive, whose time is always the same, so that the same input gives the same bytes."""
    entry = ZipInfo(name)
    entry.compress_type = way
    entry.external_attr = 0o644 << 16
    return entry
