# SPDX-License-Identifier: Apache-2.0
"""A run of small images with a cup and a box, and what tests of reviews do with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from clip_seg_ros.annotation.decisions import Decision
from clip_seg_ros.annotation.results import AnnotatedFrame, AnnotatedObject
from clip_seg_ros.annotation.review import Review
from clip_seg_ros.types import ObjectRegion
from reviewed_run import write_shards

SIZE = (24, 32)
SOURCE = "kitchen"


def region(prompt: str, corner: tuple[int, int], side: int = 6, score: float = 0.9) -> ObjectRegion:
    mask = np.zeros(SIZE, bool)
    mask[corner[0] : corner[0] + side, corner[1] : corner[1] + side] = True
    return ObjectRegion.of_mask(prompt, 1, score, mask)


def thing(prompt: str, track: int, corner: tuple[int, int] = (4, 4), side: int = 6, score: float = 0.9):
    return AnnotatedObject.of(region(prompt, corner, side, score), track, 0.5, 0.75)


def image(
    index: int, *objects: AnnotatedObject, agreement: float | None = None, source: str = SOURCE
) -> AnnotatedFrame:
    picture = f"images/{source}/{index:06d}.jpg"
    return AnnotatedFrame(source, "", index, index * 10**8, f"{index}", picture, SIZE, objects, agreement)


def write(out: Path, frames: list[AnnotatedFrame], shard: int = 3) -> Path:
    """Writes what a run found, in shards of a few images."""
    write_shards(out, frames, ("red cup", "blue box"), shard)
    return out


CUP, BOX = thing("red cup", 1), thing("blue box", 2, (14, 20))


def reviewed(folder: Path, frames: list[AnnotatedFrame]) -> Review:
    return Review(write(folder, frames))


def about(review: Review, image: int) -> list[str]:
    shown = review.shown(image)
    return [*shown.words, *(word for _, words in shown.doubts for word in words)]


def decide(review: Review, kind, index: int = 0, object: int | None = 0, by: str = "anna", **more) -> Decision:
    return review.decide(Decision(kind, by, source=SOURCE, index=index, object=object, **more))


def states(review: Review, image: int = 0) -> list[str]:
    return [fate.state for fate in review.shown(image).fates]


def names(review: Review, image: int = 0) -> list[str]:
    return [each.prompt for each in list(review.frames())[image].objects]
