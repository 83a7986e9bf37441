# SPDX-License-Identifier: Apache-2.0
"""Fills tf2's buffer on a thread of its own, so that a robot with many transforms does not slow the node down."""

from __future__ import annotations

import threading
import time
from collections import deque

import tf2_ros
from geometry_msgs.msg import TransformStamped
from rclpy.clock import JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time
from tf2_msgs.msg import TFMessage

from clip_seg_ros.nodes.camera.subscription_thread import SubscriptionThread, own_thread_group
from clip_seg_ros.nodes.camera.transform_bytes import Entry, Layout, Layouts, bare, transforms_of
from clip_seg_ros.nodes.common.faults import FaultLog
from clip_seg_ros.nodes.common.qos import TRANSFORMS, TRANSFORMS_LATCHED

_PAUSE_S = 0.01
"""Pause between two checks for transforms, which are then taken together, because waking up costs more than taking."""
_KEPT_NS = 10_000_000_000
"""Time for which tf2 keeps transforms, in nanoseconds."""
_HISTORY_BYTES = 16 * 2**20
"""The largest size of the messages that are kept for this time, for frames that are needed later."""
_MOST_FRAMES = 64
"""The largest number of wanted frames. With endless new names all are forgotten, and learnt again at the next image."""
_AUTHORITY = "clip_seg_ros"


class TransformFeed:
    """Subscribes to /tf and /tf_static, remapped or not, and fills a buffer.

    From /tf, the buffer gets only the transforms between the frames of ``want`` and the roots of their trees, and every
    other transform once, so that tf2 knows the frames. The messages of the last seconds are kept as bytes. If a frame
    is wanted later, or is linked to a wanted frame later, the buffer also gets its earlier transforms, and then works
    as if it had received everything.

    If time jumps back, for example when a bag starts again, the moving transforms are forgotten, because tf2 would
    refuse all transforms until the time before the jump is reached again. A jump is detected in the node's clock if it
    is simulated, and otherwise in the stamps of a transform.

    Args:
        node: Node of the subscriptions.
        buffer: Buffer to fill.
        faults: Log of messages that cannot be read.
    """

    def __init__(self, node: Node, buffer: tf2_ros.Buffer, faults: FaultLog) -> None:
        self._node, self._buffer, self._faults = node, buffer, faults
        self._lock = threading.Lock()
        """Guards all of the following fields."""
        self._newest_ns: dict[str, int] = {}
        """Stamp of the newest transform of each frame that moves."""
        self._parents: dict[str, set[str]] = {}
        """All parents that a frame ever had, because lookups may be for times before a change of the tree."""
        self._frames: set[str] = set()
        self._way: set[str] = set()
        """The wanted frames and all their ancestors."""
        self._way_version = 0
        self._layouts = Layouts()
        self._history: deque[tuple[float, bytes, Layout, bool]] = deque()
        """For each message: its time of arrival, its bytes, its layout, and whether the buffer has all of it."""
        self._history_bytes = 0
        group = own_thread_group()
        self._subscriptions = [
            node.create_subscription(TFMessage, "/tf", self._on_moving, TRANSFORMS, callback_group=group, raw=True),
            node.create_subscription(
                TFMessage, "/tf_static", self._on_static, TRANSFORMS_LATCHED, callback_group=group
            ),
        ]
        self._thread = SubscriptionThread(self._subscriptions, node.context, self._on_error, _PAUSE_S)
        threshold = JumpThreshold(min_forward=None, min_backward=Duration(seconds=-1), on_clock_change=True)
        self._jumps = node.get_clock().create_jump_callback(threshold, post_callback=self._on_jump)

    def close(self) -> None:
        """Ends the subscriptions."""
        self._jumps.unregister()
        self._thread.close()
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def want(self, *frames: str) -> None:
        """Makes the buffer hold all transforms that lookups of these frames need; call it before each lookup."""
        if self._frames.issuperset(frames):
            return
        with self._lock:
            if len(self._frames) >= _MOST_FRAMES:
                self._frames.clear()
            self._frames.update(frames)
            self._find_way()

    def _on_moving(self, raw: bytes) -> None:
        with self._lock:
            try:
                layout, new = self._layouts.of(raw)
            except ValueError:
                # The message has another encoding, or it is broken, which the middleware then reports.
                for transform in transforms_of(raw):
                    self._heed(transform.child_frame_id, Time.from_msg(transform.header.stamp).nanoseconds)
                    self._buffer.set_transform(transform, _AUTHORITY)
                return
            if not layout.entries:
                return
            if new and self._learn([(entry.child, entry.parent) for entry in layout.entries]):
                self._find_way()
            first = layout.entries[0]
            self._heed(first.child, first.stamp_ns(raw))
            for entry in layout.entries if new else self._wanted(layout):
                self._heed(entry.child, entry.stamp_ns(raw))
                self._buffer.set_transform(entry.read(raw), _AUTHORITY)
            self._keep(raw, layout, new)

    def _on_static(self, message: TFMessage) -> None:
        with self._lock:
            for transform in message.transforms:
                self._buffer.set_transform_static(transform, _AUTHORITY)
            if self._learn([_names(transform) for transform in message.transforms]):
                self._find_way()

    def _heed(self, frame: str, stamp_ns: int) -> None:
        """Notes the stamp of a transform; begins anew if time has jumped back."""
        newest_ns = self._newest_ns.get(frame, stamp_ns)
        if stamp_ns < newest_ns - _KEPT_NS:
            self._begin_anew()
            newest_ns = stamp_ns
        self._newest_ns[frame] = max(stamp_ns, newest_ns)

    def _learn(self, links: list[tuple[str, str]]) -> bool:
        """Notes links, each of a child and its parent; returns whether any was unknown."""
        unknown = False
        for child, parent in links:
            parents = self._parents.setdefault(child, set())
            unknown = unknown or parent not in parents
            parents.add(parent)
        return unknown

    def _find_way(self) -> None:
        way, ahead = set(), [bare(frame) for frame in self._frames]
        while ahead:
            frame = ahead.pop()
            if frame not in way:
                way.add(frame)
                ahead.extend(self._parents.get(frame, ()))
        joined, self._way = way - self._way, way
        self._way_version += 1
        for _, raw, layout, complete in self._history if joined else ():
            for entry in () if complete else layout.entries:
                if entry.child in joined:
                    self._buffer.set_transform(entry.read(raw), _AUTHORITY)

    def _wanted(self, layout: Layout) -> list[Entry]:
        if layout.wanted_at != self._way_version:
            layout.wanted = [entry for entry in layout.entries if entry.child in self._way]
            layout.wanted_at = self._way_version
        return layout.wanted

    def _keep(self, raw: bytes, layout: Layout, complete: bool) -> None:
        now_s = time.monotonic()
        self._history.append((now_s, raw, layout, complete))
        self._history_bytes += len(raw)
        oldest_s = now_s - _KEPT_NS / 1e9
        while self._history_bytes > _HISTORY_BYTES or self._history[0][0] < oldest_s:
            self._history_bytes -= len(self._history.popleft()[1])

    def _on_jump(self, jump: TimeJump) -> None:
        with self._lock:
            self._begin_anew()

    def _begin_anew(self) -> None:
        # The buffer keeps static transforms.
        self._buffer.clear()
        self._newest_ns.clear()
        self._history.clear()
        self._history_bytes = 0

    def _on_error(self, error: Exception) -> None:
        note = f"a transform cannot be taken: {type(error).__name__}: {error}"
        self._faults.report("transforms", repr(error), note)


def _names(transform: TransformStamped) -> tuple[str, str]:
    return bare(transform.child_frame_id), bare(transform.header.frame_id)
