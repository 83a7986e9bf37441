# SPDX-License-Identifier: Apache-2.0
"""One image with all that is known of it, and what all sources of such images have."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from clip_seg_ros.data.samples import DataError as DataError
from clip_seg_ros.types import CameraIntrinsics

Kind = Literal["still", "recorded", "live"]


@dataclass(frozen=True)
class Frame:
    """One image of a source."""

    rgb: np.ndarray
    """(H, W, 3) uint8."""
    depth_m: np.ndarray | None
    """(H, W) float32 metres along the optical axis, NaN where there is none; ``None`` without depth."""
    intrinsics: CameraIntrinsics | None
    """Those of ``rgb``; ``None`` if they are not known."""
    stamp_ns: int
    """When it was taken, by the clock of its source."""
    name: str
    """Its name in the source, such as a path, or a topic and a time."""
    frame_id: str = ""
    """Name of the camera's optical frame in a bag; empty for others."""


@dataclass(frozen=True)
class Stretch:
    """Some images of a source, and where to begin reading for them."""

    begin: int
    """The number of the first of them among all images of the source, from 0."""
    end: int
    """The number behind the last one."""
    from_number: int = 0
    """The image to begin reading with, which lies at ``begin`` or before."""
    from_ns: int | None = None
    """The place of that image, one of ``Frames.places``; ``None`` to read from the beginning of the source."""
    every: int = 1
    """Only images whose number is a multiple of this are wanted."""

    def has(self, number: int) -> bool:
        """Returns whether the image of a number is one of them."""
        return self.begin <= number < self.end and number % self.every == 0


class Frames(Protocol):
    """The images of a source. They are read one by one, and from the beginning at every iteration."""

    title: str
    """What it is, for people, such as "holiday.mp4"."""
    kind: Kind
    """Whether its images have nothing to do with time, were taken one after the other, or are taken now."""
    notes: list[str]
    """What it lacks, for people, such as depth."""
    faults: list[str]
    """What is wrong with it, for people; more may come while it is read."""

    def __len__(self) -> int:
        """Returns the number of images, about; 0 if it is not known."""

    def __iter__(self) -> Generator[Frame, None, None]:
        """Yields the images in their order; what cannot be read is left out and noted.

        Raises:
            DataError: The source ends too early; the message says where and why.
        """


class NumberedFrames(Frames, Protocol):
    """A source that does not change, so that its images can be counted and read from any of them."""

    def places(self) -> np.ndarray:
        """Reads through the source, without decoding what need not be, and counts its images.

        What ends it too early is one of ``faults`` then.

        Returns:
            (N,) int64, for each image where it lies, in nanoseconds by the clock of the container; it never falls where
            reading can begin at any image. Images that cannot be decoded count, too.
        """

    def between(self, stretch: Stretch) -> Generator[tuple[int, Frame], None, None]:
        """Yields some images with their numbers; what cannot be read is left out and noted.

        They are the images that reading everything gives, with the same depth, and those before ``from_number`` are
        not read. Where the source ends too early, this ends, too.
        """


def note(notes: list[str], text: str) -> None:
    """Adds a note, unless there is that one, or too many."""
    if text not in notes and len(notes) < 100:
        notes.append(text)
