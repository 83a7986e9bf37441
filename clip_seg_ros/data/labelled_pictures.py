# SPDX-License-Identifier: Apache-2.0
"""Images with label images: the common base of the readers of semantic data sets."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clip_seg_ros.data.samples import IGNORED, DataError, SemanticSample, read_labels, read_rgb

_NO_CLASS = -1


@dataclass(frozen=True)
class LabelledPicture:
    """The files of one image and its labels."""

    picture: Path
    labels: Path
    name: str
    """Its name in reports, such as "validation/ADE_val_00000001"."""


class LabelledPictures:
    """A ``SemanticDataset`` of given files. An image and its labels are read only when a sample is requested."""

    def __init__(
        self, files: Sequence[LabelledPicture], class_names: Sequence[str], numbers: Mapping[int, int]
    ) -> None:
        """Keeps the list of files.

        Args:
            files: The files in the order of the data set.
            class_names: The names of the classes.
            numbers: The index into ``class_names``, or ``IGNORED``, for each number in label files; 255 is always
                ignored.
        """
        self.class_names = tuple(class_names)
        self.names = tuple(file.name for file in files)
        """The name of each sample."""
        self._files = tuple(files)
        # The table is signed, so that an unknown number differs from an ignored one.
        self._label_of_number = np.full(256, _NO_CLASS, np.int16)
        self._label_of_number[list(numbers)] = list(numbers.values())
        self._label_of_number[IGNORED] = IGNORED

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> SemanticSample:
        """Reads an image and its labels.

        Raises:
            DataError: A file cannot be read, the two differ in size, or the labels have an unknown number.
        """
        files = self._files[index]
        rgb, labels = read_rgb(files.picture), self.labels(index)
        if rgb.shape[:2] != labels.shape:
            raise DataError(
                f"{files.picture} has {rgb.shape[1]} x {rgb.shape[0]} pixels, "
                f"but {files.labels} has {labels.shape[1]} x {labels.shape[0]}"
            )
        return SemanticSample(rgb=rgb, labels=labels, name=files.name)

    def labels(self, index: int) -> np.ndarray:
        """Reads only the labels: (H, W) uint8, indices into ``class_names`` or ``IGNORED``."""
        path = self._files[index].labels
        numbers = read_labels(path)
        if numbers.dtype != np.uint8:
            raise DataError(f"{path} stores {numbers.dtype} numbers; the label images of this data set have 8 bits")
        labels = self._label_of_number[numbers]
        if (labels == _NO_CLASS).any():
            strange = int(numbers[labels == _NO_CLASS].min())
            raise DataError(f"{path} holds the number {strange}, which is no class of this data set and not ignored")
        return labels.astype(np.uint8)


def zero_ignored(class_count: int) -> dict[int, int]:
    """Returns the ``numbers`` of a data set whose files store 0 for no class and 1 for the first class."""
    return {0: IGNORED, **{index + 1: index for index in range(class_count)}}


def check_choice(option: str, value: object, choices: Sequence[object]) -> None:
    """Raises a DataError that lists the ``choices`` unless ``value`` is one of them."""
    if value not in choices:
        raise DataError(f"{option} is {value!r}; it may be {', '.join(map(str, choices))}")


def names_in(folder: Path, suffix: str, layout: str) -> list[str]:
    """Lists the names of the files in ``folder`` that end in ``suffix``, sorted and without the suffix or hidden files.

    Raises:
        DataError: There is no such folder or no such file; the message ends with ``layout``, the expected files.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}. {layout}")
    found = (name for name in os.listdir(folder) if name.endswith(suffix) and not name.startswith("."))
    names = sorted(name.removesuffix(suffix) for name in found)
    if not names:
        raise DataError(f"{folder} holds no file *{suffix}. {layout}")
    return names


def names_listed(path: Path, layout: str) -> list[str]:
    """Reads the names of images from a text file, in its order.

    A line is a name (``2007_000032``), or the paths of the image and its labels
    (``/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png``); both forms are published.

    Raises:
        DataError: The file is missing or empty; the message names the other lists in its folder.
    """
    if not path.is_file():
        beside = ", ".join(sorted(other.name for other in path.parent.glob("*.txt"))) or "none"
        raise DataError(f"there is no list {path} (lists in that folder: {beside}). {layout}")
    names = [Path(line.split()[0]).stem for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not names:
        raise DataError(f"the list {path} is empty")
    return names


def paired(
    names: Iterable[str],
    pictures: Path,
    label_folders: Sequence[Path],
    label_suffix: str,
    split: str,
    layout: str,
) -> tuple[LabelledPicture, ...]:
    """Finds the image (``*.jpg``) and the labels of every name.

    Args:
        names: File names without suffix.
        pictures: The folder of the images.
        label_folders: The folders in which labels may be; the first one that has the labels of an image is used.
        label_suffix: The part of a label file's name after the name of its image.
        split: The first part of the names in reports.
        layout: The expected files, for error messages.

    Raises:
        DataError: A folder or a file is missing.
    """
    have_picture = set(names_in(pictures, ".jpg", layout))
    have_labels = [(folder, set(names_in(folder, label_suffix, layout))) for folder in label_folders]
    files, missing = [], []
    for name in names:
        folder = next((folder for folder, there in have_labels if name in there), None)
        if name not in have_picture:
            missing.append(pictures / f"{name}.jpg")
        elif folder is None:
            missing.append(label_folders[-1] / f"{name}{label_suffix}")
        else:
            files.append(LabelledPicture(pictures / f"{name}.jpg", folder / f"{name}{label_suffix}", f"{split}/{name}"))
    if missing:
        others = f" and {len(missing) - 1} more files are" if len(missing) > 1 else " is"
        raise DataError(f"{missing[0]}{others} missing. {layout}")
    return tuple(files)
