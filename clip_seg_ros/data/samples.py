# SPDX-License-Identifier: Apache-2.0
"""The samples that data sets yield, and the error that they raise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from PIL import Image

IGNORED = 255
"""The label of pixels that count neither in training nor in measuring."""

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
"""The endings of the names of images, in small letters."""

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")

_BITS_OF_MODE = {"1": 1, "L": 8, "P": 8, "I;16": 16, "I;16B": 16, "I": 16}
"""The bits of the numbers in images with one channel, by Pillow's names of their modes."""
_ORIENTATION = 0x0112
"""The EXIF tag for the orientation of the camera."""
_TURNED = (5, 6, 7, 8)
"""The values of this tag that exchange width and height."""


class DataError(ValueError):
    """Files of a data set are missing or wrong; the message says which, and what to do."""


@dataclass(frozen=True)
class ReferringSample:
    """An image, a phrase, and the mask of the phrase in the image."""

    rgb: np.ndarray
    """(H, W, 3) uint8."""
    phrase: str
    mask: np.ndarray
    """(H, W) bool; it is empty if the phrase names nothing in the image."""
    name: str
    """Name of the sample in reports, such as "val/refer_123"."""
    support: tuple[np.ndarray, np.ndarray] | None = None
    """An example image (h, w, 3) uint8 of the phrase, and its mask (h, w) bool."""
    ignored: np.ndarray | None = None
    """(H, W) bool: pixels that count neither in training nor in measuring; ``None`` where all count."""


@dataclass(frozen=True)
class SemanticSample:
    """An image and a class for every pixel."""

    rgb: np.ndarray
    """(H, W, 3) uint8."""
    labels: np.ndarray
    """(H, W) uint8 index into the data set's ``class_names``; ``IGNORED`` for none."""
    name: str


@dataclass(frozen=True)
class InstanceSample:
    """An image and N objects, each with a class, a box and, where the data set has them, a mask."""

    rgb: np.ndarray
    """(H, W, 3) uint8."""
    labels: np.ndarray
    """(N,) int64 index into the data set's ``class_names``."""
    boxes_px: np.ndarray
    """(N, 4) float32: x_min, y_min, x_max, y_max as the data set gives them, in 0..W and 0..H."""
    masks: np.ndarray | None
    """(N, H, W) bool; ``None`` in a data set of boxes alone."""
    areas_px: np.ndarray
    """(N,) float32: the area by which objects count as small, medium or large."""
    crowd: np.ndarray
    """(N,) bool: regions of many objects, which are not learnt and in which no answer is wrong."""
    name: str


class ReferringDataset(Protocol):
    """A data set of phrases with masks. Files are read only when a sample is requested."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> ReferringSample: ...


class SemanticDataset(Protocol):
    """A data set of images with labels. Files are read only when a sample is requested."""

    class_names: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> SemanticSample: ...


class InstanceDataset(Protocol):
    """A data set of images with objects. Files are read only when a sample is requested."""

    class_names: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> InstanceSample: ...


def read_rgb(path: Path) -> np.ndarray:
    """Reads an image, grey or coloured, as (H, W, 3) uint8 RGB, rotated as its EXIF data say.

    Raises:
        DataError: There is no such file, or it is not an image.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing")
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f"{path} is no picture that can be read")
    return np.ascontiguousarray(image[..., ::-1])


def read_labels(path: Path) -> np.ndarray:
    """Reads a one-channel or palette PNG as its stored numbers, (H, W) uint8 or uint16.

    OpenCV would convert a palette to colours.

    Raises:
        DataError: There is no such file, it is not an image, or it has several channels.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing")
    with _opened(path) as image:
        labels = np.array(image)
    if labels.ndim != 2:
        raise DataError(f"{path} has {labels.shape[2]} channels; label images have one")
    return labels


def rgb_size(path: Path) -> tuple[int, int]:
    """Returns the (width, height) of the result of ``read_rgb``, from the file's header alone.

    Raises:
        DataError: It is not an image.
    """
    with _opened(path) as image:
        return image.size[::-1] if image.getexif().get(_ORIENTATION) in _TURNED else image.size


def labels_size(path: Path) -> tuple[int, int]:
    """Returns the (width, height) of the result of ``read_labels``, from the file's header alone.

    Raises:
        DataError: It is not an image, or it has several channels.
    """
    with _opened(path) as image:
        if len(image.getbands()) > 1:
            raise DataError(f"{path} has {len(image.getbands())} channels; label images have one")
        return image.size


def refuse_video(path: Path) -> None:
    """Raises a DataError that says what to do if ``path`` is a video, or a folder that holds one at any depth."""
    inside = sorted(path.rglob("*")) if path.is_dir() else [path]
    videos = [file for file in inside if file.suffix.lower() in VIDEO_SUFFIXES and file.is_file()]
    if videos:
        frames = videos[0].with_suffix("")
        command = f"mkdir {frames} && ffmpeg -i {videos[0]} {frames}/%06d.png"
        raise DataError(f"{videos[0]} is a video: write its frames as images first, with: {command}")


def label_bits(path: Path) -> int | None:
    """Returns the bits of each number in a label image, 1, 8 or 16, from its header; ``None`` if it has colours.

    Raises:
        DataError: It is not an image.
    """
    with _opened(path) as image:
        return _BITS_OF_MODE.get(image.mode)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except OSError as error:
        raise DataError(f"{path} is no picture that can be read: {error}") from error


def draw_another(sample: int, alike: Sequence[int], rng: np.random.Generator) -> int | None:
    """Draws a sample to be the example of another one.

    Args:
        sample: The number of the sample that needs an example.
        alike: The numbers of all samples of its class or phrase, ``sample`` among them.
        rng: Generator of the choice.

    Returns:
        The number of another sample; ``None`` if there is none.
    """
    others = len(alike) - 1
    if not others:
        return None
    drawn = alike[int(rng.integers(others))]
    return drawn if drawn != sample else alike[-1]
