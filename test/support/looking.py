# SPDX-License-Identifier: Apache-2.0
"""Somebody who looks at what a source of the viewer shows."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from clip_seg_ros.viewer.views import View

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
