# SPDX-License-Identifier: Apache-2.0
"""The camera of ``clip-seg bench ros``: it plays images that were rendered beforehand, which takes little time."""

from __future__ import annotations

import itertools
import sys
import threading
import time

from clip_seg_ros.nodes.life.process import run_node
from clip_seg_ros.nodes.sim_camera import SimCameraNode

VIEWS = 20
"""The number of rendered images: more than half a second of a moving camera. Rendering one takes a tenth of a second or
more."""
TURN_PER_VIEW = 1 / 900
"""The part of the circle around the table between two images: twelve degrees a second at 30 images a second."""


class BenchCamera(SimCameraNode):
    """A ``sim_camera`` that swings around the table. It has the same parameters, which are fixed while it runs."""

    def __init__(self) -> None:
        super().__init__()
        recorded = [self.messages_at(index * TURN_PER_VIEW) for index in range(VIEWS)]
        # The images play forwards and backwards, so that two successive ones are never far apart.
        self._recorded = itertools.cycle(recorded + recorded[-2:0:-1])
        # An executor would need as much time after each image as the image itself, on a core that the node needs.
        self._period_s = self.timer.timer_period_ns * 1e-9
        self.destroy_timer(self.timer)
        self._ended = threading.Event()
        self._player = threading.Thread(target=self._play, name="player", daemon=True)
        self._player.start()

    def destroy_node(self) -> None:
        self._ended.set()
        self._player.join()
        super().destroy_node()

    def _play(self) -> None:
        due_s = time.monotonic()
        while not self._ended.wait(max(0.0, due_s - time.monotonic())) and self.context.ok():
            try:
                self._tick()
            except RuntimeError:
                # While rclpy shuts down, publishing fails as expected.
                if self.context.ok():
                    raise
            due_s += self._period_s

    def _tick(self) -> None:
        messages = next(self._recorded)
        messages.stamp(self.get_clock().now().to_msg())
        # The colour image is first, because its latency is measured.
        self._color.publish(messages.color)
        for publisher, message in ((self._info, messages.info), (self._depth, messages.depth)):
            if publisher.get_subscription_count() > 0:
                publisher.publish(message)


def main() -> int:
    """Runs the node as a process."""
    return run_node("bench_camera", BenchCamera, about=__doc__)


if __name__ == "__main__":
    sys.exit(main())
