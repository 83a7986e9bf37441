# SPDX-License-Identifier: Apache-2.0
"""Feeds tf2's buffer on a thread of its own, so that a robot that moves a lot does not slow the node down."""

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
"""Between two looks for transforms: what came meanwhile is taken in one go, for waking up costs more than taking."""
_KEPT_NS = 10_000_000_000
"""For so long tf2 keeps transforms; older ones than that it throws away."""
_HISTORY_BYTES = 16 * 2**20
"""Of messages that are kept for as long as that, for a frame that is asked for later."""
_MOST_FRAMES = 64
"""Of cameras; forgotten where names come without end, and learned anew with the next image."""
_AUTHORITY = "clip_seg_ros"


class TransformFeed:
    """Listens to /tf and /tf_static, remapped or not, and fills a buffer with what comes.

    Of /tf the buffer gets those transforms alone that link the frames which ``want`` was called for to the roots of
    their trees, and each other one the first time that it comes, so that tf2 knows the frames. The messages of the
    last seconds are kept as bytes: where a frame is wanted later, or joins the way by a new link, the buffer gets what
    came before, too, and answers as if it had heard everything.

    Where time jumps back, as it does when a bag begins anew, the moving transforms are forgotten: tf2 would refuse all
    that come until the time before the jump is reached again. A jump shows in the node's clock where that is a
    simulation's, and otherwise in the stamps of a transform.

    Args:
        node: Node of the subscriptions.
        buffer: Buffer to fill.
        faults: Log of messages that cannot be taken.
    """

    def __init__(self, node: Node, buffer: tf2_ros.Buffer, faults: FaultLog) -> None:
        self._node, self._buffer, self._faults = node, buffer, faults
        self._lock = threading.Lock()
        """Held to change any of the following."""
        self._newest_ns: dict[str, int] = {}
        """Stamp of the newest transform of each frame that moves."""
        self._parents: dict[str, set[str]] = {}
        """All parents that a frame ever had: times before a change of the tree are asked for, too."""
        self._frames: set[str] = set()
        self._way: set[str] = set()
        """The wanted frames and all that lies above them."""
        self._way_version = 0
        self._layouts = Layouts()
        self._history: deque[tuple[float, bytes, Layout, bool]] = deque()
        """When it came, the message, its layout, and whether all of it is in the buffer already."""
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
        """Stops listening."""
        self._jumps.unregister()
        self._thread.close()
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def want(self, *frames: str) -> None:
        """Has the buffer hold what it takes to look these frames up; to be called before each look."""
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
                # Another encoding, or broken, which the middleware knows to tell.
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
        """Notes the stamp of a transform; begins anew where time has jumped back."""
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
        # Static transforms outlast this.
        self._buffer.clear()
        self._newest_ns.clear()
        self._history.clear()
        self._history_bytes = 0

    def _on_error(self, error: Exception) -> None:
        note = f"a transform cannot be taken: {type(error).__name__}: {error}"
        self._faults.report("transforms", repr(error), note)


def _names(transform: TransformStamped) -> tuple[str, str]:
    return bare(transform.child_frame_id), bare(transform.header.frame_id)
