# SPDX-License-Identifier: Apache-2.0
"""Writes an ``ObjectMemory`` to a file and reads it again: JSON, with pictures and arrays in base64."""

from __future__ import annotations

import base64
import binascii
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from clip_seg_ros.pipeline.stream.recollection import ObjectMemory
from clip_seg_ros.pipeline.stream.remembered import BestView, RememberedObject
from clip_seg_ros.types import OrientedBox, vector3

FORMAT, VERSION = "clip_seg_ros object memory", 1
MAX_BYTES = 256 * 2**20
"""The largest file that is read."""


class MemoryFileError(ValueError):
    """A file holds no memory of objects, or a damaged one; the message says which file and what is wrong."""


def save_memory(memory: ObjectMemory, path: Path, frame_id: str) -> None:
    """Writes a memory atomically: a reader sees the old file or the new one, never a part.

    Args:
        memory: The memory.
        path: Path of the file; its folder must exist.
        frame_id: Name of the fixed frame in which positions are.

    Raises:
        OSError: The file cannot be written.
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "frame_id": frame_id,
        "next_id": memory.next_id,
        # The least recently seen first, as they are kept.
        "objects": [_to_plain(item) for item in reversed(memory.what_was_seen(doubtful=True))],
    }
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8") as file:
            json.dump(content, file, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load_memory(path: Path, frame_id: str, max_objects: int = 256) -> ObjectMemory:
    """Reads what ``save_memory`` wrote.

    Args:
        path: Path of the file.
        frame_id: Name of the fixed frame in which positions must be.
        max_objects: As for ``ObjectMemory``.

    Raises:
        FileNotFoundError: There is no such file.
        MemoryFileError: It holds something else, is damaged, or its positions are in another frame.
        OSError: The file cannot be read.
    """
    if path.stat().st_size > MAX_BYTES:
        raise MemoryFileError(f"{path} has more than {MAX_BYTES} bytes, which is no memory of objects")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise MemoryFileError(f"{path} is damaged or no memory of objects: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise MemoryFileError(f"{path} is no memory of objects")
    if content.get("version") != VERSION:
        raise MemoryFileError(f"{path} has version {content.get('version')!r}; this program reads {VERSION}")
    if content.get("frame_id") != frame_id:
        raise MemoryFileError(
            f"{path} holds positions in the frame {content.get('frame_id')!r}, which are of no use in {frame_id!r}"
        )
    try:
        objects = [_from_plain(plain) for plain in content["objects"]]
        if len({item.id for item in objects}) < len(objects):
            raise ValueError("two objects have one id")
        return ObjectMemory.holding(objects, int(content["next_id"]), max_objects)
    except (KeyError, TypeError, ValueError, OverflowError, binascii.Error) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise MemoryFileError(f"{path} is damaged: {reason}") from error


def _to_plain(item: RememberedObject) -> dict[str, Any]:
    return {
        "id": item.id,
        "phrase": item.phrase,
        "position_m": item.position_m,
        "box_m": None if item.box_m is None else asdict(item.box_m),
        "first_ns": item.first_ns,
        "last_ns": item.last_ns,
        "sightings": item.sightings,
        "whole": item.whole,
        "missed": item.missed,
        "score": item.score,
        "surface_m": _text(item.surface_m.astype("<f4").tobytes()),
        "looks": _text(item.looks.astype("<f4").tobytes()),
        "view": {
            "jpeg": _text(item.view.jpeg),
            "mask_png": _text(item.view.mask_png),
            "worth": item.view.worth,
        },
        "features": None if item.features is None else _text(item.features.astype("<f4").tobytes()),
    }


def _from_plain(plain: dict[str, Any]) -> RememberedObject:
    box, view = plain["box_m"], plain["view"]
    item = RememberedObject(
        id=int(plain["id"]),
        phrase=str(plain["phrase"]),
        position_m=vector3(plain["position_m"]),
        box_m=None if box is None else _box(box),
        first_ns=int(plain["first_ns"]),
        last_ns=int(plain["last_ns"]),
        sightings=int(plain["sightings"]),
        whole=int(plain["whole"]),
        missed=int(plain["missed"]),
        score=float(plain["score"]),
        surface_m=_floats(plain["surface_m"]).reshape(-1, 3),
        looks=_floats(plain["looks"]),
        view=BestView(_bytes(view["jpeg"]), _bytes(view["mask_png"]), float(view["worth"])),
        features=None if plain["features"] is None else _floats(plain["features"]),
    )
    if item.view.rgb().shape[:2] != item.view.mask().shape:
        raise ValueError(f"the picture and the mask of object {item.id} differ in size")
    return item


def _box(plain: dict[str, Any]) -> OrientedBox:
    x, y, z, w = map(float, plain["orientation_xyzw"])
    return OrientedBox(vector3(plain["center_m"]), vector3(plain["size_m"]), (x, y, z, w))


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _floats(text: str) -> np.ndarray:
    values = np.frombuffer(_bytes(text), "<f4").astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError("a number is not finite")
    return values
