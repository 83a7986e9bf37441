# SPDX-License-Identifier: Apache-2.0
"""A user's own images with annotations in COCO's format, as COCO, CVAT, Label Studio and Roboflow export them.

One file of annotations is read in three ways: as a class for every pixel, as objects, or as phrases with masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Literal

import numpy as np

from clip_seg_ros.data.coco_annotations import CocoFile, CocoImage, CocoObject, read_coco
from clip_seg_ros.data.samples import (
    IGNORED,
    DataError,
    InstanceSample,
    ReferringSample,
    SemanticSample,
    read_rgb,
)
from clip_seg_ros.data.suggestions import did_you_mean

BACKGROUND = "background"
"""The class of the pixels without an object."""
Task = Literal["semantic", "instances", "phrases"]
_WITHOUT_SPLIT = ("annotations/instances_default.json", "result.json", "_annotations.coco.json")
_WITH_SPLIT = (
    "annotations/instances_{}.json",
    "annotations/panoptic_{}.json",
    "annotations/{}.json",
    "{}/_annotations.coco.json",
    "{}.json",
)


class _Coco:
    """What the three ways of reading a file share: images with the objects of the chosen classes."""

    def __init__(self, file: CocoFile, classes: Sequence[str] | None) -> None:
        known = {category.name: category for category in file.categories}
        for name in classes or ():
            if name not in known:
                hint = did_you_mean(name, known)
                raise DataError(f"{file.path} has no category {name}, only {', '.join(known)}{hint}")
        self._file = file
        self._chosen = [known[name] for name in classes] if classes else file.categories
        self._images: Sequence[CocoImage] = file.images
        self._classes = tuple(category.name for category in self._chosen)
        self._index = {category.number: index for index, category in enumerate(self._chosen)}

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each image."""
        return tuple(image.name for image in self._images)

    def __len__(self) -> int:
        return len(self._images)

    def _counted(self, image: CocoImage) -> list[CocoObject]:
        return [thing for thing in image.objects if thing.category in self._index]

    def _rgb(self, image: CocoImage) -> np.ndarray:
        rgb = read_rgb(image.path)
        if image.size is not None and rgb.shape[:2] != image.size:
            raise DataError(
                f"{image.path} is {rgb.shape[1]} x {rgb.shape[0]} pixels, but {image.size[1]} x {image.size[0]} in "
                f"{self._file.path}: use the images that were labelled"
            )
        return rgb

    def _masks(self, image: CocoImage, things: Sequence[CocoObject], size: tuple[int, int]) -> list[np.ndarray]:
        """Returns the mask of each object, (H, W) bool."""
        if self._file.panoptic:
            numbers = self._segments(image, size)
            return [numbers == thing.segment for thing in things]
        masks = []
        for thing in things:
            try:
                masks.append(thing.mask(*size))
            except DataError as error:
                raise DataError(f"an object on {image.path} in {self._file.path}: {error}") from error
        return masks

    def _segments(self, image: CocoImage, size: tuple[int, int]) -> np.ndarray:
        """Returns the numbers of panoptic segments, (H, W) int32; 0 belongs to none."""
        if image.segments is None:
            raise DataError(f"{self._file.path} has no annotation of {image.path}")
        colours = read_rgb(image.segments).astype(np.int32)
        if colours.shape[:2] != size:
            raise DataError(
                f"{image.segments} is {colours.shape[1]} x {colours.shape[0]} pixels, its image {size[::-1]}"
            )
        numbers = colours @ np.array([1, 256, 256**2], np.int32)
        known = [0, *(thing.segment for thing in image.objects)]
        if strange := np.setdiff1d(numbers, known).tolist():
            raise DataError(f"{image.segments} holds the segment {strange[0]}, which {self._file.path} does not name")
        return numbers


class CocoSemantic(_Coco):
    """A class for every pixel. Where objects overlap, the smaller one lies over the larger one.

    Regions of many objects ("iscrowd") belong to their class. Pixels of no chosen class are ``BACKGROUND``, or ignored.
    """

    def __init__(self, file: CocoFile, classes: Sequence[str] | None, background: bool | None) -> None:
        """Chooses the images.

        Args:
            file: The annotations.
            classes: The classes that count; ``None`` for all.
            background: Whether pixels of no class are the class ``BACKGROUND``; otherwise they are ignored, and images
                without an object are left out. ``None`` stands for False in panoptic files and True in others.

        Raises:
            DataError: Objects have no outline, a class does not exist, or no image is left.
        """
        super().__init__(file, classes)
        _require_outlines(file, "a class for every pixel")
        wanted = not file.panoptic if background is None else background
        self.class_names = self._classes
        if wanted and BACKGROUND not in self.class_names:
            self.class_names = (BACKGROUND, *self.class_names)
            self._index = {number: index + 1 for number, index in self._index.items()}
        if len(self.class_names) > IGNORED:
            raise DataError(f"{file.path} has {len(self.class_names)} classes; choose at most {IGNORED} with classes")
        self._rest = self.class_names.index(BACKGROUND) if wanted else IGNORED
        if not wanted:
            self._images = [image for image in self._images if self._counted(image)]
            if not self._images:
                raise DataError(f"{file.path} has no object of these classes: {', '.join(self.class_names)}")

    def __getitem__(self, index: int) -> SemanticSample:
        """Reads an image and draws its labels.

        Raises:
            DataError: A file cannot be read, or an outline is invalid.
        """
        image = self._images[index]
        rgb = self._rgb(image)
        labels = np.full(rgb.shape[:2], self._rest, np.uint8)
        things = self._counted(image)
        masks = self._masks(image, things, labels.shape) if things else []
        for place in sorted(range(len(masks)), key=lambda place: -np.count_nonzero(masks[place])):
            labels[masks[place]] = self._index[things[place].category]
        return SemanticSample(rgb=rgb, labels=labels, name=image.name)


class CocoInstances(_Coco):
    """Objects with boxes and masks. Those without an area are left out; of a panoptic file, only things are objects."""

    def __init__(self, file: CocoFile, classes: Sequence[str] | None, masks: bool = True) -> None:
        """Chooses the classes.

        Args:
            file: The annotations.
            classes: The classes that count; ``None`` for all.
            masks: Whether objects have masks. Without them, an object is a box alone, as in a file without outlines.

        Raises:
            DataError: Only some of the objects have an outline, or a class does not exist.
        """
        things = [category.name for category in file.categories if category.thing]
        super().__init__(file, classes or things)
        self.class_names = self._classes
        outlined, boxed = file.outlines
        if masks and outlined and boxed and not file.panoptic:
            raise DataError(
                f"{boxed} of {outlined + boxed} objects in {file.path} have a box and no outline: outline them, or say "
                "masks: false to use boxes alone"
            )
        self._with_masks = masks and (file.panoptic or outlined > 0)

    def with_objects(self) -> CocoInstances:
        """Returns the images that show something to learn: an object with an area that is no crowd.

        Raises:
            DataError: There is no such image.
        """
        kept = copy(self)
        kept._images = [image for image in self._images if any(_learnt(t, image) for t in self._counted(image))]
        if not kept._images:
            raise DataError(f"{self._file.path} has no object to learn of these classes: {', '.join(self._classes)}")
        return kept

    def __getitem__(self, index: int) -> InstanceSample:
        """Reads an image and its objects.

        Raises:
            DataError: A file cannot be read, an outline is invalid, or an object has neither outline nor box.
        """
        image = self._images[index]
        rgb = self._rgb(image)
        size = rgb.shape[:2]
        things = self._counted(image)
        masks = self._drawn(image, things, size)
        boxes = [_box_px(thing, mask, size) for thing, mask in zip(things, masks)]
        kept = [place for place, (left, top, right, bottom) in enumerate(boxes) if right > left and bottom > top]
        areas = [_area_px(things[place], masks[place], boxes[place]) for place in kept]
        stacked = np.array([masks[place] for place in kept], bool).reshape(-1, *size) if self._with_masks else None
        return InstanceSample(
            rgb=rgb,
            labels=np.array([self._index[things[place].category] for place in kept], np.int64),
            boxes_px=np.array([boxes[place] for place in kept], np.float32).reshape(-1, 4),
            masks=stacked,
            areas_px=np.array(areas, np.float32),
            crowd=np.array([things[place].crowd for place in kept], bool),
            name=image.name,
        )

    def _drawn(self, image: CocoImage, things: Sequence[CocoObject], size: tuple[int, int]) -> list[np.ndarray | None]:
        """Returns the masks that are needed: all of them, or those of objects without a box."""
        places = [place for place, thing in enumerate(things) if self._with_masks or thing.box is None]
        if not self._file.panoptic and any(things[place].segmentation is None for place in places):
            raise DataError(f"an object on {image.path} in {self._file.path} has neither a box nor an outline")
        masks: list[np.ndarray | None] = [None] * len(things)
        if places:
            for place, mask in zip(places, self._masks(image, [things[place] for place in places], size)):
                masks[place] = mask
        return masks


class CocoPhrases(_Coco):
    """The classes of an image as phrases: a sample is one class in one image, with the mask of all its objects."""

    def __init__(self, file: CocoFile, classes: Sequence[str] | None) -> None:
        """Lists the classes of each image.

        Raises:
            DataError: Objects have no outline, a class does not exist, or no image shows any.
        """
        super().__init__(file, classes)
        _require_outlines(file, "masks of phrases")
        self._samples = [
            (image, index)
            for image in file.images
            for index in sorted({self._index[t.category] for t in self._counted(image)})
        ]
        if not self._samples:
            raise DataError(f"{file.path} has no object of these classes: {', '.join(self._classes)}")
        self.phrases = tuple(self._classes[index] for _, index in self._samples)
        """The phrase of each sample."""
        self.pictures = tuple(image.name for image, _ in self._samples)
        """The name of the image of each sample."""

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> ReferringSample:
        """Reads an image and the mask of one class, named "desk/cup".

        Raises:
            DataError: A file cannot be read, or an outline is invalid.
        """
        image, label = self._samples[index]
        rgb = self._rgb(image)
        things = [thing for thing in self._counted(image) if self._index[thing.category] == label]
        mask = np.logical_or.reduce(self._masks(image, things, rgb.shape[:2]))
        phrase = self.phrases[index]
        return ReferringSample(rgb, phrase, mask, f"{image.name}/{phrase}")


def open_coco(
    root: Path,
    split: str | None = None,
    task: Task = "semantic",
    annotations: str | None = None,
    images: str | None = None,
    panoptic: str | None = None,
    classes: tuple[str, ...] | None = None,
    background: bool | None = None,
    masks: bool = True,
) -> CocoSemantic | CocoInstances | CocoPhrases:
    """Opens a folder with annotations in COCO's format. Paths are relative to ``root``.

    Args:
        root: Path of the folder.
        split: Name of the split in the names of files, such as "val2017" (COCO) or "valid" (Roboflow).
        task: "semantic" for a class for every pixel, "instances" for objects, "phrases" for the names of the classes
            with masks.
        annotations: The JSON file; by default the one at the usual place of COCO, CVAT, Label Studio or Roboflow.
        images: The folder of the images; by default one of the usual places.
        panoptic: The folder of the PNG files of a panoptic file; by default that with the name of the JSON file.
        classes: The classes that count, in their order; by default all, in the order of their ids.
        background: For "semantic": whether pixels of no class are the class "background". See ``CocoSemantic``.
        masks: For "instances": false reads boxes alone.

    Raises:
        DataError: A file is missing or wrong; the message says what to do.
    """
    file = find_coco(root, split, annotations, images, panoptic)
    if task == "instances":
        return CocoInstances(file, classes, masks)
    return CocoPhrases(file, classes) if task == "phrases" else CocoSemantic(file, classes, background)


def find_coco(
    root: Path,
    split: str | None = None,
    annotations: str | None = None,
    images: str | None = None,
    panoptic: str | None = None,
) -> CocoFile:
    """Finds and reads the annotations of a folder; the arguments and errors are those of ``open_coco``."""
    if not root.is_dir():
        raise DataError(f"there is no folder {root}: it holds the images and the annotations in COCO's format")
    path = _annotations(root, split, annotations)
    parts = [part for part in (split, "default") if part]
    beside = [path.parent, root, root / "images"]
    places = [root / images] if images else [*(folder / part for part in parts for folder in beside), *beside]
    segments = [root / panoptic] if panoptic else [path.with_suffix(""), path.parent, root / path.stem, root]
    return read_coco(path, places, segments)


def _annotations(root: Path, split: str | None, annotations: str | None) -> Path:
    """Returns the path of the JSON file."""
    if annotations:
        return root / annotations
    usual = [name.format(split) for name in _WITH_SPLIT] if split else list(_WITHOUT_SPLIT)
    there = [root / name for name in usual if (root / name).is_file()]
    if there:
        return there[0]
    found = sorted([*root.glob("*.json"), *root.glob("*/*.json")])
    if len(found) == 1 and not split:
        return found[0]
    listed = ", ".join(str(path.relative_to(root)) for path in found[:10]) or "none"
    raise DataError(
        f"{root} has no file of annotations at a usual place ({', '.join(usual)}): name one with annotations "
        f"(JSON files there: {listed})"
    )


def _require_outlines(file: CocoFile, what: str) -> None:
    outlined, boxed = file.outlines
    if boxed and not file.panoptic:
        raise DataError(
            f"{boxed} of {outlined + boxed} objects in {file.path} have a box and no outline, from which {what} cannot "
            "be drawn: outline them, or use task: instances"
        )


def _box_px(thing: CocoObject, mask: np.ndarray | None, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Returns x_min, y_min, x_max, y_max, inside the image."""
    if thing.box is not None:
        x, y, width, height = thing.box
        left, top, right, bottom = x, y, x + width, y + height
    else:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return (0, 0, 0, 0)
        left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return (max(left, 0), max(top, 0), min(right, size[1]), min(bottom, size[0]))


def _learnt(thing: CocoObject, image: CocoImage) -> bool:
    """Returns whether a detector learns an object, without drawing its outline: one without a box has an area."""
    if thing.crowd or thing.box is None:
        return not thing.crowd
    left, top, right, bottom = _box_px(thing, None, image.measured())
    return right > left and bottom > top


def _area_px(thing: CocoObject, mask: np.ndarray | None, box: tuple[float, float, float, float]) -> float:
    """Returns the area in the file, or that of the mask, or that of the box."""
    if thing.area_px is not None:
        return thing.area_px
    if mask is not None:
        return float(np.count_nonzero(mask))
    return (box[2] - box[0]) * (box[3] - box[1])
