# SPDX-License-Identifier: Apache-2.0
"""The folder that ``clip-seg segment`` writes.

OUT/
  overlays/NAME.jpg           pictures with what was found; of a folder or a bag in overlays/SOURCE/
  overlays/SOURCE.mp4         of a video, a webcam, and a bag with --video
  masks/NAME.png              the ids of the objects as grey values, 0 for none
  objects.jsonl               a line for each object
  images.jsonl                a line for each picture
  summary.json
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from clip_seg_ros.annotation.files import write_whole
from clip_seg_ros.annotation.overlay_video import OverlayVideo
from clip_seg_ros.annotation.segmenting import Segmented
from clip_seg_ros.data.samples import DataError
from clip_seg_ros.pipeline.overlay import draw
from clip_seg_ros.pipeline.postprocess import label_image
from clip_seg_ros.sources.frame import Kind
from clip_seg_ros.types import ObjectRegion

OVERLAYS, MASKS, OBJECTS, IMAGES, SUMMARY = "overlays", "masks", "objects.jsonl", "images.jsonl", "summary.json"
DEFAULT = "segmented"
_OURS = (OVERLAYS, MASKS, OBJECTS, IMAGES, SUMMARY)
_QUALITY = 92
_PATH_SIGNS = re.compile(r"[^\w.-]+")


def free_folder(parent: Path) -> Path:
    """Returns ``segmented`` in a folder, or the first of ``segmented_2``, ... that is not there or is empty."""
    number = 1
    while True:
        folder = parent / (DEFAULT if number == 1 else f"{DEFAULT}_{number}")
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return folder
        number += 1


def prepared_folder(out: Path, overwrite: bool) -> Path:
    """Makes the folder that somebody names, and returns it.

    Args:
        out: The folder.
        overwrite: Whether what an earlier run wrote into it is removed.

    Raises:
        DataError: It holds something, or cannot be made.
    """
    try:
        if out.exists() and any(out.iterdir()):
            if not overwrite:
                raise DataError(f"{out} is not empty: name another --out, or add --overwrite")
            if not (out / IMAGES).is_file():
                raise DataError(
                    f"{out} was not written by clip-seg segment, and is not overwritten: name another --out"
                )
            for name in _OURS:
                shutil.rmtree(out / name) if (out / name).is_dir() else (out / name).unlink(missing_ok=True)
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out} cannot be the folder of the results: {error.strerror or error}") from error
    return out


class SegmentFiles:
    """Writes what was found, image by image; all that was written stays if the run ends early.

    Args:
        out: The folder.
        prompts: The phrases that were asked, which decide the colours.
        corner: A short line for the lower left corner of pictures.
        overlays: Whether pictures with what was found are written.
        masks: Whether label images are written.
        videos: Whether recordings become a video, of which kinds of sources.
    """

    def __init__(
        self, out: Path, prompts: Sequence[str], corner: str, overlays: bool, masks: bool, videos: bool = False
    ) -> None:
        self._out, self._prompts, self._corner = out, tuple(prompts), corner
        self._overlays, self._masks, self._videos = overlays, masks, videos
        self._objects = (out / OBJECTS).open("w", encoding="utf-8")
        self._images = (out / IMAGES).open("w", encoding="utf-8")
        self._taken: set[str] = set()
        self._numbers: dict[str, int] = {}
        self._source, self._base, self._kind = "", Path(), "still"
        self._video: OverlayVideo | None = None

    def __enter__(self) -> SegmentFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.end()
        finally:
            self._objects.close()
            self._images.close()

    def begin(self, name: str, kind: Kind, base: Path | None, is_video: bool, is_folder: bool) -> None:
        """Begins a source.

        Args:
            name: What it is called in the results, which is made different from others.
            kind: What it is.
            base: The folder that the names of its pictures begin with; ``None`` for those that were named one by one.
            is_video: Whether it is shown as a video.
            is_folder: Whether it is a folder of pictures, which gets a folder of its own.
        """
        self.end()
        self._kind, self._base = kind, base
        # Pictures that were named one by one or by a pattern lie directly in the folder.
        self._source = "" if kind == "still" and not is_folder else self._free(_safe(name))
        self.source = self._source or name
        if is_video and self._overlays:
            self._video = OverlayVideo(self._out / OVERLAYS / f"{self._source}.mp4")

    def add(self, segmented: Segmented) -> str:
        """Writes what was found in an image; returns the path of the picture to look at, in the folder, or ""."""
        name = self._name(segmented)
        frame, line = segmented.frame, self._about(segmented)
        if self._overlays:
            drawn = draw(
                frame.rgb,
                segmented.regions,
                self._prompts,
                caption=_caption(segmented, self._prompts),
                corner=self._corner,
                ties=segmented.ties,
                numbers=True,
            )
            if self._video is not None:
                self._video.add(drawn, frame.stamp_ns)
                line["overlay"] = f"{OVERLAYS}/{self._source}.mp4"
            else:
                line["overlay"] = self._write(
                    f"{OVERLAYS}/{name}.jpg", drawn[..., ::-1], cv2.IMWRITE_JPEG_QUALITY, _QUALITY
                )
        if self._masks:
            labels = label_image(segmented.regions, frame.rgb.shape[:2])
            line["mask"] = self._write(f"{MASKS}/{name}.png", labels, cv2.IMWRITE_PNG_COMPRESSION, 3)
        for region in segmented.placed:
            _line(self._objects, {**self._which(segmented), **_object(region, segmented)})
        _line(self._images, line)
        return line.get("overlay", "")

    def end(self) -> None:
        """Ends the source. Raises DataError if its video cannot be written."""
        video, self._video = self._video, None
        if video is not None:
            video.close()

    def summarize(self, summary: dict[str, Any]) -> None:
        """Writes the summary."""
        write_whole(self._out / SUMMARY, (json.dumps(summary, indent=2, ensure_ascii=False) + "\n").encode())

    def _which(self, segmented: Segmented) -> dict[str, Any]:
        frame = segmented.frame
        return {
            "source": self.source,
            "image": frame.name,
            "index": segmented.index,
            "stamp_ns": frame.stamp_ns,
        }

    def _about(self, segmented: Segmented) -> dict[str, Any]:
        height, width = segmented.frame.rgb.shape[:2]
        found: dict[str, int] = dict.fromkeys(self._prompts, 0)
        for region in segmented.regions:
            found[region.prompt] += 1
        return {**self._which(segmented), "width": width, "height": height, "found": found, "answer": segmented.answer}

    def _name(self, segmented: Segmented) -> str:
        if self._kind != "still":
            return f"{self._source}/{segmented.index:06d}"
        file = Path(segmented.frame.name)
        parts = file.relative_to(self._base).parts if self._base and file.is_relative_to(self._base) else (file.name,)
        folder = "/".join(filter(None, (self._source, *map(_safe, parts[:-1]))))
        return self._free(f"{folder}/{_safe(file.stem)}".lstrip("/"))

    def _free(self, name: str) -> str:
        """Returns a name, with a number where it is taken already."""
        key = name.lower()  # some disks do not tell capital letters apart
        number = self._numbers.get(key, 1)
        free = name if number == 1 else f"{name}_{number}"
        while free.lower() in self._taken:
            number += 1
            free = f"{name}_{number}"
        # The search goes on from here when there is one more of the name.
        self._numbers[key] = number
        self._taken.add(free.lower())
        return free

    def _write(self, name: str, pixels: np.ndarray, option: int, value: int) -> str:
        path = self._out / name
        write_whole(path, cv2.imencode(path.suffix, pixels, [option, value])[1].tobytes(), is_lasting=False)
        return name


def _object(region: ObjectRegion, segmented: Segmented) -> dict[str, Any]:
    box = region.box_m
    own = next(each for each in segmented.regions if each.id == region.id and each.prompt == region.prompt)
    ties = [
        {"words": tie.words, "to": tie.anchor.prompt, "gap_m": _rounded(tie.gap_m)}
        for tie in segmented.ties.ties
        if tie.region is own
    ]
    has_position = region.position_m is not None
    return {
        "prompt": region.prompt,
        "id": region.id,
        "score": round(float(region.score), 4),
        "box_px": list(region.box_px),
        "centroid_px": [round(float(each), 2) for each in region.centroid_px],
        "area_px": int(region.area_px),
        "frame": segmented.placed_in if has_position else None,
        "position_m": [_rounded(each) for each in region.position_m] if has_position else None,
        "box_m": None
        if box is None
        else {
            "center_m": [_rounded(each) for each in box.center_m],
            "size_m": [_rounded(each) for each in box.size_m],
            "orientation_xyzw": [round(each, 5) for each in box.orientation_xyzw],
        },
        **({"relations": ties} if ties else {}),
    }


def _caption(segmented: Segmented, prompts: Sequence[str]) -> str:
    """Returns what a picture does not show by itself: what relations and numbers found, and what is not there."""
    if segmented.sentences:
        return "; ".join(segmented.sentences.values())
    missing = [each for each in prompts if all(region.prompt != each for region in segmented.regions)]
    return f"not found: {', '.join(missing)}" if missing else ""


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)


def _safe(name: str) -> str:
    """Returns a name for files: letters, digits, ".", "-" and "_" alone, and not hidden."""
    return _PATH_SIGNS.sub("_", name).strip("._") or "source"


def _line(file: Any, values: dict[str, Any]) -> None:
    file.write(json.dumps(values, ensure_ascii=False) + "\n")
    file.flush()
