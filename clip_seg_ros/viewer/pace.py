# SPDX-License-Identifier: Apache-2.0
"""Finds how many and how large pictures a viewer's link takes, from when each one was on the screen."""

from __future__ import annotations

from collections import OrderedDict

from clip_seg_ros.viewer.pictures import QUALITIES, WIDTHS_PX, Form, Layer, width_for

_UNDER_WAY = 2
"""Pictures that may be on their way to one viewer: while one is drawn, the next one travels."""
_SLOW_S, _FAST_S = 0.25, 0.08
"""Smaller pictures are sent above the first time from sending to drawing, larger ones below the second."""
STALLED_S = 10.0
"""The time in seconds without a picture drawn after which nothing is made for a viewer."""
_WEIGHT = 0.2
_PATIENCE = 20
"""Pictures after a change before the next one, and before larger ones are tried."""


class Pace:
    """What one viewer gets. Times are in seconds of one clock."""

    def __init__(self) -> None:
        self.wanted_px = 640.0
        """The width of the picture on the viewer's screen, in pixels."""
        self.layer: Layer = "overlay"
        self.link_s: float | None = None
        """The usual time from sending a picture to its being drawn; ``None`` before the first one."""
        self._sent: OrderedDict[int, float] = OrderedDict()
        self._step = 0
        """How many times pictures were made smaller."""
        self._since = 0

    def is_ready(self) -> bool:
        """Returns whether another picture may be sent."""
        return len(self._sent) < _UNDER_WAY

    def is_stalled(self, now_s: float) -> bool:
        """Returns whether a picture has been under way for so long that nobody seems to be there."""
        return bool(self._sent) and now_s - next(iter(self._sent.values())) > STALLED_S

    def rest(self) -> None:
        """Forgets what is under way: a page in the background draws nothing, which says nothing of its link."""
        self._sent.clear()

    def sent(self, number: int, now_s: float) -> None:
        """Takes note of a picture on its way."""
        self._sent[number] = now_s

    def drawn(self, number: int, now_s: float) -> None:
        """Takes note that a picture is on the screen, and that those before it are or never will be."""
        begun_s = self._sent.get(number)
        while self._sent and next(iter(self._sent)) <= number:
            self._sent.popitem(last=False)
        if begun_s is None:
            return
        taken_s = now_s - begun_s
        self.link_s = taken_s if self.link_s is None else self.link_s + _WEIGHT * (taken_s - self.link_s)
        self._since += 1
        if self._since >= _PATIENCE:
            self._adapt(self.link_s)

    def _adapt(self, link_s: float) -> None:
        if link_s > _SLOW_S and self._smaller(self._step + 1) != self.form():
            self._step, self._since = self._step + 1, 0
        elif link_s < _FAST_S and self._step > 0:
            self._step, self._since = self._step - 1, 0

    def form(self) -> Form:
        """Returns how pictures are drawn now."""
        return self._smaller(self._step)

    def _smaller(self, steps: int) -> Form:
        # First the quality, then the width.
        place = WIDTHS_PX.index(width_for(self.wanted_px))
        quality = QUALITIES[min(steps, len(QUALITIES) - 1)]
        return Form(self.layer, WIDTHS_PX[max(0, place - max(0, steps - 1))], quality)
