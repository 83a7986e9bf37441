# SPDX-License-Identifier: Apache-2.0
"""The format "labels": a class for every pixel as an index PNG, with the list of classes: ``kind: labelled_folder``.

Number 0 is the background, and the phrases follow in their order. Where objects overlap, the better score wins. Pixels
of doubtful objects are 255, which is ignored in training and in measuring.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from clip_seg_ros.annotation.files import write_whole
from clip_seg_ros.annotation.job import Job
from clip_seg_ros.annotation.layout import CLASSES, LABELS
from clip_seg_ros.annotation.results import AnnotatedFrame
from clip_seg_ros.annotation.writing import Frames, class_names, is_sure, picture_name, pixel_owners
from clip_seg_ros.data.coco import BACKGROUND
from clip_seg_ros.data.samples import IGNORED, DataError
from clip_seg_ros.pipeline.class_labels import class_colors

_IGNORED_RGB = (128, 128, 128)


def write_labels(out: Path, frames: Frames, job: Job) -> None:
    """Writes the label images of a run, and at last the list of classes.

    Args:
        out: The folder of the run.
        frames: All images, at each call.
        job: What was asked.

    Raises:
        DataError: There are more classes than numbers.
    """
    names = label_names(class_names(frames, job))
    if len(names) > IGNORED:
        raise DataError(f"a label image tells {IGNORED} classes apart, and here are {len(names)}: use the format coco")
    numbers = {name: number for number, name in enumerate(names)}
    palette = label_palette(names)
    for frame in frames():
        image = Image.fromarray(_labels(frame, numbers))
        image.putpalette(palette)
        content = BytesIO()
        image.save(content, "PNG")
        file = out / LABELS / PurePosixPath(picture_name(frame)).with_suffix(".png")
        write_whole(file, content.getvalue(), is_lasting=False)
    write_whole(out / CLASSES, "".join(f"{name}\n" for name in names).encode())


def label_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the classes of label images: the background, if it is no phrase, and the phrases."""
    return names if BACKGROUND in names else (BACKGROUND, *names)


def label_palette(names: tuple[str, ...]) -> bytes:
    """Returns the palette, 256 times red, green and blue: the background is black, what is ignored is grey."""
    things = [number for number, name in enumerate(names) if name != BACKGROUND]
    colors = np.zeros((256, 3), np.uint8)
    colors[things] = class_colors(len(things))[: len(things)]
    colors[IGNORED] = _IGNORED_RGB
    return colors.tobytes()


def _labels(frame: AnnotatedFrame, numbers: dict[str, int]) -> np.ndarray:
    """Returns the labels, (H, W) uint8."""
    things, owners = pixel_owners(frame)
    # A phrase "background" is a class that nothing else stands for.
    rest = numbers[BACKGROUND]
    values = [rest, *(numbers[thing.prompt] if is_sure(thing) else IGNORED for thing in things)]
    return np.array(values, np.uint8)[owners]
