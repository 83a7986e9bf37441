# SPDX-License-Identifier: Apache-2.0
"""Reads COCO's annotation files, and decodes their polygons and run lengths to masks.

Masks equal those of COCO's own tools, pixel for pixel. Other functions that fill polygons (``cv2.fillPoly``, PIL) give
other pixels along the edge: they include every pixel that the outline touches, COCO only those whose centre is inside.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clip_seg_ros.data.samples import DataError

NO_PYCOCOTOOLS = "run lengths are written by the package pycocotools, which is not installed: pip install pycocotools"
_UPSAMPLING = 5
"""The resolution of the grid on which COCO draws outlines, relative to that of the image."""


def read_json(path: Path, advice: str, object_hook: Callable[[dict], Any] | None = None) -> Any:
    """Reads a JSON file of annotations.

    Args:
        path: Path of the file.
        advice: Advice if the file is missing or broken, as the end of a sentence: "download the annotations again".
        object_hook: Reduces each JSON object while the file is read. These files contain hundreds of megabytes of
            points, which would take ten times as much memory as Python lists.

    Raises:
        DataError: The file does not exist or is not JSON, for example after an interrupted download.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing: {advice}")
    try:
        with path.open(encoding="utf-8") as file:
            return json.load(file, object_hook=object_hook)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no whole JSON file ({error}): {advice}") from error


def decode_segmentation(segmentation: list | dict, height: int, width: int) -> np.ndarray:
    """Decodes the ``segmentation`` field of a COCO annotation to a mask (height, width) bool.

    Args:
        segmentation: List of polygons, each a flat list x, y, x, y, ... in pixels, or run lengths as
            {"size": [height, width], "counts": numbers or COCO's compressed string}. The mask is the union of polygons.
        height, width: Size of the image in pixels.

    Raises:
        DataError: The field is invalid, or belongs to an image of another size.
    """
    if isinstance(segmentation, dict):
        if list(segmentation.get("size", ())) != [height, width]:
            raise DataError(f"run lengths of size {segmentation.get('size')} on a picture of {height} x {width}")
        return decode_runs(segmentation["counts"], height, width)
    mask = np.zeros((height, width), bool)
    for polygon in segmentation:
        mask |= decode_polygon(polygon, height, width)
    return mask


def packed(segmentation: list | dict) -> list | dict:
    """Returns the polygons of a ``segmentation`` as arrays, which take a quarter of the memory of lists."""
    if isinstance(segmentation, dict):
        return segmentation
    return [np.array(polygon, np.float64) for polygon in segmentation]


def decode_runs(counts: Sequence[int] | str | bytes, height: int, width: int) -> np.ndarray:
    """Decodes run lengths (outside, inside, outside, ..., column by column) to a mask (height, width) bool.

    Raises:
        DataError: The runs do not fill the image, or the string is broken.
    """
    runs = _decompress(counts) if isinstance(counts, str | bytes) else counts
    lengths = np.asarray(runs, np.int64)
    if lengths.ndim != 1 or (lengths < 0).any() or lengths.sum() != height * width:
        raise DataError(f"run lengths cover {lengths.sum()} pixels of a picture of {height} x {width}")
    inside = np.arange(len(lengths)) % 2 == 1
    return np.ascontiguousarray(np.repeat(inside, lengths).reshape(width, height).T)


def encode_runs(mask: np.ndarray) -> dict[str, Any]:
    """Returns a mask (height, width) bool as a ``segmentation`` of run lengths, which ``decode_segmentation`` reads."""
    columns = mask.T.ravel()
    # The runs begin with one outside, which may be empty.
    turns = np.flatnonzero(np.diff(columns, prepend=False))
    return {"size": list(mask.shape), "counts": np.diff(turns, prepend=0, append=mask.size).tolist()}


def compressed_runs(mask: np.ndarray) -> str:
    """Returns a mask (height, width) bool as COCO's compressed string of run lengths, which ``decode_runs`` reads.

    Raises:
        DataError: pycocotools is not installed.
    """
    try:
        from pycocotools import mask as coco
    except ImportError as error:
        raise DataError(NO_PYCOCOTOOLS) from error
    return coco.encode(np.asfortranarray(mask, np.uint8))["counts"].decode("ascii")


def _decompress(text: str | bytes) -> list[int]:
    """Decodes COCO's string of run lengths.

    Each character has five bits of a number, the lowest bits first, and a sixth bit that says whether more follow. From
    the fourth number on, each is the difference from the run two before it; the highest bit of a number is its sign.
    """
    runs: list[int] = []
    value = shift = 0
    for code in text.encode("ascii", "replace") if isinstance(text, str) else text:
        bits = code - 48
        if not 0 <= bits < 64:
            raise DataError(f"compressed run lengths hold the character {chr(code)!r}, which COCO does not use")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise DataError("compressed run lengths break off in the middle of a number")
    return runs


def decode_polygon(polygon: Sequence[float] | np.ndarray, height: int, width: int) -> np.ndarray:
    """Decodes one polygon to a mask (height, width) bool, by the even-odd rule if it crosses itself.

    Args:
        polygon: Coordinates x, y, x, y, ... in pixels, float64; (0, 0) is the outer corner of the first pixel. Parts
            outside the image are cut off.
        height, width: Size of the image in pixels.

    Raises:
        DataError: A coordinate is missing.
    """
    numbers = np.asarray(polygon, np.float64)
    if numbers.ndim != 1 or len(numbers) % 2 or not np.isfinite(numbers).all():
        raise DataError("a polygon is not a flat list of x, y, x, y, ...")
    if not len(numbers):
        return np.zeros((height, width), bool)
    x, y = _fine_outline(numbers.reshape(-1, 2))
    # The outline matters where it steps from one fine column to the next in the middle of a column of the image.
    steps = np.flatnonzero(np.diff(x))
    column = (np.minimum(x[steps], x[steps + 1]) + 0.5) / _UPSAMPLING - 0.5
    row = (np.minimum(y[steps], y[steps + 1]) + 0.5) / _UPSAMPLING - 0.5
    kept = (column == np.floor(column)) & (column >= 0) & (column <= width - 1)
    row = np.ceil(np.clip(row, 0, height))
    # Each of these points switches between inside and outside for all pixels below it in its column.
    turns = np.sort((column * height + row)[kept].astype(np.int64))
    return decode_runs(np.diff(turns, prepend=0, append=height * width), height, width)


def _fine_outline(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns x and y, int64, of every point on the fine grid of the closed outline of (N, 2) points."""
    # The values are truncated like a C cast, which is not rounding below 0.
    corners = (_UPSAMPLING * points + 0.5).astype(np.int64)
    parts = []
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        length = np.abs(end - start)
        long = 0 if length[0] >= length[1] else 1
        # A line is always drawn from its lower end, so that two polygons share an edge whatever their directions are.
        low, high = (end, start) if start[long] > end[long] else (start, end)
        along = np.arange(length[long] + 1)
        slope = (high[1 - long] - low[1 - long]) / max(length[long], 1)
        line = np.empty((len(along), 2), np.int64)
        line[:, long] = low[long] + along
        line[:, 1 - long] = (low[1 - long] + slope * along + 0.5).astype(np.int64)
        parts.append(line if low is start else line[::-1])
    outline = np.concatenate(parts)
    return outline[:, 0], outline[:, 1]
