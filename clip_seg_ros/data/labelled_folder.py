# SPDX-License-Identifier: Apache-2.0
"""A user's own images with a class for every pixel: a folder of images, a folder of label images and a list of classes.

    my_data/
      classes.txt               the names of the classes, one in each line; the first is number 0 in the label images
      images/train/desk.jpg     images, in folders of their own for each split, or without any
      labels/train/desk.png     label images of the same name and size: 8-bit PNG, grey or with a palette

The stored numbers of a label image count, and not the colours of its palette. 255 stands for pixels of no class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clip_seg_ros.data.labelled_pictures import LabelledPicture, LabelledPictures
from clip_seg_ros.data.samples import (
    IGNORED,
    PICTURE_SUFFIXES,
    DataError,
    label_bits,
    labels_size,
    refuse_video,
    rgb_size,
)
from clip_seg_ros.resources import class_list, class_list_names

_NUMBERS = "write one number for each pixel as an 8-bit PNG, grey or with a palette"
_SHOWN_PROBLEMS = 10


class LabelledFolder(LabelledPictures):
    """The images of a folder that have a label image."""

    def __init__(
        self,
        root: Path,
        classes: tuple[str, ...] | dict[int, str] | str = "classes.txt",
        split: str | None = None,
        images: str = "images",
        labels: str = "labels",
        ignore: tuple[int, ...] = (),
    ) -> None:
        """Lists the files, and checks the sizes and the kinds of all of them by their headers.

        Args:
            root: Path of the folder.
            classes: Names of the classes: a list, whose first name is number 0 in the label images; a mapping from
                numbers to names, if the numbers begin elsewhere or have gaps; the path of a text file with one name in
                each line, relative to ``root``; or a list that comes with the package, such as "cityscapes19".
            split: Name of the folder with the images of a split, below ``images`` and ``labels``; or the path of a text
                file, relative to ``root``, with the name of one image in each line. ``None`` takes all images.
            images: Folder of the images, relative to ``root``; or a pattern such as "{split}/*_rgb.png". Its "*" is the
                name of an image, which may contain folders, and "{split}" stands for ``split``.
            labels: Folder or pattern of the label images, in which "*" is the name of the image.
            ignore: Numbers in the label images that do not count; 255 never counts.

        Raises:
            DataError: A file is missing or wrong, or the classes do not fit ``ignore``. The message names up to ten of
                the wrong files at once.
        """
        if not root.is_dir():
            refuse_video(root)
            raise DataError(f"there is no folder {root}: a data set of your own is a folder with images/ and labels/")
        numbered = _numbered(root, classes)
        _check_classes(numbered, ignore)
        names = _names_in_list(root / split) if split and split.endswith(".txt") else None
        folder = None if names else split
        pictures, numbers = _Place.of(root, images, folder, "images"), _Place.of(root, labels, folder, "labels")
        found = _listed(pictures, names) if names else pictures.files(PICTURE_SUFFIXES)
        if not found:
            refuse_video(pictures.folder)
            what = "" if pictures.end is None else f" {pictures.start}*{pictures.end}"
            looked = ", ".join(PICTURE_SUFFIXES)
            raise DataError(f"{pictures.folder} holds no image{what}: looked in it and below for {looked}")
        # A pattern for images may fit the label images beside them, too.
        also = {numbers.path(name) for name in found}
        found = {name: path for name, path in found.items() if path not in also}
        prefix = f"{Path(split).stem}/" if split else ""
        files = [LabelledPicture(path, numbers.path(name), f"{prefix}{name}") for name, path in found.items()]
        _check_files(files, numbers)
        index_of = {number: index for index, number in enumerate(numbered)}
        super().__init__(files, tuple(numbered.values()), {**index_of, **dict.fromkeys(ignore, IGNORED)})


@dataclass(frozen=True)
class _Place:
    """Where the images, or the label images, are: the path is ``folder``/``start`` NAME ``end``."""

    folder: Path
    start: str
    end: str | None
    """``None`` for a folder, whose files may have any suffix."""
    option: str
    """The option that names it."""

    @classmethod
    def of(cls, root: Path, text: str, split: str | None, option: str) -> _Place:
        if "{split}" in text and split is None:
            raise DataError(f"{option} is {text}, which needs a split: name the folder that {{split}} stands for")
        if "*" not in text and "{split}" not in text and split:
            text = f"{text}/{split}"
        text = text.replace("{split}", split or "")
        if text.count("*") > 1:
            raise DataError(f"{option} is {text}; it may have one *, which stands for the name of an image")
        start, star, end = text.partition("*")
        before, _, start = start.rpartition("/") if star else (text, "", "")
        place = cls(root / before, start, end if star else None, option)
        if not place.folder.is_dir():
            raise DataError(_no_folder(place.folder, root, split))
        return place

    def files(self, suffixes: Sequence[str]) -> dict[str, Path]:
        """Returns the files by the names of images, sorted by name, without hidden files and folders."""
        found: dict[str, Path] = {}
        for path in sorted(self.folder.rglob("*")):
            relative = path.relative_to(self.folder)
            if path.suffix.lower() not in suffixes or any(part.startswith(".") for part in relative.parts):
                continue
            name = self._name(relative)
            if name is None:
                continue
            if name in found:
                raise DataError(f"{found[name]} and {path} have the same name, and one label image cannot be for both")
            found[name] = path
        return found

    def path(self, name: str) -> Path:
        """Returns the path of the label image of an image."""
        parent, _, last = name.rpartition("/")
        return self.folder / parent / f"{self.start}{last}{'.png' if self.end is None else self.end}"

    def _name(self, relative: Path) -> str | None:
        """Returns the name of the image at a path relative to the folder; ``None`` if the pattern does not fit."""
        if self.end is None:
            return relative.with_suffix("").as_posix()
        last = relative.name
        if len(last) <= len(self.start) + len(self.end) or not (
            last.startswith(self.start) and last.endswith(self.end)
        ):
            return None
        return relative.with_name(last[len(self.start) : len(last) - len(self.end)]).as_posix()


def _numbered(root: Path, classes: tuple[str, ...] | dict[int, str] | str) -> dict[int, str]:
    """Returns the names of the classes by their numbers, ascending."""
    if isinstance(classes, dict):
        return dict(sorted(classes.items()))
    if isinstance(classes, str):
        path = root / classes
        if path.is_file():
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            classes = tuple(line.strip() for line in lines if line.strip())
        elif classes in class_list_names():
            classes = class_list(classes)
        else:
            raise DataError(
                f"there is no {path}: write it, with the name of one class in each line, or give classes, "
                f"as [cup,bowl,table] or as one of the lists {', '.join(class_list_names())}"
            )
    return dict(enumerate(classes))


def _check_classes(numbered: dict[int, str], ignore: Sequence[int]) -> None:
    names = list(numbered.values())
    if not names or not all(name.strip() for name in names):
        raise DataError("the list of classes is empty or holds an empty name: name every class")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"the list of classes holds {twice[0]} twice: each class needs a name of its own")
    for number in (*numbered, *ignore):
        if not 0 <= number <= IGNORED:
            raise DataError(f"{number} is no number of a label image, which holds 0..255")
    if IGNORED in numbered:
        raise DataError(f"{numbered[IGNORED]} is number 255, which stands for pixels of no class: use numbers below it")
    if both := [number for number in ignore if number in numbered]:
        rest = ", ".join(f"{number}: {name}" for number, name in list(numbered.items())[:3] if number not in both)
        raise DataError(
            f"the number {both[0]} is in ignore, and is the class {numbered[both[0]]}: give the classes with their "
            f"numbers, without the ignored one: classes: {{{rest}, ...}}"
        )


def _names_in_list(path: Path) -> list[str]:
    """Reads the names of images, of which each may have a suffix, from a text file."""
    if not path.is_file():
        raise DataError(f"there is no list {path}: a split is a folder of images, or such a list of names")
    names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if not names:
        raise DataError(f"the list {path} is empty: write the name of one image in each line")
    return names


def _listed(pictures: _Place, names: Sequence[str]) -> dict[str, Path]:
    """Returns the listed images, in the order of the list. A name may be given with or without its suffix."""
    found = pictures.files(PICTURE_SUFFIXES)
    chosen: dict[str, Path] = {}
    for line in names:
        bare = Path(line)
        name = bare.with_suffix("").as_posix() if bare.suffix.lower() in PICTURE_SUFFIXES else line
        if name not in found:
            raise DataError(f"there is no image {line} in {pictures.folder}, which the list of the split names")
        chosen[name] = found[name]
    return chosen


def _check_files(files: Sequence[LabelledPicture], numbers: _Place) -> None:
    """Raises a DataError that names the label images that are missing, of another size, or of the wrong kind."""
    if numbers.end is not None and not numbers.end.lower().endswith((".png", ".bmp", ".tif", ".tiff")):
        raise DataError(f"labels must be PNG files: a pattern that ends with *{numbers.end} has none")
    problems = [problem for file in files if (problem := _problem(file))]
    if problems:
        shown = "\n  ".join(problems[:_SHOWN_PROBLEMS])
        more = len(problems) - _SHOWN_PROBLEMS
        raise DataError(
            f"{len(problems)} of {len(files)} images in {numbers.folder} cannot be used:\n  {shown}"
            + (f"\n  and {more} more" if more > 0 else "")
        )


def _problem(file: LabelledPicture) -> str | None:
    """Returns what is wrong with the files of one image, or ``None``."""
    if not file.labels.is_file():
        lossy = [path for path in (file.labels.with_suffix(end) for end in (".jpg", ".jpeg")) if path.is_file()]
        if lossy:
            return f"{lossy[0]} is a JPEG, whose numbers change when it is saved: {_NUMBERS}"
        return f"{file.labels} is missing: label the image, or make a list of the labelled ones and name it as split"
    try:
        bits = label_bits(file.labels)
        if bits is None:
            return (
                f"{file.labels} shows classes as colours: {_NUMBERS}, or export COCO from your tool and use kind: coco"
            )
        if bits != 8:
            return f"{file.labels} has {bits} bits for each number: {_NUMBERS}; there are at most 255 classes"
        size, other = rgb_size(file.picture), labels_size(file.labels)
        if size != other:
            return f"{file.picture} has {size[0]} x {size[1]} pixels, but {file.labels} has {other[0]} x {other[1]}"
    except DataError as error:
        return str(error)
    return None


def _no_folder(folder: Path, root: Path, split: str | None) -> str:
    """Says that a folder is missing, and which splits there are."""
    beside = sorted(path.name for path in folder.parent.iterdir() if path.is_dir()) if folder.parent.is_dir() else []
    there = f" (folders beside it: {', '.join(beside)})" if beside else ""
    hint = "name a split that exists" if split else f"name the folders of {root} with images and labels"
    return f"there is no folder {folder}{there}: {hint}"
