# SPDX-License-Identifier: Apache-2.0
"""The observer of ``clip-seg bench ros``: it gives a command and notes when each mask arrives.

It is a process of its own: ``python -m clip_seg_ros.nodes.observers.bench_observer --command TEXT``.
When the time is up, it writes one line of JSON to stdout: ``accepted`` and ``understood``, the node's response to the
command; ``sent_ns``, the stamps of the camera's images; and ``masks_ns``, a pair for each mask: the stamp of its image
and its time of arrival. Both are read from this machine's clock.
"""

from __future__ import annotations

import argparse
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from clip_seg_ros.msg import CommandStatus
from clip_seg_ros.nodes.camera.subscription_thread import SubscriptionThread, own_thread_group
from clip_seg_ros.nodes.common.qos import COMPANION_INPUT, RELIABLE
from clip_seg_ros.nodes.common.rclpy_internals import publisher_count
from clip_seg_ros.nodes.observers.observing import observing

_POLL_S = 0.02


class BenchObserver(Node):
    """Subscribes to masks, statuses and camera_info, which is small enough to always arrive.

    Masks are taken as raw bytes, because the time to deserialize them is not part of the measurement.
    """

    def __init__(self) -> None:
        super().__init__("bench_observer", namespace="clip_seg")
        self.masks_ns: list[tuple[int, int]] = []
        """The stamp and the time of arrival of each mask."""
        self.sent_ns: list[int] = []
        """The stamps of the camera's images."""
        self.statuses: list[CommandStatus] = []
        self._command = self.create_publisher(String, "command", RELIABLE)
        group, lens = own_thread_group(), "/camera/color/camera_info"
        timed = [
            self.create_subscription(Image, "mask", self._on_mask, RELIABLE, callback_group=group, raw=True),
            self.create_subscription(CameraInfo, lens, self._on_lens, COMPANION_INPUT, callback_group=group, raw=True),
        ]
        self._heard = [*timed, self.create_subscription(CommandStatus, "status", self.statuses.append, RELIABLE)]
        self._thread = SubscriptionThread(timed, self.context, self._on_error)

    def destroy_node(self) -> None:
        self._thread.close()
        super().destroy_node()

    def _on_mask(self, data: bytes) -> None:
        arrived_ns = self.get_clock().now().nanoseconds
        self.masks_ns.append((_stamp_ns(data), arrived_ns))

    def _on_lens(self, data: bytes) -> None:
        self.sent_ns.append(_stamp_ns(data))

    def _on_error(self, error: Exception) -> None:
        self.get_logger().error(f"a message cannot be taken: {error}")

    def is_connected(self) -> bool:
        """Returns whether the camera runs, and all topics between camera, node and observer are connected."""
        return (
            len(self.sent_ns) >= 3
            and self.count_subscribers("/camera/color/image_raw") > 0
            and self._command.get_subscription_count() > 0
            and all(publisher_count(self, subscription) > 0 for subscription in self._heard)
        )

    def observe(self, command: str, patience_s: float, warm_up_s: float, seconds: float) -> dict[str, Any]:
        """Gives the command and returns what arrived, in the form that the module describes.

        Args:
            command: The command.
            patience_s: The longest time from the command to the first mask, in seconds.
            warm_up_s: Time after the first mask that is left out, in seconds.
            seconds: How long to observe after that.
        """
        _wait(self.is_connected)
        self._command.publish(String(data=command))
        _wait(lambda: self.statuses)
        status = self.statuses[0]
        result = {"accepted": status.state == CommandStatus.ACCEPTED, "understood": status.message}
        if not result["accepted"] or not _wait(lambda: self.masks_ns, patience_s):
            return result | {"sent_ns": self.sent_ns[:], "masks_ns": []}
        time.sleep(warm_up_s)
        start_ns = self.get_clock().now().nanoseconds
        time.sleep(seconds)
        end_ns = self.get_clock().now().nanoseconds
        return result | {
            "sent_ns": [sent for sent in self.sent_ns[:] if start_ns <= sent <= end_ns],
            "masks_ns": [pair for pair in self.masks_ns[:] if start_ns <= pair[0] and pair[1] <= end_ns],
        }


def _stamp_ns(data: bytes) -> int:
    """Returns the stamp of a serialized message that begins with a header."""
    # The first four bytes describe the encoding; the last bit of the second one is the byte order.
    seconds, nanoseconds = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
    return seconds * 10**9 + nanoseconds


def _wait(happened: Callable[[], Any], patience_s: float = float("inf")) -> bool:
    """Waits until ``happened()`` is true; returns whether it was in time."""
    deadline_s = time.monotonic() + patience_s
    while not happened():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(_POLL_S)
    return True


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench_observer")
    parser.add_argument("--command", required=True)
    parser.add_argument("--patience", type=float, default=15.0, metavar="S")
    parser.add_argument("--warm-up", type=float, default=2.0, metavar="S")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Runs the observer as a process."""
    args = _arguments(argv)
    with observing(BenchObserver) as (observer, reply):
        reply(observer.observe(args.command, args.patience, args.warm_up, args.seconds))
        # The process that started this one ends it, because an exit would look like a crash.
        threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
