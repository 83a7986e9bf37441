# SPDX-License-Identifier: Apache-2.0
"""Limits the number of images in a second."""

from __future__ import annotations

from collections.abc import Callable


class RateLimit:
    """Limits the rate of each camera's images. It must be used from one thread only.

    The average rate is met even if the camera's own rate is not a multiple of it, because an image that is a little
    late does not delay the following ones.

    Args:
        max_rate_hz: Returns the largest rate in images per second; 0 for no limit.
    """

    def __init__(self, max_rate_hz: Callable[[], float]) -> None:
        self._max_rate_hz = max_rate_hz
        self._due_s: dict[str, float] = {}

    def lets_pass(self, camera: str, came_s: float) -> bool:
        """Returns whether an image may be processed.

        Args:
            camera: Name of the image's camera.
            came_s: When the image arrived, by ``time.monotonic``.
        """
        rate_hz = self._max_rate_hz()
        if rate_hz <= 0:
            self._due_s.clear()
            return True
        period_s = 1.0 / rate_hz
        # Missed images are not made up for after a pause.
        due_s = max(self._due_s.get(camera, came_s), came_s - period_s)
        if due_s > came_s + period_s:  # it is left from a lower rate, which is no longer in force
            due_s = came_s
        if came_s < due_s:
            return False
        self._due_s[camera] = due_s + period_s
        return True
