# SPDX-License-Identifier: Apache-2.0
"""Reports when a node waits for simulated time that does not advance."""

from __future__ import annotations

from rclpy.node import Node

from clip_seg_ros.nodes.camera.camera_input import SILENCE_S
from clip_seg_ros.nodes.common.faults import FaultLog

_SOURCE = "clock"


class ClockWatch:
    """Compares the node's clock with a monotonic clock.

    Args:
        node: Node of the clock.
        faults: Log of the clock's faults.
    """

    def __init__(self, node: Node, faults: FaultLog) -> None:
        self._node, self._faults = node, faults
        self._seen_ns = -1
        self._since_s = 0.0

    def look(self, now_s: float) -> None:
        """Checks the node's clock; ``now_s`` is ``time.monotonic()``."""
        clock = self._node.get_clock()
        now_ns = clock.now().nanoseconds
        if now_ns != self._seen_ns or not clock.ros_time_is_active:
            self._seen_ns, self._since_s = now_ns, now_s
            self._faults.clear(_SOURCE)
        elif now_s - self._since_s >= SILENCE_S:
            publishers = self._node.count_publishers("/clock")
            note = (
                f"use_sim_time is set, and /clock has stood still for {SILENCE_S:g} s; it has {publishers} publishers. "
                "Start the simulation, play the bag with --clock, or set use_sim_time to false"
            )
            self._faults.report(_SOURCE, f"{publishers} publishers", note)
