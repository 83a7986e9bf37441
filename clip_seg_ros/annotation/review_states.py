# SPDX-License-Identifier: Apache-2.0
"""What is decided about the objects and images of a review, as columns of numbers beside those of ``DoubtIndex``."""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np

from clip_seg_ros.annotation.decisions import STATES, Decision, Decisions, fates
from clip_seg_ros.annotation.doubt import DoubtIndex

_GUESSED, _ACCEPTED, _CORRECTED, _REJECTED = (STATES.index(each) for each in STATES)


class ReviewStates:
    """The columns; nothing is decided yet until ``update`` is called, and ``recount`` after it.

    Args:
        index: The images and objects.
        decisions: The decisions in force, which the caller changes.
    """

    def __init__(self, index: DoubtIndex, decisions: Decisions) -> None:
        self._index, self._decisions = index, decisions
        self.state = np.zeros(len(index.score), np.uint8)
        """(N,): of each object, as its place in ``STATES``."""
        self._corrected = np.zeros(len(index.score), bool)
        """As ``Fate.is_corrected``."""
        self._accepted = np.zeros(len(index), bool)
        """Images that were accepted as a whole."""
        self._has_any = np.diff(index.first) > 0
        self.open = np.zeros(len(index), np.int64)
        """(M,): of each image, how many objects nobody decided about."""
        # Browsers keep pictures by it, and must not take those of an earlier review.
        self.version = np.full(len(index), time.time_ns() // 10**9, np.int64)
        """(M,): grows when something is decided about the image."""

    def update(self, images: Iterable[int]) -> None:
        """Decides about images anew."""
        for image in images:
            frame = self._index.read(image)
            about = self._decisions.about(frame)
            first = int(self._index.first[image])
            for fate in fates(frame, about):
                if fate.number >= 0:
                    self.state[first + fate.number] = STATES.index(fate.state)
                    self._corrected[first + fate.number] = fate.is_corrected
            self._accepted[image] = any(each.kind == "picture" for each in about)
            self.version[image] += 1

    def update_track(self, decision: Decision) -> None:
        """Decides about a track, which may be long, so that no image is read for it that need not be."""
        objects = self._index.objects_of(decision.source, decision.track)
        images = np.unique(self._index.image[objects])
        if decision.kind == "undo":
            is_named = np.array([self._is_named(decision.source, int(image)) for image in images], bool)
            self.update(images[is_named].tolist())
            others = images[~is_named]
            objects = objects[np.isin(self._index.image[objects], others)]
            self.state[objects], self._corrected[objects] = _GUESSED, False
            for each in self._decisions.about_track(decision.source, decision.track):
                self._follow(each, objects)
            self.version[others] += 1
        else:
            self._follow(decision, objects)
            self.version[images] += 1
        self.recount()

    def _is_named(self, source: str, image: int) -> bool:
        return bool(self._decisions.about_image(source, int(self._index.index[image])))

    def _follow(self, decision: Decision, objects: np.ndarray) -> None:
        """Does to objects of a track what ``fates`` does."""
        was = decision.was or {}
        if was.get("prompt") not in self._index.phrases:
            return
        objects = objects[self._index.phrase[objects] == self._index.phrases.index(was["prompt"])]
        if decision.kind == "reject":
            self.state[objects] = _REJECTED
            return
        least = was.get("thresholds", {}).get(was["prompt"], 0.0)
        is_dropped = (self.state[objects] == _GUESSED) & (self._index.score[objects] < np.float32(least))
        image = self._index.number_of(decision.source, decision.index)
        if image is not None and decision.object is not None:
            is_dropped &= objects != self._index.first[image] + decision.object
        objects = objects[~is_dropped]
        if decision.kind == "rename":
            self._corrected[objects] = True
        self.state[objects] = np.where(self._corrected[objects], _CORRECTED, _ACCEPTED)

    def recount(self, images: Iterable[int] | None = None) -> None:
        """Counts what nobody decided, in some images or in all."""
        if images is None:
            is_open = (self.state == _GUESSED) & ~self.is_below()
            self.open = np.bincount(self._index.image[is_open], minlength=len(self._index))
            return
        for image in images:
            objects = slice(self._index.first[image], self._index.first[image + 1])
            is_open = (self.state[objects] == _GUESSED) & ~self.is_below(objects)
            self.open[image] = np.count_nonzero(is_open)

    def is_below(self, objects: slice = slice(None)) -> np.ndarray:
        """Returns for objects, by default all, whether they go because of their phrase's threshold."""
        least = np.zeros(len(self._index.phrases), np.float32)
        for phrase, threshold in self._decisions.thresholds.items():
            if phrase in self._index.phrases:
                least[self._index.phrases.index(phrase)] = threshold
        return (self.state[objects] == _GUESSED) & (self._index.score[objects] < least[self._index.phrase[objects]])

    def is_decided(self, images: int | list[int] | slice = slice(None)) -> np.ndarray:
        """Returns for images, by default all, whether they have nothing that nobody decided."""
        return self._accepted[images] | (self._has_any[images] & (self.open[images] == 0))
