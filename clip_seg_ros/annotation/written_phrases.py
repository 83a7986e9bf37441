# SPDX-License-Identifier: Apache-2.0
"""The format "phrases": phrases with masks, as ``kind: folder`` reads them: phrases.csv and masks/.

A phrase has one mask of all its objects in an image. Where one of them is doubtful, the phrase has no row for this
image. Each image has a row without a mask, too, for one phrase that was looked for and not found.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from io import BytesIO, StringIO
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from clip_seg_ros.annotation.files import whole_file, write_whole
from clip_seg_ros.annotation.job import Job
from clip_seg_ros.annotation.results import AnnotatedFrame
from clip_seg_ros.annotation.writing import Frames, class_names, is_sure, picture_name
from clip_seg_ros.data.folder import COLUMNS, TABLE

MASKS = "masks"


def write_phrases(out: Path, frames: Frames, job: Job) -> None:
    """Writes the masks of a run, and at last their table.

    Args:
        out: The folder of the run.
        frames: All images, at each call.
        job: What was asked.
    """
    names = class_names(frames, job)
    with whole_file(out / TABLE) as table:
        table.write(_line(COLUMNS))
        for number, frame in enumerate(frames()):
            for row in _rows(out, names, frame, number):
                table.write(_line(row))


def _rows(out: Path, names: tuple[str, ...], frame: AnnotatedFrame, number: int) -> Iterator[tuple[str, str, str]]:
    """Yields the rows of an image, and writes their masks."""
    absent = []
    for place, name in enumerate(names):
        things = [thing for thing in frame.objects if thing.prompt == name]
        if not things:
            absent.append(name)
        elif all(map(is_sure, things)):
            word = re.sub(r"[^\w-]+", "_", name, flags=re.ASCII)
            path = f"{MASKS}/{PurePosixPath(picture_name(frame)).with_suffix('')}_{place}_{word}.png"
            mask = np.logical_or.reduce([thing.mask(frame.size) for thing in things])
            content = BytesIO()
            Image.fromarray(mask.astype(np.uint8) * 255).save(content, "PNG")
            write_whole(out / path, content.getvalue(), is_lasting=False)
            yield frame.picture, path, name
    if absent:
        yield frame.picture, "", absent[number % len(absent)]


def _line(cells: tuple[str, ...]) -> bytes:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()
