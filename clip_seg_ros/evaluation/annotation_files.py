# SPDX-License-Identifier: Apache-2.0
"""Reads what ``clip-seg annotate`` wrote, and the truth that lies beside the images in a recording."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clip_seg_ros.annotation.layout import COCO
from clip_seg_ros.data.coco_masks import decode_segmentation, read_json
from clip_seg_ros.data.samples import DataError
from clip_seg_ros.sources.bags import BagMessage, open_bag, rgb_of
from clip_seg_ros.sources.recorded_table import TRUE_LABELS, TRUE_OBJECTS

_WAITING = 64
"""The number of images whose truth may be there in part."""


@dataclass(frozen=True)
class AnnotatedThing:
    """An object of the COCO file."""

    prompt: str
    track: int
    """0: not tracked."""
    segmentation: Any
    """COCO's polygons or run lengths."""
    position_m: tuple[float, float, float] | None

    def mask(self, size: tuple[int, int]) -> np.ndarray:
        """Returns its mask, (H, W) bool, of an image of ``size``. Raises DataError if it is of another size."""
        return decode_segmentation(self.segmentation, *size)


@dataclass(frozen=True)
class AnnotatedImage:
    """An image of the COCO file."""

    topic: str
    stamp_ns: int
    objects: tuple[AnnotatedThing, ...]


@dataclass(frozen=True)
class Annotations:
    """The COCO file of a run, as far as it is about one recording."""

    phrases: tuple[str, ...]
    """What was asked for, found or not."""
    images: dict[tuple[str, int], AnnotatedImage]
    """By topic and stamp."""

    @property
    def topics(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(topic for topic, _ in self.images))


@dataclass(frozen=True)
class TrueObject:
    """An object that a camera really saw."""

    name: str
    label: int
    """The value of its pixels, the same in every image."""
    position_m: tuple[float, float, float] | None
    """Of its visible surface, in the camera's optical frame."""


@dataclass(frozen=True)
class TrueImage:
    """What is really in an image."""

    camera: str
    """What the names of the camera's topics begin with, such as "/camera_1"."""
    stamp_ns: int
    labels: np.ndarray
    """(H, W) uint8."""
    objects: tuple[TrueObject, ...]


def read_annotations(folder: Path, recording: Path) -> Annotations:
    """Reads the COCO file of a run.

    Args:
        folder: The folder of the run.
        recording: The recording whose images are wanted, if the run is about several that have the same topics.

    Raises:
        DataError: There is no such file, it is broken, or an image has no stamp or is there twice.
    """
    path = folder / COCO
    content = read_json(path, "annotate with the format coco first: clip-seg annotate ... --formats coco")
    try:
        names = {each["id"]: each["name"] for each in content["categories"]}
        things: dict[int, list[AnnotatedThing]] = {}
        for each in content["annotations"]:
            things.setdefault(each["image_id"], []).append(_thing(each, names))
        images = [each for each in content["images"] if each["topic"]]
        return Annotations(tuple(names.values()), _by_time(_of(images, recording), things, path))
    except KeyError as error:
        raise DataError(f"{path} is not as clip-seg annotate writes it: {error} is missing") from error
    except (TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{path} is not as clip-seg annotate writes it: {error}") from error


def _thing(entry: dict[str, Any], names: dict[int, str]) -> AnnotatedThing:
    position = entry.get("position_m")
    return AnnotatedThing(
        names[entry["category_id"]],
        int(entry.get("track_id", 0)),
        entry["segmentation"],
        None if position is None else tuple(position),
    )


def _of(images: list[dict[str, Any]], recording: Path) -> list[dict[str, Any]]:
    """Returns the images of a recording if sources bear its name, else all."""
    stem = re.sub(r"[^\w.-]", "_", recording.stem, flags=re.ASCII)
    own = [each for each in images if str(each.get("source", "")).startswith(stem)]
    return own or images


def _by_time(
    images: list[dict[str, Any]], things: dict[int, list[AnnotatedThing]], path: Path
) -> dict[tuple[str, int], AnnotatedImage]:
    found: dict[tuple[str, int], AnnotatedImage] = {}
    for each in images:
        key = each["topic"], int(each["stamp_ns"])
        if key in found:
            raise DataError(f"{path} has two images of {key[0]} at {key[1]}: which of them has this truth is not clear")
        found[key] = AnnotatedImage(*key, tuple(things.get(each["id"], ())))
    return found


def true_images(recording: Path) -> Iterator[TrueImage]:
    """Yields the truth of a recording: of each image for which there are labels and objects with the same stamp.

    Raises:
        DataError: It is no bag that can be read, or has no truth; at the end, where the rest of it is missing.
    """
    with open_bag(recording, salvage=True) as bag:
        topics = [each.name for each in bag.topics if each.name.endswith((f"/{TRUE_LABELS}", f"/{TRUE_OBJECTS}"))]
        if not topics:
            raise DataError(f"{recording} has no truth: none of its topics ends with /{TRUE_LABELS}")
        waiting: dict[tuple[str, int], BagMessage] = {}
        for message in bag.messages(topics):
            stamp = message.read().header.stamp
            camera = message.topic.removesuffix(f"/{TRUE_LABELS}").removesuffix(f"/{TRUE_OBJECTS}")
            key = camera, stamp.sec * 10**9 + stamp.nanosec
            other = waiting.pop(key, None)
            if other is None:
                waiting[key] = message
                if len(waiting) > _WAITING:
                    del waiting[next(iter(waiting))]
                continue
            labels, objects = (other, message) if message.topic.endswith(TRUE_OBJECTS) else (message, other)
            yield _true_image(*key, labels, objects)


def _true_image(camera: str, stamp_ns: int, labels: BagMessage, objects: BagMessage) -> TrueImage:
    found = tuple(
        TrueObject(
            each.prompt, each.id, (each.position.x, each.position.y, each.position.z) if each.has_position else None
        )
        for each in objects.read().objects
    )
    return TrueImage(camera, stamp_ns, rgb_of(labels, labels.topic)[..., 0], found)
