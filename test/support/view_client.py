# SPDX-License-Identifier: Apache-2.0
"""A viewer without a browser: it speaks to the viewer's server as the page does."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from websockets.sync.client import connect

PATIENCE_S = 120.0


class ViewClient:
    """One viewer at ``address``, the one that the server printed; pages of browsers make up a ``name``."""

    def __init__(self, address: str, name: str = "") -> None:
        parts = urlsplit(address)
        self._socket = connect(f"ws://{parts.netloc}/view?{parts.query}&viewer={name}", max_size=None)
        self._requests = itertools.count(1)
        self.events: list[dict[str, Any]] = []
        self.pictures: list[tuple[dict[str, Any], bytes]] = []

    def __enter__(self) -> ViewClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._socket.close()

    def send(self, **message: Any) -> None:
        self._socket.send(json.dumps(message))

    def look(self, camera: str | None = "", **other: Any) -> None:
        """Looks at a camera, and says of each picture that it was drawn."""
        self.send(
            ask="look",
            **({"camera": camera, "width_px": 640, "layer": "overlay", "space": False, "paused": False} | other),
        )

    def take(self, draws: bool = True, timeout_s: float = PATIENCE_S) -> None:
        """Waits for one message."""
        message = self._socket.recv(timeout=timeout_s)
        if isinstance(message, str):
            self.events.append(json.loads(message))
            return
        length = int.from_bytes(message[:4], "big")
        header = json.loads(message[4 : 4 + length])
        self.pictures.append((header, message[4 + length :]))
        if draws:
            self.send(ask="drawn", number=header["number"])

    def picture(self, fits: Callable[[dict[str, Any]], bool] = lambda header: True) -> tuple[dict[str, Any], bytes]:
        """Waits for a new picture whose header fits."""
        deadline_s, seen = time.monotonic() + PATIENCE_S, len(self.pictures)
        while not any(fits(header) for header, _ in self.pictures[seen:]):
            self.take(timeout_s=deadline_s - time.monotonic())
        return self.pictures[-1]

    def event(self, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Waits for the first event that fits, among those that came before, too."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not (found := [event for event in self.events if fits(event)]):
            self.take(timeout_s=deadline_s - time.monotonic())
        return found[0]

    def ask(self, **message: Any) -> dict[str, Any]:
        """Asks something; returns the event "answer" or "refused"."""
        request = next(self._requests)
        self.send(request=request, **message)
        return self.event(lambda event: event.get("request") == request)
