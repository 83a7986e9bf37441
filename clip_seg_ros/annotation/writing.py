# SPDX-License-Identifier: Apache-2.0
"""What the written formats of a run share: its classes, and which of the objects are sure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

import numpy as np

from clip_seg_ros.annotation.job import Job
from clip_seg_ros.annotation.layout import IMAGES
from clip_seg_ros.annotation.results import AnnotatedFrame, AnnotatedObject

Frames = Callable[[], Iterator[AnnotatedFrame]]
"""Yields all images of a run in the order of the sources and their times, again at each call."""


def class_names(frames: Frames, job: Job) -> tuple[str, ...]:
    """Returns the phrases of a run in their order, and behind them the names that a person gave, sorted."""
    asked = tuple(dict.fromkeys(phrase.text for phrase in job.phrases))
    given: set[str] = set()
    for frame in frames():
        given.update(thing.prompt for thing in frame.objects)
    return (*asked, *sorted(given.difference(asked)))


def picture_name(frame: AnnotatedFrame) -> str:
    """Returns the path of an image's copy below the folder of the images, such as "kitchen/000012.jpg"."""
    return PurePosixPath(frame.picture).relative_to(IMAGES).as_posix()


def is_sure(thing: AnnotatedObject) -> bool:
    """Returns whether an object counts as true: its score is high enough, or a person said so."""
    return thing.band == "sure" or _is_decided(thing)


def by_score(frame: AnnotatedFrame) -> list[AnnotatedObject]:
    """Returns the objects in the order in which they are drawn, so that the one that counts lies on top.

    What a person decided lies over what the model found, then the better score over the worse one, the smaller object
    over the larger one.
    """
    return sorted(frame.objects, key=lambda thing: (_is_decided(thing), thing.score, -thing.area_px))


def pixel_owners(frame: AnnotatedFrame) -> tuple[list[AnnotatedObject], np.ndarray]:
    """Returns the objects of an image, and the number of the object, from 1, that each pixel (H, W) belongs to.

    Raises:
        DataError: A mask is of another size than the image.
    """
    things = by_score(frame)
    owners = np.zeros(frame.size, np.int32)
    for number, thing in enumerate(things, start=1):
        owners[thing.mask(frame.size)] = number
    return things, owners


def _is_decided(thing: AnnotatedObject) -> bool:
    return thing.decided != "guessed"
