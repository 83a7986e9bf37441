# SPDX-License-Identifier: Apache-2.0
"""Images with all that is known of them, from whatever somebody names: files, a video, a webcam or a ROS bag."""

from __future__ import annotations

import glob
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np

from clip_seg_ros.data.samples import PICTURE_SUFFIXES, VIDEO_SUFFIXES, DataError, read_rgb
from clip_seg_ros.sources.frame import Frame, Frames, Kind, Stretch, note
from clip_seg_ros.sources.picture_size import JPEG, SCAN_END, SCAN_START

_ANY = "*?["
KINDS = (
    f"a picture ({', '.join(PICTURE_SUFFIXES)}), a folder of pictures, a pattern such as 'photos/*.jpg', a video "
    f"({', '.join(VIDEO_SUFFIXES)}), the number of a webcam such as 0, or a ROS bag (.bag, .db3, .mcap or its folder)"
)
"""What ``open_frames`` opens, for people."""


class StillFrames:
    """Pictures in files.

    Args:
        title: The attribute of this name.
        files: The files, at least one.

    Raises:
        DataError: There is one file alone, and it is no picture.
    """

    kind: Kind = "still"

    def __init__(self, title: str, files: Sequence[Path]) -> None:
        self.title, self._files = title, tuple(files)
        self.notes: list[str] = []
        self.faults: list[str] = []
        if len(self._files) == 1:
            read_rgb(self._files[0])

    def __len__(self) -> int:
        return len(self._files)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files, in their order."""
        return self._files

    def places(self) -> np.ndarray:
        return np.arange(len(self._files))

    def between(self, stretch: Stretch) -> Generator[tuple[int, Frame], None, None]:
        for number in range(stretch.begin, min(stretch.end, len(self._files))):
            if not stretch.has(number):
                continue
            file = self._files[number]
            try:
                rgb = read_rgb(file)
                stamp_ns = file.stat().st_mtime_ns
            except (DataError, OSError) as error:
                note(self.faults, str(error))
                continue
            if _is_cut(file):
                note(self.faults, f"{file} is cut off: the rest of the picture is grey")
            yield number, Frame(rgb, None, None, stamp_ns, str(file))

    def __iter__(self) -> Generator[Frame, None, None]:
        count = 0
        for _, frame in self.between(Stretch(0, len(self._files))):
            count += 1
            yield frame
        if not count:
            raise DataError(f"none of the {len(self._files)} pictures of {self.title} can be read: {self.faults[-1]}")


def _is_cut(file: Path) -> bool:
    """Returns whether the end of a JPEG is missing, which OpenCV fills with grey."""
    data = file.read_bytes()
    # Within a scan, the one mark can only be the end of the picture; behind it, phones write what they like.
    return data.startswith(JPEG) and data.rfind(SCAN_END) < data.rfind(SCAN_START)


def open_frames(spec: str, topic: str | None = None) -> Frames:
    """Opens what somebody names.

    Args:
        spec: One of ``KINDS``.
        topic: The topic of the colour images of a bag; ``None`` if the bag makes clear which one it is.

    Raises:
        DataError: There is no such thing, or it holds no images; the message says what to do.
    """
    path = Path(spec).expanduser()
    if spec.isdecimal() and not path.exists():
        from clip_seg_ros.sources.video_frames import WebcamFrames

        return WebcamFrames(int(spec))
    if not path.exists():
        return _matching(spec)
    # Not at the top, because few read bags.
    from clip_seg_ros.sources.bags import is_bag

    if is_bag(path):
        from clip_seg_ros.sources.bag_frames import BagFrames

        return BagFrames(path, topic)
    if topic is not None:
        raise DataError(f"{spec} is no bag, so that it has no topic {topic}")
    return _folder(path) if path.is_dir() else _file(path)


def _folder(path: Path) -> Frames:
    files = [file for file in sorted(path.rglob("*")) if not _is_hidden(file.relative_to(path)) and file.is_file()]
    pictures = [file for file in files if file.suffix.lower() in PICTURE_SUFFIXES]
    if pictures:
        return StillFrames(path.resolve().name or str(path), pictures)
    videos = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
    if videos:
        raise DataError(f"{path} holds no pictures, but videos: name one of them, such as {videos[0]}")
    raise DataError(f"{path} holds no pictures: looked in it and below for {', '.join(PICTURE_SUFFIXES)}")


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _file(path: Path) -> Frames:
    from clip_seg_ros.sources.video_frames import VideoFrames

    if path.suffix.lower() in PICTURE_SUFFIXES:
        return StillFrames(path.name, [path])
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return VideoFrames(path)
    for opened in (lambda: StillFrames(path.name, [path]), lambda: VideoFrames(path)):
        try:
            return opened()
        except DataError:
            continue
    raise DataError(f"{path} is neither a picture nor a video that can be read: name {KINDS}")


def _matching(spec: str) -> Frames:
    """Opens the pictures that match a pattern; raises DataError if it is none, or matches no picture."""
    if not any(sign in spec for sign in _ANY):
        raise DataError(f"there is no file or folder {spec}: name {KINDS}")
    found = sorted(glob.glob(str(Path(spec).expanduser()), recursive=True))
    pictures = [Path(each) for each in found if Path(each).suffix.lower() in PICTURE_SUFFIXES]
    if not pictures:
        what = f"matches {len(found)} files, and none of them is a picture" if found else "matches no file"
        raise DataError(f"the pattern {spec} {what}")
    return StillFrames(spec, pictures)
