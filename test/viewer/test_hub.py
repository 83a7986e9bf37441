# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time

import numpy as np
import pytest

from clip_seg_ros.viewer.hub import Hub
from clip_seg_ros.viewer.views import View, Wanted


class Wished:
    """Of a source, only what is wanted of it."""

    def __init__(self) -> None:
        self.wanted: list[Wanted] = []

    def want(self, wanted: Wanted) -> None:
        self.wanted.append(wanted)


@pytest.fixture
def source() -> Wished:
    return Wished()


@pytest.fixture
def hub(source: Wished) -> Hub:
    return Hub(source)


def view(camera: str = "left") -> View:
    return View(camera, 1, time.monotonic(), np.zeros((4, 6, 3), np.uint8))


def told(hub: Hub) -> list[dict]:
    events: list[dict] = []
    hub.join("somebody", lambda view: None, events.append)
    return events


def test_the_source_hears_what_all_want_together_and_only_changes(hub: Hub, source: Wished) -> None:
    hub.want(1, Wanted(frozenset(["left"])))
    hub.want(2, Wanted(frozenset(["left"]), confidence=True))
    hub.want(3, Wanted(frozenset(["left"])))
    hub.want(3, Wanted(frozenset(["right"]), space=True))
    hub.want(2, None)
    hub.leave(3)
    hub.leave(1)
    hub.leave(1)

    left, both = frozenset(["left"]), frozenset(["left", "right"])
    assert source.wanted == [
        Wanted(left), Wanted(left, True), Wanted(both, True, True), Wanted(both, False, True), Wanted(left), Wanted(),
    ]  # fmt: skip


def test_a_picture_that_nobody_looks_at_is_not_kept(hub: Hub) -> None:
    hub.want(1, Wanted(frozenset(["left"])))
    hub.show(view())
    assert hub.newest("left") is not None
    hub.want(1, None)

    assert hub.newest("left") is None
    hub.show(view())  # it was on its way
    assert hub.newest("left") is None


def test_who_comes_later_is_told_what_still_holds(hub: Hub) -> None:
    hub.tell({"event": "parameter", "name": "a", "value": 1})
    hub.tell({"event": "parameter", "name": "b", "value": 2})
    hub.tell({"event": "gone", "message": "nobody"})
    hub.tell({"event": "back", "message": ""})
    hub.tell({"event": "health", "message": "old"})
    hub.tell({"event": "health", "message": "new"})
    hub.tell({"event": "status", "id": 1})
    hub.tell({"event": "status", "id": 2})

    events = told(hub)
    assert [event.get("message") for event in events if event["event"] == "health"] == ["new"]
    assert sorted(event["name"] for event in events if event["event"] == "parameter") == ["a", "b"]
    assert [event["id"] for event in events if event["event"] == "status"] == [1, 2]
    assert {event["event"] for event in events} == {"health", "parameter", "back", "status"}


def test_how_well_all_was_is_not_told_of_what_is_gone(hub: Hub) -> None:
    hub.tell({"event": "health", "level": "ok"})
    hub.tell({"event": "gone", "message": "nobody"})

    assert [event["event"] for event in told(hub)] == ["gone"]


def test_pictures_of_a_source_that_is_gone_are_dropped(hub: Hub) -> None:
    hub.want(1, Wanted(frozenset(["left"])))
    hub.show(view())
    hub.tell({"event": "gone", "message": "nobody"})

    assert hub.newest("left") is None


def test_an_end_is_over_when_pictures_come_again(hub: Hub) -> None:
    hub.want(1, Wanted(frozenset(["left"])))
    hub.tell({"event": "ended", "message": "that was all"})
    assert [event["event"] for event in told(hub)] == ["ended"]
    hub.show(view())

    assert told(hub) == []


def test_whoever_left_is_shown_nothing(hub: Hub) -> None:
    seen: list[object] = []
    hub.want(2, Wanted(frozenset(["left"])))
    hub.join(1, seen.append, seen.append)
    hub.show(view())
    hub.leave(1)
    hub.show(view())
    hub.tell({"event": "health"})

    assert len(seen) == 1
