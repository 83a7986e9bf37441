# SPDX-License-Identifier: Apache-2.0
"""Reads annotation files in COCO's formats: objects with outlines or boxes, and panoptic segments.

COCO's own files, and those that CVAT, Label Studio, Roboflow and others export. Keys that the exports leave out are
optional here, too: the size of an image, and the box, the area and "iscrowd" of an object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from clip_seg_ros.data.coco_masks import decode_segmentation, packed, read_json
from clip_seg_ros.data.samples import DataError, rgb_size
from clip_seg_ros.data.time_split import Taken

ADVICE = "export the annotations again, in the format COCO"


@dataclass(frozen=True)
class Category:
    """One class of an annotation file."""

    number: int
    """Its id, which need not be without gaps."""
    name: str
    thing: bool
    """Whether it has objects that can be counted; False for "stuff", such as sky, of panoptic files."""


@dataclass(frozen=True, slots=True)
class CocoObject:
    """One object, or one segment of a panoptic image."""

    image: int | str
    """The id of its image."""
    category: int
    box: tuple[float, float, float, float] | None
    """x, y, width, height in pixels; ``None`` where the file has none."""
    area_px: float | None
    crowd: bool
    segmentation: list | dict | None
    """The outline, as ``coco_masks.decode_segmentation`` takes it; ``None`` for a box alone, and in panoptic files."""
    segment: int | None = None
    """The number of a panoptic segment in its PNG file."""
    score: float | None = None
    """How sure a model was of it, 0..1; ``None`` where the file does not say."""
    doubtful: bool = False
    """Whether ``clip-seg annotate`` was not sure of it, and no person was either."""
    decided: bool = False
    """Whether a person accepted or corrected what a model had found."""

    def mask(self, height: int, width: int) -> np.ndarray:
        """Returns its mask (height, width) bool. Raises DataError if the outline is none of such an image."""
        return decode_segmentation(self.segmentation, height, width)


@dataclass(frozen=True)
class CocoImage:
    """One image, and what it shows."""

    path: Path
    size: tuple[int, int] | None
    """(height, width) in pixels; ``None`` where the file does not say."""
    name: str
    """Its name in reports: the one in the file, without a suffix."""
    objects: tuple[CocoObject, ...]
    segments: Path | None = None
    """The PNG file of a panoptic image."""
    taken: Taken | None = None
    """Where it comes from; ``None`` where the file does not say."""

    def measured(self) -> tuple[int, int]:
        """Returns (height, width), from the header of the image where the annotations do not say."""
        return self.size or rgb_size(self.path)[::-1]


@dataclass(frozen=True)
class CocoFile:
    """The content of an annotation file."""

    path: Path
    categories: tuple[Category, ...]
    """The classes by ascending number."""
    images: tuple[CocoImage, ...]
    """The images in the order of the file."""
    panoptic: bool

    @property
    def outlines(self) -> tuple[int, int]:
        """The number of objects that have an outline, and that of those that have a box alone."""
        there = [thing.segmentation is not None for image in self.images for thing in image.objects]
        return sum(there), len(there) - sum(there)


def read_coco(path: Path, image_folders: Sequence[Path], segment_folders: Sequence[Path]) -> CocoFile:
    """Reads an annotation file.

    Args:
        path: The JSON file.
        image_folders: Folders in which the images may be. The first one that has the first image is used.
        segment_folders: Folders in which the PNG files of a panoptic file may be, likewise.

    Raises:
        DataError: The file is missing, broken or of another format, or its images are in none of the folders.
    """
    content = read_json(path, ADVICE, _shrunk)
    lists = [content.get(key) for key in ("images", "annotations", "categories")] if isinstance(content, dict) else []
    if not lists or not all(isinstance(entries, list) for entries in lists):
        raise DataError(f"{path} has no lists of images, annotations and categories, as COCO's format has: {ADVICE}")
    try:
        objects, segments = _objects(path, content["annotations"], {entry["id"] for entry in content["categories"]})
        used = {thing.category for things in objects.values() for thing in things}
        categories = _categories(path, content["categories"], used)
        files = {entry["id"]: _file_name(entry) for entry in content["images"]}
        sizes = {entry["id"]: _size(entry) for entry in content["images"]}
        taken = {entry["id"]: _taken(entry) for entry in content["images"]}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"an entry of {path} is not in COCO's format: {error!r}; {ADVICE}") from error
    if not files:
        raise DataError(f"{path} names no image: {ADVICE}")
    if strange := [image for image in objects if image not in files]:
        raise DataError(f"{path} has an object on image {strange[0]}, which is not among its images: {ADVICE}")
    find = _finder(path, list(files.values()), image_folders, "the images")
    where = _finder(path, list(segments.values()), segment_folders, "the PNG files") if segments else None
    images = tuple(
        CocoImage(
            path=find(name),
            size=sizes[number],
            name=PurePosixPath(name).with_suffix("").as_posix(),
            objects=tuple(objects.get(number, ())),
            segments=where(segments[number]) if number in segments else None,
            taken=taken[number],
        )
        for number, name in files.items()
    )
    return CocoFile(path, categories, images, bool(segments))


def _shrunk(entry: dict) -> Any:
    """Keeps of an entry what is used, while the file is read."""
    if "category_id" in entry and "image_id" in entry:
        return CocoObject(
            entry["image_id"],
            entry["category_id"],
            tuple(entry["bbox"]) if entry.get("bbox") else None,
            entry.get("area"),
            bool(entry.get("iscrowd")),
            _outline(entry.get("segmentation")),
            **_found(entry),
        )
    return entry


def _found(entry: Mapping) -> dict[str, Any]:
    """Returns what ``clip-seg annotate`` and the review say about an object."""
    if "band" not in entry:
        return {"score": entry.get("score")}
    decided = entry.get("decided", "guessed") != "guessed"
    return {"score": entry.get("score"), "decided": decided, "doubtful": entry["band"] == "doubtful" and not decided}


def _outline(segmentation: list | dict | None) -> list | dict | None:
    if not segmentation:
        return None
    # Some tools write one polygon where COCO has a list of polygons.
    flat = isinstance(segmentation, list) and isinstance(segmentation[0], (int, float))
    return packed([segmentation] if flat else segmentation)


def _categories(path: Path, entries: Sequence[Mapping], used: set[int]) -> tuple[Category, ...]:
    # Roboflow adds the group of all classes as a category of its own, which no object has.
    groups = {entry.get("supercategory") for entry in entries}
    kept = [
        entry
        for entry in entries
        if entry["id"] in used or entry.get("supercategory") != "none" or entry["name"] not in groups
    ]
    found = [Category(entry["id"], str(entry["name"]).strip(), bool(entry.get("isthing", 1))) for entry in kept]
    names = [category.name for category in found]
    if not found or "" in names:
        raise DataError(f"{path} has no category, or one without a name: {ADVICE}")
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"{path} has two categories called {twice[0]}: give each class one category")
    return tuple(sorted(found, key=lambda category: category.number))


def _objects(
    path: Path, entries: Sequence[Any], known: set[int]
) -> tuple[dict[int | str, list[CocoObject]], dict[int | str, str]]:
    """Returns the objects of each image and, in a panoptic file, the name of its PNG file."""
    objects: dict[int | str, list[CocoObject]] = {}
    segments: dict[int | str, str] = {}
    for entry in entries:
        found = [entry]
        if not isinstance(entry, CocoObject):
            image = entry["image_id"]
            segments[image] = entry["file_name"]
            found = [_segment(image, info) for info in entry["segments_info"]]
        for item in found:
            if item.category not in known:
                raise DataError(f"{path} has an object of category {item.category}, which it does not name: {ADVICE}")
            objects.setdefault(item.image, []).append(item)
    return objects, segments


def _segment(image: int | str, info: Mapping) -> CocoObject:
    box = tuple(info["bbox"]) if info.get("bbox") else None
    return CocoObject(image, info["category_id"], box, info.get("area"), bool(info.get("iscrowd")), None, info["id"])


def _file_name(entry: Mapping) -> str:
    """Returns the path of an image, relative to some folder. LVIS has addresses instead of names."""
    name = entry.get("file_name") or PurePosixPath(*PurePosixPath(urlsplit(entry["coco_url"]).path).parts[-2:])
    return str(name).replace("\\", "/").removeprefix("./").lstrip("/")


def _size(entry: Mapping) -> tuple[int, int] | None:
    return (int(entry["height"]), int(entry["width"])) if entry.get("height") and entry.get("width") else None


def _taken(entry: Mapping) -> Taken | None:
    if "source" not in entry or "stamp_ns" not in entry:
        return None
    return Taken(str(entry["source"]), str(entry.get("topic", "")), int(entry["stamp_ns"]))


def _finder(path: Path, names: Sequence[str], folders: Sequence[Path], what: str) -> Callable[[str], Path]:
    """Returns a function that turns names of files into paths, in the way that holds for the first of them."""
    for way in _WAYS:
        for folder in folders:
            if (folder / way(names[0])).is_file():
                return partial(_place, folder, way)
    looked = ", ".join(dict.fromkeys(map(str, folders)))
    raise DataError(
        f"{what} that {path} names, such as {names[0]}, are in none of these folders: {looked}. Export them, too, or "
        "name the folder that holds them"
    )


def _place(folder: Path, way: Callable[[str], str], name: str) -> Path:
    return folder / way(name)


def _bare(name: str) -> str:
    return PurePosixPath(unquote(name)).name


_WAYS: tuple[Callable[[str], str], ...] = (str, unquote, _bare)
"""How the name of a file becomes a path in a folder: as it is, decoded, or without the folders of another machine."""
