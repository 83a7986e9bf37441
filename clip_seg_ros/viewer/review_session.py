# SPDX-License-Identifier: Apache-2.0
"""One reviewer: a browser at the other end of a WebSocket (``conversation``).

The page asks for ``images`` (a page of the list: from the ``first`` one on, or from, after or before an image, which
are ``at``, ``after`` and ``before``), ``listed`` (some of them anew), ``image``, ``would_go`` (objects below a
threshold), ``decide``, ``mask`` (points at a better one) and ``undo``. It hears ``hello`` first, and ``decided`` of
everybody's decisions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import asdict, replace
from typing import Any, get_args

import numpy as np
from starlette.websockets import WebSocket

from clip_seg_ros.annotation.decisions import Decision, Fate, Kind
from clip_seg_ros.annotation.doubt import REASONS
from clip_seg_ros.annotation.review import Review, ReviewError, Shown, Wish, decision_words, mask_of
from clip_seg_ros.data.samples import DataError
from clip_seg_ros.pipeline.overlay import prompt_colors
from clip_seg_ros.viewer.conversation import Conversation
from clip_seg_ros.viewer.review_pictures import ReviewPictures, object_values, picture_of
from clip_seg_ros.viewer.review_pointing import How, MaskMaker, joined
from clip_seg_ros.viewer.source import Event, Refused

IMAGES_AT_ONCE = 50
"""The images of a page of the list."""
_MOST_TOUCHED = 500
"""If a decision is about more images than this, pages are told that it is about all."""
_BY_PAGE = ("accept", "reject", "rename", "picture", "threshold")
_LONGEST_BY = 80


class ReviewSession(Conversation):
    """Serves one reviewer until it leaves.

    Args:
        socket: The connection, accepted already.
        askers: Runs what answers.
        pointers: Runs what finds better masks, for which the other questions do not wait.
        review: What is reviewed.
        pictures: Draws for all reviewers.
        masks: Finds better masks.
        tell_all: Tells all reviewers of an event.
    """

    def __init__(
        self,
        socket: WebSocket,
        askers: Executor,
        pointers: Executor,
        review: Review,
        pictures: ReviewPictures,
        masks: MaskMaker,
        tell_all: Callable[[Event], None],
    ) -> None:
        super().__init__(socket, askers)
        self._pointers = pointers
        self._review, self._pictures, self._masks, self._tell_all = review, pictures, masks, tell_all

    async def run(self) -> None:
        self.tell(await self._loop.run_in_executor(self._askers, self._hello))
        await super().run()

    def _runner(self, ask: str) -> Executor:
        return self._pointers if ask == "mask" else super()._runner(ask)

    def _asked(self, ask: str, message: dict[str, Any]) -> Any:
        answers: dict[str, Callable[[dict[str, Any]], Any]] = {
            "images": self._images,
            "listed": lambda message: self._again([int(each) for each in message["images"]]),
            "image": lambda message: self._image(int(message["image"])),
            "would_go": lambda message: self._review.would_go(str(message["phrase"]), _share(message["threshold"])),
            "decide": self._decide,
            "mask": self._mask,
            "undo": self._undo,
        }
        if ask not in answers:
            return super()._asked(ask, message)
        try:
            return answers[ask](message)
        except (ReviewError, DataError) as error:
            raise Refused(str(error)) from error
        except OSError as error:
            raise Refused(f"nothing was decided, because it cannot be written: {error}") from error

    def _hello(self) -> Event:
        index, colors = self._review.index, prompt_colors(self._pictures.prompts)
        counts = np.bincount(index.phrase, minlength=len(index.phrases)).tolist()
        return {
            "event": "hello",
            "title": f"Review of {self._review.out.resolve().name}",
            "sources": index.sources,
            "phrases": [
                {"name": name, "count": count, "color": list(colors[name])}
                for name, count in zip(index.phrases, counts, strict=True)
            ],
            "reasons": list(REASONS),
            "damaged": self._review.damaged,
            **self._standing(),
        }

    def _standing(self) -> dict[str, Any]:
        return {"progress": asdict(self._review.progress()), "thresholds": self._review.thresholds}

    # What there is to see.

    def _images(self, message: dict[str, Any]) -> dict[str, Any]:
        wish = Wish(
            str(message.get("phrase", "")),
            str(message.get("source", "")),
            str(message.get("reason", "")),
            bool(message.get("undecided", False)),
        )
        first, at_most = max(0, int(message.get("first", 0))), IMAGES_AT_ONCE
        if (at := message.get("at")) is not None:
            first = self._review.before(wish, int(at))
        elif (after := message.get("after")) is not None:
            # It may be none of them any more, where only undecided ones are wished for.
            first = self._review.before(wish, int(after))
            first += self._review.images(wish, first, 1)[0] == [int(after)]
        elif (before := message.get("before")) is not None:
            end = self._review.before(wish, int(before))
            first = max(0, end - IMAGES_AT_ONCE)
            at_most = end - first
        numbers, count = self._review.images(wish, first, at_most)
        return {"images": self._listed(numbers), "first": first, "count": count}

    def _listed(self, numbers: list[int]) -> list[dict[str, Any]]:
        index, decided = self._review.index, self._review.decided(numbers)
        return [
            {
                "image": number,
                "version": self._review.version(number),
                "decided": is_decided,
                "doubt": round(float(index.image_doubt[number]), 3),
                "name": f"{index.sources[index.source[number]]} {index.index[number]}",
            }
            for number, is_decided in zip(numbers, decided, strict=True)
        ]

    def _again(self, numbers: list[int]) -> list[dict[str, Any]]:
        for number in numbers[:IMAGES_AT_ONCE]:
            self._review.require(number)
        return self._listed(numbers[:IMAGES_AT_ONCE])

    def _image(self, number: int) -> dict[str, Any]:
        shown = self._review.shown(number)
        frame, (height, width) = shown.frame, shown.frame.size
        return {
            "image": number,
            "version": self._review.version(number),
            "decided": shown.is_decided,
            "source": frame.source,
            "index": frame.index,
            "name": frame.name,
            "size_px": [width, height],
            "words": list(shown.words),
            "objects": object_values(shown, self._pictures.prompts),
        }

    # What is decided.

    def _decide(self, message: dict[str, Any]) -> dict[str, Any]:
        kind = message["kind"]
        if kind not in _BY_PAGE:
            raise Refused(f"the page decided {kind!r}, which this server does not know: load the page again")
        by, name = _by(message), str(message.get("name", ""))
        if kind == "threshold":
            threshold = message["threshold"]
            decision = Decision(kind, by, name=name, threshold=None if threshold is None else _share(threshold))
            return self._told(self._review.decide(decision))
        shown = self._review.shown(int(message["image"]))
        number = None if kind == "picture" else int(message["object"])
        track = 0
        if message.get("whole_track") and number is not None:
            track = _fate(shown, number).object.track
        return self._told(self._review.decide(replace(_about(shown, kind, by), object=number, track=track, name=name)))

    def _mask(self, message: dict[str, Any]) -> dict[str, Any]:
        how, spot = message["how"], [float(value) for value in message["spot"]]
        if how not in get_args(How):
            raise Refused(f"a mask is made by {', '.join(get_args(How))}, not by {how!r}")
        shown = self._review.shown(int(message["image"]))
        number = message.get("object")
        fate = None if number is None else _fate(shown, int(number))
        rgb = picture_of(self._review.out, shown.frame)
        region = self._masks.region(shown.number, rgb, spot)
        mask = mask_of(joined(region, None if fate is None else fate.object.mask(shown.frame.size), how))
        decision = replace(_about(shown, "add" if fate is None else "mask", _by(message)), mask=mask)
        if fate is None:
            decision = replace(decision, name=str(message.get("name", "")))
        else:
            decision = replace(decision, object=fate.number)
        return self._told(self._review.decide(decision))

    def _undo(self, message: dict[str, Any]) -> dict[str, Any]:
        undone = self._review.undo(_by(message))
        return self._told(undone, f"took back: {decision_words(undone)}")

    def _told(self, decision: Decision, words: str = "") -> dict[str, Any]:
        """Tells everybody of a decision; returns what is told."""
        touched = self._review.touched(decision)
        everything = decision.kind == "threshold" or len(touched) > _MOST_TOUCHED
        event = {
            "event": "decided",
            "number": decision.number,
            "by": decision.by,
            "words": words or decision_words(decision),
            "images": None if everything else self._listed(touched),
            **self._standing(),
        }
        self._tell_all(event)
        return event


def _about(shown: Shown, kind: Kind, by: str) -> Decision:
    return Decision(kind, by, source=shown.frame.source, index=shown.frame.index)


def _fate(shown: Shown, number: int) -> Fate:
    found = next((fate for fate in shown.fates if fate.number == number), None)
    if found is None:
        raise Refused("this image has no such object (any more)")
    return found


def _by(message: dict[str, Any]) -> str:
    by = str(message["by"]).strip()[:_LONGEST_BY]
    if not by:
        raise Refused("say who you are")
    return by


def _share(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is no threshold")
    return number
