# SPDX-License-Identifier: Apache-2.0
"""Somebody who looks at what a source of the viewer shows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from clip_seg_ros.sources.frames import open_frames
from clip_seg_ros.viewer.library_source import LibrarySource
from clip_seg_ros.viewer.views import View, Wanted

LONGEST_S = 120.0


class Viewer:
    """A listener that keeps everything, and waits for what is to come."""

    def __init__(self) -> None:
        self.views: list[View] = []
        self.events: list[dict[str, Any]] = []
        self._changed = threading.Condition()

    def show(self, view: View) -> None:
        with self._changed:
            self.views.append(view)
            self._changed.notify_all()

    def tell(self, event: dict[str, Any]) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def view(self, fits: Callable[[View], Any] = lambda view: True, since: int = 0) -> View:
        """Returns the first view that fits, among those from number ``since`` on; waits for it."""
        return self._first(lambda: [view for view in self.views[since:] if fits(view)], "a view")

    def event(self, kind: str, since: int = 0, **values: Any) -> dict[str, Any]:
        """Returns the first event of this kind with these values, likewise."""
        wanted = {"event": kind, **values}.items()
        return self._first(
            lambda: [each for each in self.events[since:] if wanted <= _plain(each).items()], f"{wanted}"
        )

    def _first(self, found: Callable[[], list[Any]], what: str) -> Any:
        with self._changed:
            assert self._changed.wait_for(found, LONGEST_S), f"{what} did not come; events: {self.events}"
            return found()[0]


def _plain(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if isinstance(value, (str, int, float, bool))}


LOOKING = Wanted(frozenset({""}))


@contextmanager
def looking(spec, listener, wanted=LOOKING, **options) -> Iterator[LibrarySource]:
    """A source that shows to somebody who looks."""
    options = {"model": "clipseg-pocket", "engine": "eager", **options}
    source = LibrarySource(open_frames(str(spec)), **options)
    source.start(listener)
    source.want(wanted)
    try:
        yield source
    finally:
        source.stop()


def found(view: View, prompt: str) -> list:
    return [thing for thing in view.things if thing.prompt == prompt]


def overlap(view: View, prompt: str, truth: np.ndarray) -> float:
    mask = np.isin(view.labels, [thing.id for thing in found(view, prompt)])
    return float((mask & truth).sum() / (mask | truth).sum())
