# SPDX-License-Identifier: Apache-2.0
"""What was found in the images of a source, and how it is kept: one line of JSON for each image.

Numbers are rounded when they are made, so that what is written and what is read again are the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from clip_seg_ros.data.coco_masks import compressed_runs, decode_runs
from clip_seg_ros.data.samples import DataError
from clip_seg_ros.types import ObjectRegion

Band = Literal["sure", "doubtful"]
Decided = Literal["guessed", "accepted", "corrected"]
_SCORE_DIGITS = 4
_METRE_DIGITS = 4
_PIXEL_DIGITS = 2


@dataclass(frozen=True)
class AnnotatedObject:
    """One object in one image."""

    prompt: str
    track: int
    """Its number among the objects of its source, from 1, the same in all images that show it; 0: not tracked."""
    score: float
    """Mean probability over the mask, 0..1."""
    margin: float
    """How far the score lies above the threshold of its phrase, as a share of what is above it, 0..1."""
    band: Band
    """Whether the score is above the run's own bound of what counts as sure."""
    box_px: tuple[int, int, int, int]
    """(x_min, y_min, x_max, y_max); the maxima are exclusive."""
    centroid_px: tuple[float, float]
    """(x, y)."""
    area_px: int
    counts: str
    """The mask in COCO's compressed run lengths, of an image of the frame's size."""
    position_m: tuple[float, float, float] | None = None
    """(x, y, z) of the middle of the visible surface in the camera's optical frame; ``None`` without depth."""
    size_m: tuple[float, float, float] | None = None
    """The lengths of its oriented box, the longest first; ``None`` without depth."""
    decided: Decided = "guessed"
    """Whether it is as the model found it, was accepted by a person, or has its mask or name from a person."""

    @classmethod
    def of(cls, region: ObjectRegion, track: int, threshold: float, sure_from: float) -> AnnotatedObject:
        """Makes one of a region that the model found.

        Args:
            region: The region.
            track: The attribute of this name.
            threshold: That of the region's phrase, 0..1.
            sure_from: The score from which objects are sure, 0..1.
        """
        box = region.box_m
        margin = (float(region.score) - threshold) / max(1e-6, 1 - threshold)
        return cls(
            prompt=region.prompt,
            track=track,
            score=round(float(region.score), _SCORE_DIGITS),
            margin=round(min(1.0, max(0.0, margin)), _SCORE_DIGITS),
            band="sure" if region.score >= sure_from else "doubtful",
            box_px=region.box_px,
            centroid_px=(round(region.centroid_px[0], _PIXEL_DIGITS), round(region.centroid_px[1], _PIXEL_DIGITS)),
            area_px=int(region.area_px),
            counts=compressed_runs(region.mask),
            position_m=_metres(region.position_m),
            size_m=_metres(box.size_m if box is not None else None),
        )

    def mask(self, size: tuple[int, int]) -> np.ndarray:
        """Returns the mask, (H, W) bool, of an image of ``size`` (H, W). Raises DataError if it is of another size."""
        return decode_runs(self.counts, *size)


@dataclass(frozen=True)
class AnnotatedFrame:
    """What was found in one image."""

    source: str
    """Name of the source in the run; see ``layout``."""
    topic: str
    """Its topic in a bag; empty for others."""
    index: int
    """Its number among the images of its source, from 0; images that were left out count, too."""
    stamp_ns: int
    """When it was taken, by the clock of its source; of pictures in files, ``index``."""
    name: str
    """Its name in the source: a path in its folder, or a topic and a time."""
    picture: str
    """The path of its copy, relative to the folder of the run, such as "images/kitchen/000012.jpg"."""
    size: tuple[int, int]
    """(H, W)."""
    objects: tuple[AnnotatedObject, ...]
    agreement: float | None = None
    """How well a second model agrees, 0..1: the mean over the phrases of the IoU of both models' masks; ``None``
    without one."""
    frame_id: str = ""
    """Name of the camera's optical frame in a bag; empty for others."""

    def to_json(self) -> str:
        """Returns it as one line of JSON, without the end of the line."""
        return json.dumps(asdict(self), separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> AnnotatedFrame:
        """Reads what ``to_json`` wrote.

        Raises:
            DataError: It is no such line.
        """
        try:
            values = json.loads(line)
            objects = tuple(AnnotatedObject(**_tuples(each)) for each in values.pop("objects"))
            return cls(**_tuples(values), objects=objects)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"this is no line of an annotated image: {line[:80]!r} ({error})") from error

    def with_objects(self, objects: Iterable[AnnotatedObject]) -> AnnotatedFrame:
        """Returns the same image with other objects."""
        return replace(self, objects=tuple(objects))


def located_frames(file: Path) -> Iterator[tuple[int, AnnotatedFrame]]:
    """Yields where the line of each image begins, in bytes, and the image.

    Raises:
        DataError: A line is damaged; the message names it, and says what to do.
    """
    with file.open("rb") as lines:
        offset = 0
        for number, line in enumerate(lines, start=1):
            try:
                yield offset, AnnotatedFrame.from_json(line.decode("utf-8"))
            except (DataError, UnicodeDecodeError) as error:
                raise DataError(
                    f"{file}, line {number}: {error}; remove this file and run the same command again"
                ) from error
            offset += len(line)


def frame_at(file: Path, offset: int) -> AnnotatedFrame:
    """Reads the image whose line begins at a place that ``located_frames`` gave.

    Raises:
        DataError: There is no such line.
        OSError: The file cannot be read.
    """
    with file.open("rb") as lines:
        lines.seek(offset)
        try:
            return AnnotatedFrame.from_json(lines.readline().decode("utf-8"))
        except (DataError, UnicodeDecodeError) as error:
            raise DataError(f"{file} has changed since it was read first: begin anew ({error})") from error


def _metres(values: Iterable[float] | None) -> Any:
    return None if values is None else tuple(round(float(value), _METRE_DIGITS) for value in values)


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
