# SPDX-License-Identifier: Apache-2.0
"""The formats in which the results of a run are written, by their names in ``--formats``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from clip_seg_ros.annotation.job import Job
from clip_seg_ros.annotation.writing import Frames
from clip_seg_ros.annotation.written_coco import write_coco
from clip_seg_ros.annotation.written_cvat import write_cvat
from clip_seg_ros.annotation.written_labels import write_labels
from clip_seg_ros.annotation.written_phrases import write_phrases
from clip_seg_ros.annotation.written_recording import write_recordings
from clip_seg_ros.annotation.written_yolo import write_yolo

FORMATS: dict[str, Callable[[Path, Frames, Job], None]] = {
    "coco": write_coco,
    "labels": write_labels,
    "yolo": write_yolo,
    "phrases": write_phrases,
    "cvat": write_cvat,
    "mcap": write_recordings,
}
"""Each takes the folder of the run, the images, and what was asked. It reads the images as often as it needs them,
keeps none of them, and gives the same bytes for the same input."""
READING_IMAGES = frozenset(("yolo", "cvat", "mcap"))
"""Those that read the kept images, too; others do with what was found."""
