# SPDX-License-Identifier: Apache-2.0
"""What people decided about the objects that a run found, and the file in which it is kept.

The file has one line of JSON for each decision and only grows, so that what was decided is never lost and what was
found is never changed: ``fates`` replays decisions over an image as it was found.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from clip_seg_ros.annotation.results import AnnotatedFrame, AnnotatedObject
from clip_seg_ros.data.samples import DataError

Kind = Literal["accept", "reject", "rename", "mask", "add", "picture", "threshold", "undo"]
State = Literal["guessed", "accepted", "corrected", "rejected"]
STATES: tuple[State, ...] = get_args(State)


@dataclass(frozen=True)
class NewMask:
    """A mask that a person chose."""

    counts: str
    """In COCO's compressed run lengths, of an image of the frame's size."""
    box_px: tuple[int, int, int, int]
    """(x_min, y_min, x_max, y_max); the maxima are exclusive."""
    centroid_px: tuple[float, float]
    """(x, y)."""
    area_px: int
    score: float
    """How well the mask fits what the model says, 0..1."""


@dataclass(frozen=True)
class Decision:
    """One thing that somebody decided."""

    kind: Kind
    """accept, reject, rename and mask are about an object, add makes a new one, picture accepts all objects of an image
    that are not decided yet, threshold is about a phrase, and undo takes another decision back."""
    by: str
    """Who decided it."""
    source: str = ""
    index: int = -1
    """The image's number in its source; -1 where no single image is meant."""
    object: int | None = None
    """The object's place among those that were found in the image, from 0; minus the number of the decision that added
    it for another one."""
    track: int = 0
    """The track of which all objects are meant, from 1: that of the object, as it was numbered then; 0: the one object
    alone."""
    name: str = ""
    """The new phrase, of rename and add."""
    threshold: float | None = None
    """Objects with a lower score go; ``None``: none do."""
    mask: NewMask | None = None
    of: int = 0
    """The number of the decision that is taken back."""
    was: dict[str, Any] | None = None
    """What it was before: ``prompt`` and ``score`` of the object as it was found, and its ``state``; or the
    ``threshold``. A decision about an object that is no longer found like this is left out. Where several objects are
    meant, also the ``thresholds`` in force, by phrase: what they drop is not meant."""
    number: int = 0
    """Its number, from 1."""
    time: str = ""
    """When, in UTC."""

    def to_json(self) -> str:
        """Returns it as one line of JSON, without the end of the line and without what is not given."""
        given = {
            each.name: getattr(self, each.name) for each in fields(self) if getattr(self, each.name) != each.default
        }
        if self.mask is not None:
            given["mask"] = asdict(self.mask)
        return json.dumps(given, separators=(",", ":"), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Decision:
        """Reads what ``to_json`` wrote. Raises DataError if it is no such line."""
        try:
            values = json.loads(line)
            mask = values.pop("mask", None)
            decision = cls(**values, mask=None if mask is None else _mask(**mask))
            if decision.kind not in get_args(Kind) or not isinstance(decision.number, int) or decision.number < 1:
                raise ValueError(f"{decision.kind!r} with the number {decision.number!r}")
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(f"this is no decision: {line[:80]!r} ({error})") from error
        return decision


def _mask(counts: str, box_px: Sequence[int], centroid_px: Sequence[float], area_px: int, score: float) -> NewMask:
    x_min, y_min, x_max, y_max = box_px
    x, y = centroid_px
    return NewMask(counts, (x_min, y_min, x_max, y_max), (x, y), area_px, score)


class DecisionFile:
    """Reads and extends the file of decisions; one at a time can.

    Args:
        path: The file, which need not exist yet.

    Raises:
        DataError: Another process has opened it.
        OSError: It cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        # Without a buffer, which would write later what was refused.
        self._file = path.open("ab", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise DataError(f"{path} is in use: another review of this data set runs; open its page instead") from error
        except OSError:
            pass  # a file system without locks
        self.decisions, self.damaged = read_decisions(path)
        data = path.read_bytes()
        # A line that broke off stays as it is, and the next one begins below it.
        self._is_broken = bool(data) and not data.endswith(b"\n")
        self._last = max((each.number for each in self.decisions), default=0)

    def add(self, decision: Decision, time: str) -> Decision:
        """Writes a decision, which is on the disk when this returns; returns it with number and time.

        Raises:
            OSError: It cannot be written; nothing was decided then.
        """
        decision = replace(decision, number=self._last + 1, time=time)
        line = decision.to_json().encode() + b"\n"
        end = self._file.seek(0, os.SEEK_END)
        try:
            self._write(b"\n" + line if self._is_broken else line)
            os.fsync(self._file.fileno())
        except OSError:
            was_broken, self._is_broken = self._is_broken, True
            os.truncate(self._file.fileno(), end)
            self._is_broken = was_broken
            raise
        self._is_broken = False
        self._last = decision.number
        self.decisions.append(decision)
        return decision

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) or 0 :]

    def close(self) -> None:
        """Lets others open it."""
        self._file.close()


def read_decisions(path: Path) -> tuple[list[Decision], int]:
    """Returns all decisions of a file, the oldest first, and the number of damaged lines that were left out.

    Raises:
        OSError: It cannot be read; a file that does not exist has no decisions.
    """
    decisions: list[Decision] = []
    damaged = 0
    if not path.exists():
        return decisions, damaged
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in filter(str.strip, lines):
            try:
                decisions.append(Decision.from_json(line))
            except DataError:
                damaged += 1
    return decisions, damaged


def found_again(decisions: Iterable[Decision], frame_at: Callable[[str, int], AnnotatedFrame | None]) -> list[Decision]:
    """Returns decisions with the tracks that their objects have now, without those whose objects are found no more.

    Tracks are numbered anew when images that were missing come to a run.

    Args:
        decisions: What was decided, the oldest first.
        frame_at: Gives the image of a source and a number as it is found now; ``None`` if there is none.
    """
    found: list[Decision] = []
    for each in decisions:
        if not each.track or each.kind == "undo":
            found.append(each)
            continue
        frame, number, was = frame_at(each.source, each.index), each.object, each.was or {}
        if frame is None or number is None or not 0 <= number < len(frame.objects):
            continue
        named = frame.objects[number]
        if named.track and (named.prompt, named.score) == (was.get("prompt"), was.get("score")):
            found.append(replace(each, track=named.track))
    return found


class Decisions:
    """The decisions in force, found by the images that they are about."""

    def __init__(self, decisions: Iterable[Decision]) -> None:
        self._all: dict[int, Decision] = {}
        self._of_image: dict[tuple[str, int], list[Decision]] = {}
        self._of_track: dict[tuple[str, int], list[Decision]] = {}
        self.thresholds: dict[str, float] = {}
        """By phrase."""
        for each in decisions:
            self.add(each)

    def add(self, decision: Decision) -> None:
        """Puts one more in force; an undo takes one out."""
        if decision.kind == "undo":
            undone = self._all.pop(decision.of, None)
            if undone is not None and undone.kind == "threshold":
                self._settle(undone.name)
            elif undone is not None:
                self._listed(undone).remove(undone)
            return
        self._all[decision.number] = decision
        if decision.kind == "threshold":
            self._settle(decision.name)
        else:
            self._listed(decision).append(decision)

    def get(self, number: int) -> Decision | None:
        """Returns a decision in force; ``None`` if there is none of this number."""
        return self._all.get(number)

    def newest_of(self, by: str) -> Decision | None:
        """Returns somebody's newest decision that is in force."""
        return next((each for each in reversed(self._all.values()) if each.by == by), None)

    def about_image(self, source: str, index: int) -> list[Decision]:
        """Returns the decisions about an image and single objects of it, the oldest first."""
        return list(self._of_image.get((source, index), ()))

    def about_track(self, source: str, track: int) -> list[Decision]:
        """Returns the decisions about a whole track, the oldest first."""
        return list(self._of_track.get((source, track), ()))

    def about(self, frame: AnnotatedFrame) -> list[Decision]:
        """Returns the decisions about the objects of an image, the oldest first."""
        found = self.about_image(frame.source, frame.index)
        for track in {each.track for each in frame.objects if each.track}:
            found += self.about_track(frame.source, track)
        return sorted(found, key=lambda each: each.number)

    def applied(self, frame: AnnotatedFrame) -> AnnotatedFrame:
        """Returns an image with what was decided: rejected objects are gone, and the others say who is their origin."""
        kept = [
            replace(fate.object, decided="guessed" if fate.state == "rejected" else fate.state)
            for fate in fates(frame, self.about(frame))
            if fate.state != "rejected" and not self.is_below(fate)
        ]
        return frame.with_objects(kept)

    def is_below(self, fate: Fate) -> bool:
        """Returns whether an object that nobody decided about goes because of its phrase's threshold."""
        return fate.state == "guessed" and fate.object.score < self.thresholds.get(fate.object.prompt, 0.0)

    def _settle(self, phrase: str) -> None:
        raised = [each.threshold for each in self._all.values() if each.kind == "threshold" and each.name == phrase]
        self.thresholds.pop(phrase, None)
        if raised and raised[-1] is not None:
            self.thresholds[phrase] = raised[-1]

    def _listed(self, decision: Decision) -> list[Decision]:
        if decision.track:
            return self._of_track.setdefault((decision.source, decision.track), [])
        return self._of_image.setdefault((decision.source, decision.index), [])


@dataclass(frozen=True)
class Fate:
    """An object with what was decided about it."""

    number: int
    """As ``Decision.object``."""
    object: AnnotatedObject
    """With its new name and mask."""
    state: State = "guessed"
    is_corrected: bool = False
    """Whether its name or mask is a person's, whatever its state."""


def fates(frame: AnnotatedFrame, decisions: Iterable[Decision]) -> list[Fate]:
    """Returns what became of the objects of an image: those that were found, and then those that people added.

    Args:
        frame: The image as it was found.
        decisions: The decisions about it, the oldest first.
    """
    known = {number: Fate(number, each) for number, each in enumerate(frame.objects)}
    for decision in decisions:
        if decision.kind == "add":
            if decision.mask is not None:
                known[-decision.number] = Fate(-decision.number, _added(decision, decision.mask), "corrected", True)
            continue
        for number, fate in list(known.items()):
            if _means(decision, fate, frame):
                known[number] = _changed(fate, decision)
    return list(known.values())


def _means(decision: Decision, fate: Fate, frame: AnnotatedFrame) -> bool:
    was = decision.was or {}
    if decision.kind == "picture":
        return fate.state == "guessed" and not _is_dropped(fate, was)
    found = frame.objects[fate.number] if fate.number >= 0 else fate.object
    is_one = decision.object == fate.number and decision.index == frame.index
    if decision.track:
        is_of = fate.number >= 0 and found.track == decision.track and found.prompt == was.get("prompt")
        return is_of and (is_one or decision.kind == "reject" or not _is_dropped(fate, was))
    if not is_one:
        return False
    return fate.number < 0 or (found.prompt, found.score) == (was.get("prompt"), was.get("score"))


def _is_dropped(fate: Fate, was: dict[str, Any]) -> bool:
    """Returns whether a threshold had dropped an object when others were decided about."""
    return fate.state == "guessed" and fate.object.score < was.get("thresholds", {}).get(fate.object.prompt, 0.0)


def _changed(fate: Fate, decision: Decision) -> Fate:
    if decision.kind == "reject":
        return replace(fate, state="rejected")
    if decision.kind == "rename":
        return Fate(fate.number, replace(fate.object, prompt=decision.name), "corrected", True)
    if decision.kind == "mask" and decision.mask is not None:
        return Fate(fate.number, _with_mask(fate.object, decision.mask), "corrected", True)
    # What a person corrected stays corrected when it is accepted, too.
    return replace(fate, state="corrected" if fate.is_corrected else "accepted")


def _with_mask(found: AnnotatedObject, mask: NewMask) -> AnnotatedObject:
    # Positions and lengths were those of the other mask.
    return replace(
        found,
        box_px=mask.box_px,
        centroid_px=mask.centroid_px,
        area_px=mask.area_px,
        counts=mask.counts,
        position_m=None,
        size_m=None,
    )


def _added(decision: Decision, mask: NewMask) -> AnnotatedObject:
    return AnnotatedObject(
        prompt=decision.name,
        track=0,
        score=mask.score,
        margin=1.0,
        band="sure",
        box_px=mask.box_px,
        centroid_px=mask.centroid_px,
        area_px=mask.area_px,
        counts=mask.counts,
        decided="corrected",
    )
