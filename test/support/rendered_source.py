# SPDX-License-Identifier: Apache-2.0
"""A source for the viewer without a model: the rendered table, answered from its ground truth."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from clip_seg_ros.commands.parser import CommandError, parse_command
from clip_seg_ros.config import ReferringConfig
from clip_seg_ros.settings import Parameter, parameters
from clip_seg_ros.sim.naming import pair_of
from clip_seg_ros.viewer.source import Event, Listener, Pointed, Refused
from clip_seg_ros.viewer.views import ModelChoice, View, Wanted
from table_view import render_table, table_view


class RenderedSource:
    """Shows the cameras "left" and "right", which see the same table and name its objects without a mistake.

    Args:
        rate_hz: Images a second of each camera that is looked at.
    """

    title = "the rendered table"
    can_pause = True
    is_playing = True

    def __init__(self, rate_hz: float = 20.0) -> None:
        self.truth = render_table()
        self.all = table_view(self.truth, anchors=())
        """The view in which everything is asked for."""
        self.things = {thing.id: thing for thing in self.all.things}
        self.wanted = Wanted()
        self.played: list[str] = []
        self.taught: list[str] = []
        self.prompts: tuple[str, ...] = ()
        self.values: dict[str, Any] = {each.name: each.default for each in _live()}
        self.notes: dict[str, Any] = {}
        """What else is said of each view."""
        self.listener: Listener | None = None
        self._period_s = 1.0 / rate_hz
        self._ids = itertools.count(1)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rendered source")

    def start(self, listener: Listener) -> None:
        self.listener = listener
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def want(self, wanted: Wanted) -> None:
        self.wanted = wanted

    def cameras(self) -> Sequence[str]:
        return ["left", "right"]

    def command(self, text: str) -> None:
        status: Event = {"event": "status", "id": next(self._ids), "command": text, "prompts": [], "found": []}
        try:
            command = parse_command(text)
        except CommandError as error:
            self._tell(status | {"state": "rejected", "message": str(error)})
            return
        self.prompts = tuple(command.prompts)
        self._tell(status | {"state": "accepted", "message": "", "prompts": list(self.prompts)})

    def parameters(self) -> Sequence[tuple[Parameter, Any]]:
        return [(each, self.values[each.name]) for each in _live()]

    def set_parameter(self, name: str, value: Any) -> None:
        try:
            ReferringConfig.from_mapping({name: value})
        except ValueError as error:
            raise Refused(str(error)) from error
        self.values[name] = value
        self._tell({"event": "parameter", "name": name, "value": value})

    def models(self) -> Sequence[ModelChoice]:
        return [ModelChoice("clipseg-pocket", "Apache-2.0", 8, True), ModelChoice("cris-r50", "MIT", 603, False)]

    def point(self, camera: str, spot_px: Sequence[float], teach_as: str = "") -> Pointed:
        x, y = spot_px if len(spot_px) == 2 else np.mean(np.reshape(spot_px, (2, 2)), axis=0)
        number = int(self.truth.labels[round(y), round(x)])
        if number == 0:
            raise Refused("there is only the table here")
        if teach_as:
            self.taught.append(teach_as)
        thing = replace(self.things[number], id=0)
        return Pointed(thing.prompt, thing, "camera", self.truth.labels == number)

    def play(self, how: str) -> None:
        self.played.append(how)

    def _tell(self, event: Event) -> None:
        assert self.listener is not None
        self.listener.tell(event)

    def _run(self) -> None:
        assert self.listener is not None
        while not self._ended.wait(self._period_s):
            for camera in self.wanted.cameras:
                self.listener.show(self._view(camera))

    def _view(self, camera: str) -> View:
        things = [
            replace(thing, prompt=prompt)
            for prompt in self.prompts
            for thing in self.things.values()
            if is_named(prompt, *thing.prompt.split())
        ]
        ids = [thing.id for thing in things]
        is_open = self.wanted.space
        labels = np.where(np.isin(self.all.labels, ids), self.all.labels, 0).astype(np.uint8)
        return replace(
            self.all,
            camera=camera,
            stamp_ns=time.time_ns(),
            arrived_s=time.monotonic(),
            prompts=self.prompts,
            things=tuple(things),
            labels=labels,
            notes={**self.all.notes, **self.notes},
            confidence=(labels > 0).astype(np.float32) if self.wanted.confidence else None,
            cloud=self.all.cloud if is_open else None,
            surroundings=self.all.surroundings if is_open else None,
        )


def is_named(prompt: str, color: str, kind: str) -> bool:
    """Whether a phrase of the rendered world names an object of a colour and kind."""
    pair = pair_of(prompt)
    return pair is not None and pair[0] in (None, color) and pair[1] in (None, kind)


def _live() -> list[Parameter]:
    return [each for each in parameters(ReferringConfig) if each.live]
