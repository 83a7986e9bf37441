# SPDX-License-Identifier: Apache-2.0
"""Fills tf2's buffer on a thread of its own, so that a robot with many transforms does not slow the node down."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence

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
_MOST_LINKS = 4096
"""The largest number of links between frames that are learnt. tf2 never forgets a frame, and a robot has hundreds."""
_LONGEST_NAME = 256
"""The largest number of characters in the name of a frame."""
_AUTHORITY = "clip_seg_ros"


class TransformFeed:
    """Subscribes to /tf and /tf_static, remapped or not, and fills a buffer.

    From /tf, the buffer gets only the transforms between the frames of ``want`` and the roots of their trees, and every
    other transform once, so that tf2 knows the frames. The messages of the last seconds are kept as bytes. If a frame
    is wanted later, or is linked to a wanted frame later, the buffer also gets its earlier transforms, and then works
    as if it had received everything.

    At most ``_MOST_LINKS`` links are learnt, and as many more of wanted frames and their ancestors, whatever is sent.
    All others are ignored, which is reported once.

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
        """Stamp of the newest transform of each learnt frame that moves."""
        self._parents: dict[str, set[str]] = {}
        """All parents that a frame ever had, because lookups may be for times before a change of the tree."""
        self._links = 0
        """The number of links that ``_parents`` has."""
        self._frames: set[str] = set()
        self._way: set[str] = set()
        """The wanted frames and all their ancestors."""
        self._way_version = 0
        self._layouts = Layouts()
        self._history: deque[tuple[float, bytes, Layout]] = deque()
        """The time of arrival, the bytes and the layout of each message of which the buffer has only a part."""
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
                for transform in self._learnt(transforms_of(raw)):
                    self._heed(bare(transform.child_frame_id), Time.from_msg(transform.header.stamp).nanoseconds)
                    self._buffer.set_transform(transform, _AUTHORITY)
                return
            if not layout.entries:
                return
            if new:
                self._learn([entry.link for entry in layout.entries])
            first = layout.entries[0]
            if self._knows(first.link):
                self._heed(first.child, first.stamp_ns(raw))
            for entry in filter(self._is_known, layout.entries) if new else self._wanted(layout):
                self._heed(entry.child, entry.stamp_ns(raw))
                self._buffer.set_transform(entry.read(raw), _AUTHORITY)
            if not new:
                self._keep(raw, layout)

    def _on_static(self, message: TFMessage) -> None:
        with self._lock:
            for transform in self._learnt(message.transforms):
                self._buffer.set_transform_static(transform, _AUTHORITY)

    def _heed(self, frame: str, stamp_ns: int) -> None:
        """Notes the stamp of a transform; begins anew if time has jumped back."""
        newest_ns = self._newest_ns.get(frame, stamp_ns)
        if stamp_ns < newest_ns - _KEPT_NS:
            self._begin_anew()
            newest_ns = stamp_ns
        self._newest_ns[frame] = max(stamp_ns, newest_ns)

    def _learnt(self, transforms: Sequence[TransformStamped]) -> list[TransformStamped]:
        """Notes the links of transforms; returns those whose link is known."""
        self._learn([_link(transform) for transform in transforms])
        return [transform for transform in transforms if self._knows(_link(transform))]

    def _learn(self, links: Iterable[tuple[str, str]]) -> None:
        """Notes links, each of a child and its parent, as long as there is room."""
        before = self._links
        for child, parent in links:
            if self._knows((child, parent)):
                continue
            # What may be looked up has room of its own, so that other frames cannot keep it out.
            room = 2 * _MOST_LINKS if child in self._way else _MOST_LINKS
            if self._links >= room or max(len(child), len(parent)) > _LONGEST_NAME:
                note = f"more than {_MOST_LINKS} frames, or names of more than {_LONGEST_NAME} characters: "
                self._faults.report("transforms", "too many", f"{note}what else comes is ignored")
                continue
            self._parents.setdefault(child, set()).add(parent)
            self._links += 1
        if self._links > before:
            self._find_way()

    def _knows(self, link: tuple[str, str]) -> bool:
        child, parent = link
        return parent in self._parents.get(child, ())

    def _is_known(self, entry: Entry) -> bool:
        return self._knows(entry.link)

    def _find_way(self) -> None:
        way, ahead = set(), [bare(frame) for frame in self._frames]
        while ahead:
            frame = ahead.pop()
            if frame not in way:
                way.add(frame)
                ahead.extend(self._parents.get(frame, ()))
        joined, self._way = way - self._way, way
        self._way_version += 1
        for _, raw, layout in self._history if joined else ():
            for entry in layout.entries:
                if entry.child in joined and self._is_known(entry):
                    self._buffer.set_transform(entry.read(raw), _AUTHORITY)

    def _wanted(self, layout: Layout) -> list[Entry]:
        while layout.wanted_at != self._way_version:
            layout.wanted_at = self._way_version
            wanted = [entry for entry in layout.entries if entry.child in self._way]
            # A link that there was no room for may be wanted by now, and its parent then, too.
            self._learn([entry.link for entry in wanted])
            layout.wanted = [entry for entry in wanted if self._is_known(entry)]
        return layout.wanted

    def _keep(self, raw: bytes, layout: Layout) -> None:
        now_s = time.monotonic()
        self._history.append((now_s, raw, layout))
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


def _link(transform: TransformStamped) -> tuple[str, str]:
    return bare(transform.child_frame_id), bare(transform.header.frame_id)
