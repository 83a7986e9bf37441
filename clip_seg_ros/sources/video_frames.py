# SPDX-License-Identifier: Apache-2.0
"""The images of a video file and of a webcam, by OpenCV."""

from __future__ import annotations

import sys
import time
from array import array
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from clip_seg_ros.data.samples import DataError
from clip_seg_ros.sources.frame import Frame, Kind, Stretch, note

_USUAL_RATE_HZ = 25.0
"""The images a second of a video that does not say."""
_LEAST_SHARE = 0.9
"""A video with fewer of the images that it announces is cut off; a few are always missing, because many only guess."""


class VideoFrames:
    """The images of a video file.

    Args:
        file: The file.

    Raises:
        DataError: It is no video, or holds no image.
    """

    kind: Kind = "recorded"

    def __init__(self, file: Path) -> None:
        self._file, self.title = file, file.name
        self.notes: list[str] = []
        self.faults: list[str] = []
        with _opened(file) as video:
            self._count = max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))
            rate_hz = video.get(cv2.CAP_PROP_FPS)
            if not video.read()[0]:
                raise DataError(f"{file} holds no picture that can be read")
        self._rate_hz = rate_hz if 0.1 <= rate_hz <= 1000 else _USUAL_RATE_HZ

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Generator[Frame, None, None]:
        read = 0
        for _, frame in self.between(Stretch(0, sys.maxsize)):
            read += 1
            yield frame
        if read < _LEAST_SHARE * self._count:
            raise DataError(self._cut(read))

    def places(self) -> np.ndarray:
        found = array("q")
        with _opened(self._file) as video:
            while video.grab():
                found.append(_raw_stamp(video))
        if len(found) < _LEAST_SHARE * self._count:
            note(self.faults, self._cut(len(found)))
        return np.array(found, np.int64)

    def between(self, stretch: Stretch) -> Generator[tuple[int, Frame], None, None]:
        with _opened(self._file) as video:
            if stretch.from_ns is not None and not _is_at(video, stretch.from_number, stretch.from_ns):
                stretch = replace(stretch, from_number=0, from_ns=None)
                video.open(str(self._file), int(video.get(cv2.CAP_PROP_BACKEND)))
            yield from self._read(video, stretch)

    def _read(self, video: cv2.VideoCapture, stretch: Stretch) -> Generator[tuple[int, Frame], None, None]:
        number, last_ns, is_grabbed = stretch.from_number, -1, stretch.from_ns is not None
        while number < stretch.end and (is_grabbed or video.grab()):
            is_grabbed, stamp_ns = False, _raw_stamp(video)
            if stamp_ns <= last_ns:  # not every container says
                stamp_ns = last_ns + round(1e9 / self._rate_hz)
            last_ns = stamp_ns
            if stretch.has(number):
                is_there, bgr = video.retrieve()
                if is_there:
                    yield number, Frame(_rgb(bgr), None, None, stamp_ns, f"{self.title} {stamp_ns / 1e9:.2f} s")
                else:
                    note(self.faults, f"picture {number} of {self.title} cannot be decoded")
            number += 1

    def _cut(self, read: int) -> str:
        return f"{self._file} ends after {read} of {self._count} pictures: it is cut off or damaged"


class WebcamFrames:
    """The images of a camera of this machine.

    Args:
        number: Its number, 0 for the first.

    Raises:
        DataError: There is no such camera, or it gives no image.
    """

    kind: Kind = "live"

    def __init__(self, number: int) -> None:
        self._number, self.title = number, f"webcam {number}"
        self.notes: list[str] = []
        self.faults: list[str] = []
        with self._opened() as camera:
            if not camera.read()[0]:
                raise DataError(f"{self.title} gives no picture: another program may be using it")

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Generator[Frame, None, None]:
        with self._opened() as camera:
            while True:
                is_there, bgr = camera.read()
                if not is_there:
                    raise DataError(f"{self.title} gives no more pictures: is it still plugged in?")
                stamp_ns = time.time_ns()
                yield Frame(_rgb(bgr), None, None, stamp_ns, self.title)

    @contextmanager
    def _opened(self) -> Iterator[cv2.VideoCapture]:
        camera = cv2.VideoCapture(self._number)
        try:
            if not camera.isOpened():
                there = ", ".join(str(path) for path in sorted(Path("/dev").glob("video*"))) or "none"
                raise DataError(f"there is no {self.title} that can be opened; the cameras of this machine: {there}")
            # What waits in a buffer is old.
            camera.set(cv2.CAP_PROP_BUFFERSIZE, 1)
            yield camera
        finally:
            camera.release()


@contextmanager
def _opened(file: Path) -> Iterator[cv2.VideoCapture]:
    # FFmpeg first, because others take a name such as "%02d" for a series of pictures.
    for backend in (cv2.CAP_FFMPEG, cv2.CAP_ANY):
        video = cv2.VideoCapture(str(file), backend)
        if video.isOpened():
            break
        video.release()
    else:
        raise DataError(f"{file} is no video that can be read: it is damaged, cut off or of an unknown format")
    try:
        yield video
    finally:
        video.release()


def _is_at(video: cv2.VideoCapture, number: int, place_ns: int) -> bool:
    """Goes to the image of a number and grabs it; returns whether it is the one at that time."""
    # A container may lead anywhere; the time of the image proves where it led.
    video.set(cv2.CAP_PROP_POS_FRAMES, number)
    return bool(video.grab()) and _raw_stamp(video) == place_ns


def _raw_stamp(video: cv2.VideoCapture) -> int:
    """Returns the time of the image that was grabbed last, in nanoseconds; some containers say 0 for all."""
    return round(video.get(cv2.CAP_PROP_POS_MSEC) * 1e6)


def _rgb(bgr: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(bgr, cv2.COLOR_GRAY2RGB if bgr.ndim == 2 else cv2.COLOR_BGR2RGB)
