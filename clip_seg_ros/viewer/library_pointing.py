# SPDX-License-Identifier: Apache-2.0
"""The thing at which somebody points in an image, its name, where it is, and what it is closest to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from clip_seg_ros.annotation.answers import FRAME
from clip_seg_ros.pipeline.describing import PHRASES_AT_ONCE
from clip_seg_ros.pipeline.pointing import require_box, require_point, thing_at, thing_in
from clip_seg_ros.pipeline.predictor import EncodedImage, Predictor
from clip_seg_ros.pipeline.space.localization import measure
from clip_seg_ros.types import CameraFrame, ObjectRegion
from clip_seg_ros.viewer.picture_answers import thing_of
from clip_seg_ros.viewer.source import Pointed
from clip_seg_ros.viewer.space_around import closest
from clip_seg_ros.viewer.views import Thing, View

_SAME_SHARE = 0.5
"""A found object of which more than this part is the thing at which somebody points is that thing."""


def region_at(
    predictor: Predictor, encoded: EncodedImage, frame: CameraFrame, spot_px: Sequence[float]
) -> ObjectRegion:
    """Returns the thing at a point (x, y), or in a box (x_min, y_min, x_max, y_max), with its position.

    Raises:
        ValueError: Nothing is there, or the spot is no such thing.
    """
    size = frame.rgb.shape[:2]
    if not all(map(math.isfinite, spot_px)) or len(spot_px) not in (2, 4):
        raise ValueError("point at a spot with two numbers, or around a thing with four")
    if len(spot_px) == 2:
        point = float(spot_px[0]), float(spot_px[1])
        require_point(point, size)
        found = thing_at(predictor, encoded, frame.rgb, point)
    else:
        # A box that is drawn beyond the picture ends with it.
        x_min, y_min, x_max, y_max = (
            min(max(round(value), 0), size[1 - index % 2]) for index, value in enumerate(spot_px)
        )
        require_box((x_min, y_min, x_max, y_max), size)
        found = thing_in(predictor, encoded, frame.rgb, (x_min, y_min, x_max, y_max))
    return measure(found, frame).region


def name_of(predictor: Predictor, encoded: EncodedImage, region: ObjectRegion, names: Sequence[str]) -> str:
    """Returns the name that fits a thing best; empty if none does.

    Of many names such as "red cup" and "blue cup", the last words are asked first, and then the names of the best one.

    Args:
        predictor: The model that is asked.
        encoded: The image.
        region: The thing.
        names: Names to choose from.

    Raises:
        ValueError: The model refuses the names.
    """
    heads = tuple(dict.fromkeys(each.split()[-1] for each in names))
    if predictor.spec.known_words and len(names) > PHRASES_AT_ONCE and 2 * len(heads) <= len(names):
        head = name_of(predictor, encoded, region, heads)
        names = [each for each in names if each.split()[-1] == head]
    best, best_score = "", predictor.spec.threshold
    # Phrases that compete must be asked together.
    step = len(names) if predictor.spec.competition == "softmax" else PHRASES_AT_ONCE
    for first in range(0, len(names), max(1, step)):
        maps = predictor.ask_cells(encoded, tuple(names[first : first + step]))
        for prompt in maps.prompts:
            values = maps.part((prompt,)).restored().values[0]
            score = float(values[region.window][region.inside].mean())
            if score > best_score:
                best, best_score = prompt, score
    return best


def pointed(region: ObjectRegion, name: str, view: View | None, taught: str = "") -> Pointed:
    """Returns what is told of a thing.

    Args:
        region: The thing.
        name: Its name; empty if it is not known.
        view: The answered image, whose things may be near.
        taught: The name that it was given.
    """
    thing = replace(thing_of(replace(region, prompt=name)), id=0)
    said = name or "a thing"
    if region.position_m is not None:
        said += f", {float(np.linalg.norm(region.position_m)):.3f} m away"
    else:
        said += ", where is not known without depth"
    if taught:
        said += f'; "{taught}" now means it'
    return Pointed(said, thing, FRAME, region.mask, closest(region.position_m, _others(region, view)))


def _others(region: ObjectRegion, view: View | None) -> list[Thing]:
    """Returns the things of an answered image that are others than a region; none of an image of another size."""
    if view is None or view.labels is None or view.labels.shape != region.image_size:
        return []
    return [each for each in view.things if not _is_same(each, region, view.labels)]


def _is_same(thing: Thing, region: ObjectRegion, labels: np.ndarray) -> bool:
    if thing.id:
        shared = np.count_nonzero(region.mask & (labels == thing.id))
        return shared > _SAME_SHARE * min(thing.area_px, region.area_px)
    # What others relate to has no pixels of its own in the labels.
    (x_min, y_min, x_max, y_max), (x, y) = thing.box_px, region.centroid_px
    return x_min <= x < x_max and y_min <= y < y_max
