# SPDX-License-Identifier: Apache-2.0
"""Lets a limited number of images a second through."""

from __future__ import annotations

from collections.abc import Callable


class RateLimit:
    """Keeps the images of each camera to a rate. To be used from one thread.

    On the average the rate is met also where the camera's own is no multiple of it: what comes a little late does not
    put off what follows.

    Args:
        max_rate_hz: Returns the rate in images a second; 0 for no limit.
    """

    def __init__(self, max_rate_hz: Callable[[], float]) -> None:
        self._max_rate_hz = max_rate_hz
        self._due_s: dict[str, float] = {}

    def lets_pass(self, camera: str, came_s: float) -> bool:
        """Whether an image may be answered.

        Args:
            camera: Name of its camera.
            came_s: When it came, by ``time.monotonic``.
        """
        rate_hz = self._max_rate_hz()
        if rate_hz <= 0:
            self._due_s.clear()
            return True
        period_s = 1.0 / rate_hz
        # After a pause nothing is made up for.
        due_s = max(self._due_s.get(camera, came_s), came_s - period_s)
        if due_s > came_s + period_s:  # that of a lower rate, which is no longer in force
            due_s = came_s
        if came_s < due_s:
            return False
        self._due_s[camera] = due_s + period_s
        return True
