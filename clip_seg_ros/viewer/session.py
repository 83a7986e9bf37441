# SPDX-License-Identifier: Apache-2.0
"""One viewer: a browser at the other end of a WebSocket.

Messages from the browser are objects of JSON; ``"ask"`` says what for:

- ``look``: ``camera`` (``null``: at nothing), ``width_px`` on its screen, ``layer``, ``space`` (whether the view in 3D
  is open) and ``paused``.
- ``step``: one picture while it is paused. ``play``: ``how``, for a source that can pause itself.
- ``drawn``: the ``number`` of a picture that is on the screen.
- ``command`` with ``text``, ``set`` with ``name`` and ``value``, ``point`` with ``camera``, ``spot`` and ``teach_as``,
  ``parameters`` and ``models``: each with a ``request``, the number with which its ``answer`` or refusal comes back.

Messages to it are the events of the source, ``hello`` first, as JSON, and pictures: four bytes with the length of a
header, the header as JSON, and a JPEG.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np
from starlette.websockets import WebSocket

from clip_seg_ros.pipeline.overlay import prompt_colors
from clip_seg_ros.settings import Parameter
from clip_seg_ros.viewer.conversation import Conversation
from clip_seg_ros.viewer.hub import Hub
from clip_seg_ros.viewer.pace import Pace
from clip_seg_ros.viewer.pictures import LAYERS, Pictures
from clip_seg_ros.viewer.source import Event, Pointed
from clip_seg_ros.viewer.views import Thing, View, Wanted

_LONGEST_TEXT = 2000


class Session(Conversation):
    """Serves one viewer until it leaves.

    Args:
        socket: The connection, accepted already.
        hub: What is shown.
        pictures: Draws for all viewers.
        askers: Runs what waits for the source.
        sent: Called with each view that was sent with the overlay, and its JPEG.
    """

    def __init__(
        self,
        socket: WebSocket,
        hub: Hub,
        pictures: Pictures,
        askers: Executor,
        sent: Callable[[View, bytes], None] = lambda *_: None,
    ) -> None:
        super().__init__(socket, askers)
        self._hub, self._pictures, self._on_sent = hub, pictures, sent
        self._pace = Pace()
        self._camera: str | None = None
        self._wish: Wanted | None = None
        self._is_stalled = False
        """Whether nothing is wanted for this viewer, because it draws nothing."""
        self._paused = False
        self._held: View | None = None
        """The view at which it was paused."""
        self._due = False
        """Whether a picture is sent although it is paused."""
        self._shown: View | None = None
        self.on_screen: View | None = None
        """What was sent last."""
        self._arrived: dict[int, float] = {}
        self._screen_s: float | None = None

    async def run(self) -> None:
        """Runs until the viewer leaves or the connection breaks."""
        self._events.append(self._hello())
        self._hub.join(self, self._wake, self.tell)
        try:
            await super().run()
        finally:
            self._hub.leave(self)
            if not self._hub.wanted.cameras:
                self._pictures.forget()

    def _hello(self) -> Event:
        source = self._hub.source
        return {
            "event": "hello",
            "title": source.title,
            "can_pause": source.can_pause,
            "playing": source.is_playing,
            "cameras": list(source.cameras()),
        }

    # What the viewer asks for.

    def _take(self, message: dict[str, Any]) -> None:
        ask = message["ask"]
        if ask == "drawn":
            self._note_drawn(int(message["number"]))
        elif ask == "look":
            self._look(message)
        elif ask == "step":
            self._due, self._held = True, None
            self._shown = self._hub.newest(self._camera or "")
        else:
            super()._take(message)
        self._news.set()

    def _look(self, message: dict[str, Any]) -> None:
        camera, layer = message["camera"], message["layer"]
        if layer not in LAYERS:
            raise ValueError(f"layer must be one of {', '.join(LAYERS)}, got {layer!r}")
        if not (camera is None or isinstance(camera, str)):
            raise TypeError(f"camera must be a name or null, got {camera!r}")
        self._pace.layer, self._pace.wanted_px = layer, float(message["width_px"])
        if camera is None:
            self._pace.rest()
            self._wish = None
        else:
            self._paused = bool(message["paused"])
            # A pause holds its picture, however it is looked at.
            is_same = self._paused and camera == self._camera
            self._held = (self._held or self.on_screen) if is_same else None
            self._camera, self._shown, self._due = camera, None, True
            self._wish = Wanted(frozenset([camera]), layer == "confidence", bool(message["space"]))
        self._is_stalled = False
        self._hub.want(self, self._wish)

    def _note_drawn(self, number: int) -> None:
        now_s = time.monotonic()
        self._pace.drawn(number, now_s)
        if self._is_stalled:
            self._is_stalled = False
            self._hub.want(self, self._wish)
        arrived_s = self._arrived.pop(number, None)
        if arrived_s is not None:
            self._screen_s = now_s - arrived_s

    def _asked(self, ask: str, message: dict[str, Any]) -> Any:
        """Asks the source, which may take a while.

        Raises:
            Refused: The source says why not.
        """
        source = self._hub.source
        if ask == "command":
            return source.command(str(message["text"])[:_LONGEST_TEXT])
        if ask == "set":
            return source.set_parameter(str(message["name"]), message["value"])
        if ask == "point":
            spot = [float(value) for value in message["spot"]]
            return pointed_values(source.point(str(message["camera"]), spot, str(message.get("teach_as", ""))))
        if ask == "parameters":
            return [parameter_values(parameter, value) for parameter, value in source.parameters()]
        if ask == "models":
            return [asdict(model) for model in source.models()]
        if ask == "play":
            return source.play(str(message["how"]))
        return super()._asked(ask, message)

    # What the viewer gets.

    async def _after_events(self) -> None:
        self._watch_stall()
        await self._send_picture()

    def _watch_stall(self) -> None:
        if self._wish is not None and not self._is_stalled and self._pace.is_stalled(time.monotonic()):
            self._is_stalled = True
            self._hub.want(self, None)

    async def _send_picture(self) -> None:
        view = None if self._wish is None else self._held or self._hub.newest(self._camera or "")
        if view is None or view is self._shown or not self._pace.is_ready() or (self._paused and not self._due):
            return
        form = self._pace.form()
        # Before it is drawn, because the viewer may look at something else meanwhile.
        self._shown, self._due = view, False
        jpeg = await asyncio.to_thread(self._pictures.jpeg, view, form)
        number = time.monotonic_ns() // 1000
        self._pace.sent(number, time.monotonic())
        self._arrived[number] = view.arrived_s
        while len(self._arrived) > 4:
            del self._arrived[next(iter(self._arrived))]
        header = json.dumps(self._header(view, number), allow_nan=False).encode()
        await self._socket.send_bytes(len(header).to_bytes(4, "big") + header + jpeg)
        self.on_screen = view
        if form.layer == "overlay":
            self._on_sent(view, jpeg)
        self._news.set()

    def _header(self, view: View, number: int) -> dict[str, Any]:
        colors = prompt_colors([*view.prompts, *(thing.prompt for thing in view.things)])
        things = [thing_values(each) | {"color": list(colors[each.prompt])} for each in view.things if each.id > 0]
        height, width = view.rgb.shape[:2]
        return {
            "number": number,
            "camera": view.camera,
            "stamp_ns": str(view.stamp_ns),
            "size_px": [width, height],
            "prompts": list(view.prompts),
            "things": things,
            "frame": view.frame,
            "notes": dict(view.notes),
            "to_screen_ms": None if self._screen_s is None else round(1e3 * self._screen_s, 1),
        }


def thing_values(thing: Thing) -> dict[str, Any]:
    """Returns a thing as plain values, rounded for people."""
    return {
        "prompt": thing.prompt,
        "id": thing.id,
        "score": round(thing.score, 3),
        "box_px": list(thing.box_px),
        "centroid_px": [round(value, 1) for value in thing.centroid_px],
        "area_px": thing.area_px,
        "position_m": _rounded(thing.position_m),
        "size_m": None if thing.box_m is None else _rounded(thing.box_m.size_m),
    }


def pointed_values(pointed: Pointed) -> dict[str, Any]:
    """Returns a thing at which somebody pointed as plain values, with the outlines of its mask in pixels."""
    outlines: list[Any] = []
    if pointed.labels is not None:
        mask = np.ascontiguousarray(pointed.labels).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_TC89_L1)
        outlines = [contour[:, 0].tolist() for contour in contours]
    return {
        "message": pointed.message,
        "thing": thing_values(pointed.thing),
        "frame": pointed.frame,
        "nearest": pointed.nearest,
        "outlines_px": outlines,
    }


def parameter_values(parameter: Parameter, value: Any) -> dict[str, Any]:
    """Returns a parameter and its value as plain values, for the page to make a control of."""
    return {
        "name": parameter.name,
        "kind": parameter.type.__name__,
        "value": list(value) if isinstance(value, tuple) else value,
        "default": list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default,
        "low": parameter.low,
        "high": parameter.high,
        "choices": _choices(parameter),
        "description": parameter.description,
    }


def _choices(parameter: Parameter) -> list[str]:
    if parameter.type is not str or not parameter.allowed:
        return []
    return parameter.allowed.replace(" or ", ", ").split(", ")


def _rounded(values: tuple[float, ...] | None) -> list[float] | None:
    return None if values is None else [round(float(value), 4) for value in values]
