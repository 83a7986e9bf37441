# SPDX-License-Identifier: Apache-2.0
"""What ``clip-seg annotate`` writes, with what is known about it that other readers of COCO's format leave aside.

Doubtful objects are neither learnt nor measured, until a person accepts them. Where objects overlap, the better score
lies on top. The held-out part is the last fifth of the time of each recording (``time_split``), because a part that is
drawn at random holds images that look like their neighbours in training. Phrases that were not found are known, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from clip_seg_ros.data.coco import CocoInstances, CocoPhrases, CocoSemantic, Task, find_coco
from clip_seg_ros.data.coco_annotations import CocoFile, CocoImage, CocoObject
from clip_seg_ros.data.samples import IGNORED, DataError, ReferringSample, SemanticSample
from clip_seg_ros.data.time_split import Taken, time_parts

Split = Literal["all", "train", "val"]


class AnnotatedSemantic(CocoSemantic):
    """A class for every pixel: that of the object with the best score, or "background"; doubtful ones are ignored."""

    def __getitem__(self, index: int) -> SemanticSample:
        """Reads an image and draws its labels.

        Raises:
            DataError: A file cannot be read, or a mask is invalid.
        """
        image = self._images[index]
        rgb = self._rgb(image)
        labels = np.full(rgb.shape[:2], self._rest, np.uint8)
        things = sorted(self._counted(image), key=_rank)
        for thing, mask in zip(things, self._masks(image, things, labels.shape), strict=True):
            labels[mask] = IGNORED if thing.doubtful else self._index[thing.category]
        return SemanticSample(rgb=rgb, labels=labels, name=image.name)


class AnnotatedPhrases(CocoPhrases):
    """Phrases with masks: those of each image that have a sure object, and one that was not found in it.

    A phrase has one mask of all its sure objects; pixels of doubtful ones are ignored.
    """

    def __init__(self, file: CocoFile, classes: Sequence[str] | None) -> None:
        """Lists the phrases of each image. Raises DataError if a class does not exist or no image shows any."""
        super().__init__(file, classes)
        self._samples = [
            (image, index) for number, image in enumerate(file.images) for index in self._asked(image, number)
        ]
        self.phrases = tuple(self._classes[index] for _, index in self._samples)
        self.pictures = tuple(image.name for image, _ in self._samples)

    def __getitem__(self, index: int) -> ReferringSample:
        """Reads an image and the mask of one phrase, named "kitchen/000012/cup".

        Raises:
            DataError: A file cannot be read, or a mask is invalid.
        """
        image, label = self._samples[index]
        rgb = self._rgb(image)
        things = [thing for thing in self._counted(image) if self._index[thing.category] == label]
        masks = self._masks(image, things, rgb.shape[:2])
        mask, doubtful = np.zeros(rgb.shape[:2], bool), np.zeros(rgb.shape[:2], bool)
        for thing, drawn in zip(things, masks, strict=True):
            (doubtful if thing.doubtful else mask)[drawn] = True
        phrase = self.phrases[index]
        return ReferringSample(rgb, phrase, mask, f"{image.name}/{phrase}", ignored=doubtful & ~mask)

    def _asked(self, image: CocoImage, number: int) -> Iterator[int]:
        """Yields the classes with a sure object, and one of those without any object, another one in each image."""
        there = {self._index[thing.category] for thing in self._counted(image)}
        yield from sorted({self._index[thing.category] for thing in self._counted(image) if not thing.doubtful})
        absent = [index for index in range(len(self._classes)) if index not in there]
        if absent:
            yield absent[number % len(absent)]


def open_annotated(
    root: Path,
    split: Split = "all",
    task: Task = "semantic",
    classes: tuple[str, ...] | None = None,
) -> AnnotatedSemantic | CocoInstances | AnnotatedPhrases:
    """Opens the folder that ``clip-seg annotate`` wrote, with the format coco.

    Args:
        root: Path of the folder.
        split: "train" for the first three quarters of the time of each recording, "val" for the last fifth, "all" for
            every image.
        task: "semantic" for a class for every pixel, "instances" for objects, of which doubtful ones count as regions
            of many, which are not learnt and in which no answer is wrong; "phrases" for phrases with masks.
        classes: The phrases that count, in their order; by default all.

    Raises:
        DataError: A file is missing or wrong, or the split has no image.
    """
    try:
        file = find_coco(root)
    except DataError as error:
        raise DataError(f"{error}; clip-seg annotate writes it with --formats coco") from error
    if split != "all":
        file = _part(file, split)
    if task == "phrases":
        return AnnotatedPhrases(file, classes)
    if task == "semantic":
        return AnnotatedSemantic(file, classes, None)
    return CocoInstances(replace(file, images=tuple(map(_crowded, file.images))), classes)


def _part(file: CocoFile, split: Split) -> CocoFile:
    def taken() -> Iterator[Taken]:
        # Other programs that wrote the file anew may have left out where the images come from.
        return (image.taken or Taken(Path(image.name).parent.as_posix(), "", 0) for image in file.images)

    images = tuple(image for image, part in zip(file.images, time_parts(taken), strict=True) if part == split)
    if not images:
        raise DataError(
            f"{file.path} has {len(file.images)} images, of which none is for {split}: annotate more images, or use "
            "split all"
        )
    return replace(file, images=images)


def _crowded(image: CocoImage) -> CocoImage:
    """Returns an image whose doubtful objects are regions of many."""
    return replace(image, objects=tuple(replace(each, crowd=each.crowd or each.doubtful) for each in image.objects))


def _rank(thing: CocoObject) -> tuple[bool, float, float]:
    """Returns what orders the objects of an image so that the one that counts is drawn last."""
    return (thing.decided, 1.0 if thing.score is None else thing.score, -(thing.area_px or 0.0))
