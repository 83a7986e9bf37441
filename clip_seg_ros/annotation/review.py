# SPDX-License-Identifier: Apache-2.0
"""The review of what a run found: the doubtful images first, what people decide about them, and the data set with it.

What was found is never changed. What is decided is appended to a file beside it (``decisions``), and both together give
the images with what was decided (``Review.frames``, ``with_decisions``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from clip_seg_ros.annotation.decisions import (
    STATES,
    Decision,
    DecisionFile,
    Decisions,
    Fate,
    NewMask,
    fates,
    found_again,
    read_decisions,
)
from clip_seg_ros.annotation.doubt import REASONS, DoubtIndex, image_words, object_words
from clip_seg_ros.annotation.layout import DECISIONS
from clip_seg_ros.annotation.results import AnnotatedFrame
from clip_seg_ros.annotation.review_states import ReviewStates
from clip_seg_ros.data.coco_masks import compressed_runs
from clip_seg_ros.types import ObjectRegion

_GUESSED = STATES.index("guessed")
_LONGEST_NAME = 500


class ReviewError(ValueError):
    """What cannot be decided, and why, for people."""


@dataclass(frozen=True)
class Wish:
    """Which images somebody wants to see."""

    phrase: str = ""
    """Only those with an object that was found for it."""
    source: str = ""
    reason: str = ""
    """Only those with such a doubt: a key of ``REASONS``."""
    undecided: bool = False
    """Only those with something that nobody decided yet."""


@dataclass(frozen=True)
class Shown:
    """An image with all that is known of it."""

    number: int
    frame: AnnotatedFrame
    """As it was found."""
    fates: tuple[Fate, ...]
    doubts: tuple[tuple[float, tuple[str, ...]], ...]
    """For each object that was found, how doubtful it is, 0..1, and why."""
    words: tuple[str, ...]
    """Why the image as a whole is doubtful."""
    is_decided: bool


@dataclass(frozen=True)
class Progress:
    """How far the review is."""

    images: int
    decided_images: int
    objects: int
    decided_objects: int


def with_decisions(out: Path, frames: Callable[[], Iterator[AnnotatedFrame]]) -> Callable[[], Iterator[AnnotatedFrame]]:
    """Returns the images of a run with what people decided about them, in the same order; all of it if nobody did.

    Args:
        out: The folder of the run.
        frames: Yields the images as they were found, again at each call.

    Raises:
        OSError: The decisions cannot be read.
    """
    decided, _ = read_decisions(out / DECISIONS)
    named = {(each.source, each.index) for each in decided if each.track}
    tracked = {key: each for each in (frames() if named else ()) if (key := (each.source, each.index)) in named}
    decisions = Decisions(found_again(decided, lambda source, index: tracked.get((source, index))))
    return lambda: map(decisions.applied, frames())


def damage_words(out: Path) -> str:
    """Returns how many decisions of a run are damaged and left out, for people; empty if none is.

    Raises:
        OSError: They cannot be read.
    """
    _, damaged = read_decisions(out / DECISIONS)
    lines = f"{damaged} damaged lines" if damaged > 1 else "a damaged line"
    return f"{out / DECISIONS} has {lines}: what was decided there is left out" if damaged else ""


def mask_of(region: ObjectRegion) -> NewMask:
    """Returns a region that somebody pointed at as what is kept of it."""
    x, y = region.centroid_px
    centroid = (round(float(x), 2), round(float(y), 2))
    return NewMask(compressed_runs(region.mask), region.box_px, centroid, int(region.area_px), round(region.score, 4))


class Review:
    """A review of one run; any thread may use it.

    Args:
        out: The folder of the run.

    Raises:
        DataError: There are no results, they are damaged, or another review runs.
        OSError: The decisions cannot be read or written.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.index = DoubtIndex(out)
        self._file = DecisionFile(out / DECISIONS)
        self.damaged = self._file.damaged
        """The number of damaged lines among the decisions, which are left out."""
        self._lock = threading.RLock()
        decided = found_again(self._file.decisions, self._found)
        self._decisions = Decisions(decided)
        self._states = ReviewStates(self.index, self._decisions)
        self._states.update(self._touched(decided))
        self._states.recount()

    def close(self) -> None:
        """Lets others review the run."""
        self._file.close()

    # What there is to see.

    def images(self, wish: Wish, first: int, count: int) -> tuple[list[int], int]:
        """Returns the numbers of ``count`` images from the ``first`` one on, the most doubtful first, and how many
        images there are in all that are wished for."""
        with self._lock:
            chosen = self.index.order[self._is_wished(wish)[self.index.order]]
        return chosen[first : first + count].tolist(), len(chosen)

    def before(self, wish: Wish, image: int) -> int:
        """Returns how many images that are wished for are more doubtful than an image, which may be none of them.

        Raises:
            ReviewError: There is no such image.
        """
        self.require(image)
        order = self.index.order
        with self._lock:
            earlier = order[: int(np.argmax(order == image))]
            return int(np.count_nonzero(self._is_wished(wish)[earlier]))

    def shown(self, image: int) -> Shown:
        """Returns an image.

        Raises:
            ReviewError: There is no such image.
            DataError: It cannot be read any more.
        """
        self.require(image)
        frame = self.index.read(image)
        first = int(self.index.first[image])
        doubts = tuple(
            (round(float(self.index.doubt[number]), 3), tuple(object_words(self.index, number)))
            for number in range(first, first + len(frame.objects))
        )
        with self._lock:
            found = tuple(
                replace(fate, state="rejected") if self._decisions.is_below(fate) else fate
                for fate in fates(frame, self._decisions.about(frame))
            )
            is_decided = bool(self._states.is_decided(image))
        return Shown(image, frame, found, doubts, tuple(image_words(self.index, image)), is_decided)

    def require(self, image: int) -> None:
        """Raises ReviewError if there is no such image."""
        if not 0 <= image < len(self.index):
            raise ReviewError(f"there is no image {image}; there are {len(self.index)}")

    def decided(self, images: Sequence[int]) -> list[bool]:
        """Returns for each of these images whether it has nothing that nobody decided."""
        with self._lock:
            return self._states.is_decided(list(images)).tolist() if images else []

    def version(self, image: int) -> int:
        """Returns a number that grows when something is decided about an image, or about the thresholds."""
        return int(self._states.version[image])

    def progress(self) -> Progress:
        """Returns how far the review is."""
        with self._lock:
            open_objects = int(self._states.open.sum())
            images = int(np.count_nonzero(self._states.is_decided()))
        return Progress(len(self.index), images, len(self._states.state), len(self._states.state) - open_objects)

    @property
    def thresholds(self) -> dict[str, float]:
        """The thresholds that people raised, by phrase."""
        with self._lock:
            return dict(self._decisions.thresholds)

    def would_go(self, phrase: str, threshold: float) -> int:
        """Returns how many objects of a phrase, of those that nobody decided about, are below a threshold."""
        if phrase not in self.index.phrases:
            return 0
        is_of = self.index.phrase == self.index.phrases.index(phrase)
        with self._lock:
            return int(
                np.count_nonzero(is_of & (self._states.state == _GUESSED) & (self.index.score < np.float32(threshold)))
            )

    def frames(self) -> Iterator[AnnotatedFrame]:
        """Yields all images with what was decided, in the order of sources and times."""
        return map(self._decisions.applied, self.index.frames())

    # What is decided.

    def decide(self, decision: Decision) -> Decision:
        """Decides something; returns it with its number, its time and what it was before.

        Args:
            decision: What is decided, without these.

        Raises:
            ReviewError: It is about nothing that is there.
            OSError: It cannot be written; nothing is decided then.
        """
        with self._lock:
            return self._put(self._checked(decision))

    def undo(self, by: str) -> Decision:
        """Takes somebody's newest decision back; returns the decision that was taken back.

        Raises:
            ReviewError: There is none.
        """
        with self._lock:
            newest = self._decisions.newest_of(by)
            if newest is None:
                raise ReviewError("there is nothing to take back: you have decided nothing yet")
            self._put(
                Decision("undo", by, source=newest.source, index=newest.index, track=newest.track, of=newest.number)
            )
            return newest

    def touched(self, decision: Decision) -> list[int]:
        """Returns the images that a decision is about; all of them are meant if it is about a threshold."""
        return [] if decision.kind == "threshold" else sorted(self._touched([decision]))

    def _put(self, decision: Decision) -> Decision:
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        undone = self._decisions.get(decision.of)
        decision = self._file.add(decision, now)
        self._decisions.add(decision)
        if "threshold" in (decision.kind, undone.kind if undone is not None else ""):
            self._states.version += 1
            self._states.recount()
        elif decision.track:
            self._states.update_track(decision)
        else:
            images = self._touched([decision])
            self._states.update(images)
            self._states.recount(images)
        return decision

    def _checked(self, decision: Decision) -> Decision:
        """Returns a decision with what it was before. Raises ReviewError."""
        if decision.kind == "threshold":
            return self._checked_threshold(decision)
        image = self.index.number_of(decision.source, decision.index)
        if image is None:
            raise ReviewError(f"there is no image {decision.index} of {decision.source!r}")
        if decision.kind in ("rename", "add") and not 0 < len(decision.name.strip()) <= _LONGEST_NAME:
            raise ReviewError(f"a name has 1 to {_LONGEST_NAME} letters")
        if decision.kind in ("mask", "add") and decision.mask is None:
            raise ReviewError("a mask is missing: point at the thing")
        decision = replace(decision, name=decision.name.strip())
        thresholds = {"thresholds": self.thresholds} if self._decisions.thresholds else {}
        if decision.kind in ("picture", "add"):
            return replace(decision, object=None, track=0, was=(decision.kind == "picture" and thresholds) or None)
        frame = self.index.read(image)
        known = {each.number: each for each in fates(frame, self._decisions.about(frame))}
        fate = known.get(decision.object) if decision.object is not None else None
        if fate is None:
            raise ReviewError("this image has no such object (any more)")
        found = frame.objects[fate.number] if fate.number >= 0 else fate.object
        if decision.track and (decision.track != found.track or decision.kind == "mask"):
            raise ReviewError("this object has no track" if decision.kind != "mask" else "a mask is of one image")
        was: dict[str, Any] = {"prompt": found.prompt, "score": found.score, "state": fate.state}
        return replace(decision, was={**was, **(thresholds if decision.track else {})})

    def _checked_threshold(self, decision: Decision) -> Decision:
        if decision.name not in self.index.phrases:
            raise ReviewError(f"there is no phrase {decision.name!r} in this run")
        if decision.threshold is not None and not 0 <= decision.threshold <= 1:
            raise ReviewError(f"a threshold is from 0 to 1, not {decision.threshold}")
        was = {"threshold": self._decisions.thresholds.get(decision.name)}
        return Decision("threshold", decision.by, name=decision.name, threshold=decision.threshold, was=was)

    # The columns.

    def _found(self, source: str, index: int) -> AnnotatedFrame | None:
        image = self.index.number_of(source, index)
        return None if image is None else self.index.read(image)

    def _touched(self, decisions: Iterable[Decision]) -> set[int]:
        found: set[int] = set()
        for source, track in {(each.source, each.track) for each in decisions if each.track}:
            found.update(self.index.images_of(source, track).tolist())
        named = (self.index.number_of(each.source, each.index) for each in decisions if not each.track)
        return found | {number for number in named if number is not None}

    def _is_wished(self, wish: Wish) -> np.ndarray:
        index = self.index
        wished = np.ones(len(index), bool)
        if wish.source:
            wished &= index.source == (index.sources.index(wish.source) if wish.source in index.sources else -1)
        if wish.phrase:
            number = index.phrases.index(wish.phrase) if wish.phrase in index.phrases else -1
            wished &= self._with_object(index.phrase == number)
        if wish.reason:
            bits = REASONS.get(wish.reason, 0)
            wished &= self._with_object(index.reasons & bits != 0) | (index.image_reasons & bits != 0)
        if wish.undecided:
            wished &= ~self._states.is_decided()
        return wished

    def _with_object(self, chosen: np.ndarray) -> np.ndarray:
        found = np.zeros(len(self.index), bool)
        found[self.index.image[chosen]] = True
        return found


def decision_words(decision: Decision) -> str:
    """Returns what was decided, for people."""
    thing: Any = (decision.was or {}).get("prompt", "an added object")
    where = "in all images of its track" if decision.track else f"in image {decision.index}"
    return {
        "accept": f"accepted the {thing} {where}",
        "reject": f"rejected the {thing} {where}",
        "rename": f"renamed the {thing} to {decision.name} {where}",
        "mask": f"gave the {thing} another mask {where}",
        "add": f"added a {decision.name} {where}",
        "picture": f"accepted image {decision.index} as it is",
        "threshold": f"set the threshold of {decision.name} to {decision.threshold}",
        "undo": f"took decision {decision.of} back",
    }[decision.kind]
