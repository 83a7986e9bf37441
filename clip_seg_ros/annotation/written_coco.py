# SPDX-License-Identifier: Apache-2.0
"""The format "coco": objects as COCO instances, with compressed run lengths, in one file.

Beside COCO's own keys, an image has "source", "topic", "stamp_ns", "index" and "name", and an object "prompt", "score",
"margin", "band", "decided" (by a person: "accepted" or "corrected"; else "guessed"), "track_id" (0: not tracked) and,
where there was depth, "position_m" and "size_m".
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clip_seg_ros.annotation.files import whole_file
from clip_seg_ros.annotation.job import Job
from clip_seg_ros.annotation.layout import COCO, MANIFEST
from clip_seg_ros.annotation.results import AnnotatedFrame, AnnotatedObject
from clip_seg_ros.annotation.writing import Frames, class_names, picture_name

_OPTIONAL = ("position_m", "size_m")
"""What an object may have besides."""


def write_coco(out: Path, frames: Frames, job: Job) -> None:
    """Writes the file of a run.

    Args:
        out: The folder of the run.
        frames: All images, at each call.
        job: What was asked.
    """
    with whole_file(out / COCO) as file:
        for part in coco_parts(out, frames, job):
            file.write(part)


def coco_parts(out: Path, frames: Frames, job: Job, with_attributes: bool = False) -> Iterator[bytes]:
    """Yields the file in parts, so that it is never in memory as a whole; the arguments are those of ``write_coco``.

    Args:
        out, frames, job: As above.
        with_attributes: Whether objects have their score and track once more under "attributes", where CVAT looks.
    """
    names = class_names(frames, job)
    numbers = {name: number for number, name in enumerate(names, start=1)}
    categories = [{"id": number, "name": name, "supercategory": ""} for name, number in numbers.items()]
    yield b'{"info":' + _json(_info(out, job)) + b',\n"licenses":[],\n"categories":' + _json(categories)
    yield b',\n"images":[\n'
    yield from _joined(_image(number, frame) for number, frame in enumerate(frames(), start=1))
    yield b'],\n"annotations":[\n'
    yield from _joined(_objects(frames, numbers, with_attributes))
    yield b"]}\n"


def _info(out: Path, job: Job) -> dict[str, Any]:
    info: dict[str, Any] = {
        "description": "written by clip-seg annotate",
        "model": job.model,
        "second_model": job.second_model,
        "sure_from": job.sure_from,
        "negatives": list(job.negatives),
    }
    manifest = out / MANIFEST
    if manifest.is_file():
        info["models"] = json.loads(manifest.read_text(encoding="utf-8")).get("models")
    return info


def _image(number: int, frame: AnnotatedFrame) -> dict[str, Any]:
    height, width = frame.size
    image: dict[str, Any] = {
        "id": number,
        "file_name": picture_name(frame),
        "width": width,
        "height": height,
        "source": frame.source,
        "topic": frame.topic,
        "stamp_ns": frame.stamp_ns,
        "index": frame.index,
        "name": frame.name,
    }
    if frame.frame_id:
        image["frame_id"] = frame.frame_id
    if frame.agreement is not None:
        image["agreement"] = frame.agreement
    return image


def _objects(frames: Frames, numbers: dict[str, int], with_attributes: bool) -> Iterator[dict[str, Any]]:
    count = 0
    for image, frame in enumerate(frames(), start=1):
        for thing in frame.objects:
            count += 1
            entry = {"id": count, "image_id": image, "category_id": numbers[thing.prompt], **_object(frame, thing)}
            if with_attributes:
                entry["attributes"] = {
                    "track_id": thing.track,
                    "score": thing.score,
                    "band": thing.band,
                    "decided": thing.decided,
                }
            yield entry


def _object(frame: AnnotatedFrame, thing: AnnotatedObject) -> dict[str, Any]:
    left, top, right, bottom = thing.box_px
    return {
        "segmentation": {"size": list(frame.size), "counts": thing.counts},
        "area": thing.area_px,
        "bbox": [left, top, right - left, bottom - top],
        "iscrowd": 0,
        "prompt": thing.prompt,
        "score": thing.score,
        "margin": thing.margin,
        "band": thing.band,
        "decided": thing.decided,
        "track_id": thing.track,
        **{name: value for name in _OPTIONAL if (value := getattr(thing, name, None)) is not None},
    }


def _joined(entries: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    """Yields the entries of a list, one in each line."""
    for place, entry in enumerate(entries):
        yield (b",\n" if place else b"") + _json(entry)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
