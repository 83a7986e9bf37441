# SPDX-License-Identifier: Apache-2.0
"""Keeps the newest of what a source shows for everybody who looks, and tells the source what that is."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable

from clip_seg_ros.viewer.source import Event, Source
from clip_seg_ros.viewer.views import View, Wanted

_REMEMBERED = 100
"""The number of statuses that a new viewer is told of."""


class Hub:
    """A listener of one source with any number of viewers. All methods may be called from any thread.

    Args:
        source: What is shown; it is started by ``start``.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._lock = threading.Lock()
        self._views: dict[str, View] = {}
        self._wishes: dict[object, Wanted] = {}
        self._wanted = Wanted()
        self._told: dict[str, Event] = {}
        self._statuses: deque[Event] = deque(maxlen=_REMEMBERED)
        self._viewers: dict[object, tuple[Callable[[View], None], Callable[[Event], None]]] = {}

    def start(self) -> None:
        """Starts the source."""
        self.source.start(self)

    def stop(self) -> None:
        """Stops the source."""
        self.source.stop()

    def show(self, view: View) -> None:
        """Takes the newest image of a camera."""
        with self._lock:
            # One that was on its way when everybody looked away would be old when somebody looks again.
            if view.camera not in self._wanted.cameras:
                return
            self._views[view.camera] = view
            # It goes on, whatever was told before.
            self._told.pop("ended", None)
            viewers = [show for show, _ in self._viewers.values()]
        for show in viewers:
            show(view)

    def tell(self, event: Event) -> None:
        """Takes an event."""
        with self._lock:
            self._remember(event)
            viewers = [tell for _, tell in self._viewers.values()]
        for tell in viewers:
            tell(event)

    def _remember(self, event: Event) -> None:
        kind = event["event"]
        if kind == "status":
            self._statuses.append(event)
        elif kind in ("gone", "back"):
            self._told["gone"] = event
            if kind == "gone":
                # An old picture with a new one's time would be a lie, and so would be how well all was.
                self._views.clear()
                self._told.pop("health", None)
        elif kind == "parameter":
            self._told[f"parameter {event['name']}"] = event
        else:
            self._told[kind] = event

    @property
    def wanted(self) -> Wanted:
        """What all viewers together look at."""
        return self._wanted

    def newest(self, camera: str) -> View | None:
        """Returns the newest image of a camera, or ``None``."""
        with self._lock:
            return self._views.get(camera)

    def join(self, key: object, show: Callable[[View], None], tell: Callable[[Event], None]) -> None:
        """Adds somebody who is shown and told everything from now on, after what was told before and still holds.

        Args:
            key: Whoever it is, for ``want`` and ``leave``.
            show: Called with each image that somebody wants, from any thread; it must not wait.
            tell: Called with each event, likewise, and not call this hub.
        """
        with self._lock:
            # Under the lock, so that nothing newer is told before.
            for event in (*self._told.values(), *self._statuses):
                tell(event)
            self._viewers[key] = (show, tell)

    def leave(self, key: object) -> None:
        """Removes somebody."""
        with self._lock:
            self._viewers.pop(key, None)
        self.want(key, None)

    def want(self, key: object, wanted: Wanted | None) -> None:
        """Says what one viewer looks at; ``None``: nothing any more."""
        with self._lock:
            if wanted is None:
                self._wishes.pop(key, None)
            else:
                self._wishes[key] = wanted
            total = _together(self._wishes.values())
            if total == self._wanted:
                return
            self._wanted = total
            for camera in set(self._views) - total.cameras:
                # It would be old when somebody looks again.
                del self._views[camera]
            # Under the lock, because the source must hear the last wish last.
            self.source.want(total)


def _together(wishes: Iterable[Wanted]) -> Wanted:
    wishes = list(wishes)
    return Wanted(
        frozenset().union(*(wish.cameras for wish in wishes)),
        any(wish.confidence for wish in wishes),
        any(wish.space for wish in wishes),
    )
