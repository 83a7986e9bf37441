# SPDX-License-Identifier: Apache-2.0
"""Compares what ``clip-seg annotate`` wrote with the truth of a recording, such as ``clip-seg record`` writes.

Images are found again by their topic and stamp. What is measured is the COCO file, because that is what people edit and
train on. True objects of which hardly anything is visible, and their pixels, do not count.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clip_seg_ros.data.samples import DataError
from clip_seg_ros.evaluation.annotation_files import (
    AnnotatedImage,
    Annotations,
    TrueImage,
    read_annotations,
    true_images,
)
from clip_seg_ros.evaluation.metrics.masks import mask_iou
from clip_seg_ros.evaluation.suite import Figure
from clip_seg_ros.sim.naming import matches, pair_of

LEAST_SHARE = 0.001
"""The least share of the image that a true object covers if it counts."""
MIN_IOU = 0.5
"""The least IoU of an annotated object and the true one that it is."""
_Key = tuple[str, str, int]
"""The topic, the phrase and the label of a true object."""


@dataclass(frozen=True)
class _Match:
    """An annotated object that is a true one."""

    key: _Key
    track: int
    index: int
    """Its index among the objects of its image."""


@dataclass(frozen=True)
class _Tracked:
    """What an image with true objects says about ids."""

    topic: str
    matches: tuple[_Match, ...]
    others: tuple[tuple[int, frozenset[int]], ...]
    """The track of each object that is no true one, and the labels of the true ones that it touches."""

    def is_right(self, own: Mapping[_Key, int]) -> bool:
        """Returns whether something was found, each with its own id, and nothing else has the id of a true object.

        What covers a true object badly may have its id, unless something else in the image is that object.
        """
        owners = {(key[0], track): key for key, track in own.items()}
        found = {match.key for match in self.matches}
        for track, touched in self.others:
            owner = owners.get((self.topic, track))
            if owner is not None and (owner in found or owner[2] not in touched):
                return False
        return bool(found) and all(own.get(match.key) == match.track for match in self.matches)


class AnnotationMeter:
    """Adds up images one at a time.

    Args:
        phrases: What was asked for, found or not.
    """

    def __init__(self, phrases: Sequence[str]) -> None:
        self._phrases = tuple(phrases)
        self._ious: dict[str, list[float]] = defaultdict(list)
        self._images = self._false = self._strays = 0
        self._true = self._found = 0
        self._frames: list[_Tracked] = []
        self._errors_m: list[float] = []

    def add(self, image: AnnotatedImage, truth: TrueImage) -> None:
        """Counts one image.

        Raises:
            DataError: A mask is of another size than the truth.
        """
        self._images += 1
        areas = np.bincount(truth.labels.ravel(), minlength=256)
        faint = {each.label for each in truth.objects if areas[each.label] < LEAST_SHARE * truth.labels.size}
        counted = ~np.isin(truth.labels, list(faint))
        masks = [each.mask(truth.labels.shape) & counted for each in image.objects]
        found: list[_Match] = []
        has_true = False
        for phrase in self._phrases:
            named = [each for each in truth.objects if is_named(phrase, each.name)]
            clear = [each.label for each in named if each.label not in faint]
            mine = [index for index, each in enumerate(image.objects) if each.prompt == phrase]
            if clear:
                has_true = True
                covered = np.any([masks[index] for index in mine], axis=0) if mine else np.zeros_like(counted)
                self._ious[phrase].append(mask_iou(covered, np.isin(truth.labels, clear)))
                matched = self._matched(image, truth, phrase, {label: truth.labels == label for label in clear}, masks)
                self._true, self._found = self._true + len(clear), self._found + len(matched)
                self._strays += len(mine) - len(matched)
                found += matched
            elif not named:
                self._false += len(mine)
        if has_true:
            self._frames.append(_Tracked(image.topic, tuple(found), _others(image, truth, found, masks)))

    def figures(self) -> list[Figure]:
        """Returns the figures of all images so far; one without anything to measure is left out."""
        ious = [iou for several in self._ious.values() for iou in several]
        pairs = "phrases that are there, in images"
        values = {
            "images": (self._images, "images with truth"),
            "coco.pairs": (len(ious), pairs),
            "coco.mean_iou": (_mean(ious), f"IoU, mean over {pairs}"),
            "coco.precision_at_50": (_mean(iou >= MIN_IOU for iou in ious), f"share with IoU >= 0.5 of {pairs}"),
            "coco.false_objects": (_share(self._false, self._images), "objects an image, of absent phrases"),
            "coco.stray_objects": (
                _share(self._strays, self._images),
                "objects an image that are no true one, of others",
            ),
            "coco.found": (_share(self._found, self._true), "share of true objects with IoU >= 0.5"),
            "ids_right": (self._ids_right(), "share of images with true objects"),
            "position_error_cm": (
                100 * float(np.median(self._errors_m)) if self._errors_m else math.nan,
                "cm, median",
            ),
            **{f"phrases.{phrase}": (_mean(several), "IoU") for phrase, several in self._ious.items()},
        }
        return [
            Figure(f"annotations.{name}", float(f"{value:.4g}"), unit)
            for name, (value, unit) in values.items()
            if not math.isnan(value)
        ]

    def _matched(
        self, image: AnnotatedImage, truth: TrueImage, phrase: str, true: dict[int, np.ndarray], masks: list[np.ndarray]
    ) -> list[_Match]:
        """Matches the objects of a phrase with the true ones, each once, those that overlap most first."""
        pairs = [
            (iou, index, label)
            for index, thing in enumerate(image.objects)
            if thing.prompt == phrase
            for label, mask in true.items()
            if (iou := mask_iou(masks[index], mask)) >= MIN_IOU
        ]
        places = {each.label: each.position_m for each in truth.objects}
        found: list[_Match] = []
        used: set[int] = set()
        taken: set[int] = set()
        for _, index, label in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2])):
            if index in used or label in taken:
                continue
            used.add(index)
            taken.add(label)
            thing, place = image.objects[index], places[label]
            found.append(_Match((image.topic, phrase, label), thing.track, index))
            if thing.position_m is not None and place is not None:
                self._errors_m.append(math.dist(thing.position_m, place))
        return found

    def _ids_right(self) -> float:
        """Returns the share of images with true objects in which ids are right; NaN without any."""
        own = _own_tracks(match for frame in self._frames for match in frame.matches)
        return _mean(frame.is_right(own) for frame in self._frames)


def is_named(phrase: str, name: str) -> bool:
    """Returns whether a phrase names a true object: "cup" and "red cup" name a "red cup"."""
    if phrase == name:
        return True
    pair = pair_of(phrase)
    return pair is not None and len(name.split()) == 2 and matches(pair, name)


def compare(folder: Path, recording: Path, progress: Callable[[Iterable], Iterable] = iter) -> list[Figure]:
    """Compares the annotations of a run with the truth of a recording.

    Args:
        folder: The folder of the run.
        recording: The bag with the truth beside the images.
        progress: Wraps the images of the truth, for a progress bar.

    Raises:
        DataError: There are no annotations or no truth, they cannot be read, or they have no image in common.
    """
    annotations = read_annotations(folder, recording)
    if not annotations.images:
        raise DataError(f"no image that was annotated in {folder} came from a recording: there is no truth for them")
    meter = AnnotationMeter(annotations.phrases)
    count = missed = 0
    for truth in progress(true_images(recording)):
        image = _annotated(annotations, truth)
        count += image is not None
        missed += image is None and any(topic.startswith(f"{truth.camera}/") for topic in annotations.topics)
        if image is not None:
            meter.add(image, truth)
    if not count:
        raise DataError(
            f"{recording} has the truth of none of the images that were annotated: their topics are "
            f"{', '.join(annotations.topics)}. Name the recording that {folder} was made of"
        )
    return [*meter.figures(), Figure("annotations.images_left_out", float(missed), "images with truth")]


def _annotated(annotations: Annotations, truth: TrueImage) -> AnnotatedImage | None:
    """Returns the annotated image of a camera at the time of the truth."""
    for topic in annotations.topics:
        if topic.startswith(f"{truth.camera}/") and (topic, truth.stamp_ns) in annotations.images:
            return annotations.images[topic, truth.stamp_ns]
    return None


def _others(
    image: AnnotatedImage, truth: TrueImage, found: Iterable[_Match], masks: Sequence[np.ndarray]
) -> tuple[tuple[int, frozenset[int]], ...]:
    """Returns ``_Tracked.others``. What lies on pixels alone that do not count does not count either."""
    matched = {match.index for match in found}
    return tuple(
        (each.track, frozenset(np.unique(truth.labels[mask]).tolist()))
        for index, (each, mask) in enumerate(zip(image.objects, masks, strict=True))
        if index not in matched and mask.any()
    )


def _own_tracks(matches: Iterable[_Match]) -> dict[_Key, int]:
    """Returns the track of each true object: the most frequent one, unless another object has it more often.

    What is not tracked has no track.
    """
    counts: Counter[tuple[_Key, int]] = Counter((match.key, match.track) for match in matches if match.track)
    own: dict[_Key, int] = {}
    taken: set[tuple[str, int]] = set()
    for (key, track), _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if key not in own and (key[0], track) not in taken:
            own[key] = track
            taken.add((key[0], track))
    return own


def _share(count: int, whole: int) -> float:
    return count / whole if whole else math.nan


def _mean(values: Iterable[float]) -> float:
    several = list(values)
    return float(np.mean(several)) if several else math.nan
