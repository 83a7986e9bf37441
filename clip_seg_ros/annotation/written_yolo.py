# SPDX-License-Identifier: Apache-2.0
"""The format "yolo": text files for YOLO-seg, as ultralytics reads them.

    yolo/
      data.yaml                   the classes, and the lists of images
      train.txt, val.txt          the images to train on, and those that are held out by time
      images/SOURCE/000012.jpg    the images of the run: the same files under a second name, or copies
      labels/SOURCE/000012.txt    an object in each line: the number of its class, and its outline in 0..1

The format knows no holes, no parts and nothing to be ignored: an object is one polygon, a doubtful one as any other.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

import yaml

from clip_seg_ros.annotation.files import whole_file, write_whole
from clip_seg_ros.annotation.job import Job
from clip_seg_ros.annotation.layout import IMAGES, LABELS, YOLO
from clip_seg_ros.annotation.polygons import mask_polygon
from clip_seg_ros.annotation.results import AnnotatedFrame
from clip_seg_ros.annotation.writing import Frames, class_names, picture_name
from clip_seg_ros.data.time_split import Taken, time_parts

_TRAIN, _VAL = "train.txt", "val.txt"


def write_yolo(out: Path, frames: Frames, job: Job) -> None:
    """Writes the folder of a run.

    Args:
        out: The folder of the run, which holds the images.
        frames: All images, at each call.
        job: What was asked.

    Raises:
        OSError: An image is missing.
    """
    folder = out / YOLO
    names = class_names(frames, job)
    numbers = {name: number for number, name in enumerate(names)}
    held_out = 0
    with ExitStack() as stack:
        lists = {part: stack.enter_context(whole_file(folder / f"{part}.txt")) for part in ("train", "val")}
        for frame, part in zip(frames(), time_parts(taken(frames)), strict=True):
            name = picture_name(frame)
            file = folder / LABELS / PurePosixPath(name).with_suffix(".txt")
            write_whole(file, _lines(frame, numbers).encode(), is_lasting=False)
            _same_file(out / frame.picture, folder / IMAGES / name)
            held_out += part == "val"
            if part in lists:
                lists[part].write(f"./{IMAGES}/{name}\n".encode())
    # Without images of its own, validation is on those of training: ultralytics needs a list.
    content = {"train": _TRAIN, "val": _VAL if held_out else _TRAIN, "names": dict(enumerate(names))}
    write_whole(folder / "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode())


def taken(frames: Frames) -> Callable[[], Iterator[Taken]]:
    """Returns where the images come from, as ``time_parts`` takes it."""
    return lambda: (Taken(frame.source, frame.topic, frame.stamp_ns) for frame in frames())


def _lines(frame: AnnotatedFrame, numbers: dict[str, int]) -> str:
    height, width = frame.size
    lines = []
    for thing in frame.objects:
        # Readers multiply by the size and cut off what follows the point.
        outline = (mask_polygon(thing.mask(frame.size)) + 0.5) / (width, height)
        lines.append(f"{numbers[thing.prompt]} {' '.join(f'{value:.6f}' for value in outline.ravel())}\n")
    return "".join(lines)


def _same_file(picture: Path, other: Path) -> None:
    """Gives an image a second name; where that is not possible, copies it."""
    other.parent.mkdir(parents=True, exist_ok=True)
    if other.exists() and os.path.samefile(picture, other):
        return
    other.unlink(missing_ok=True)
    try:
        os.link(picture, other)
    except OSError:
        shutil.copyfile(picture, other)
