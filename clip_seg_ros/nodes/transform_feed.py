"""Feeds tf2's buffer on a thread of its own, so that a robot that moves a lot does not slow the node down."""

from __future__ import annotations

import tf2_ros
from rclpy.clock import JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time
from tf2_msgs.msg import TFMessage

from clip_seg_ros.nodes.faults import FaultLog
from clip_seg_ros.nodes.qos import TRANSFORMS, TRANSFORMS_LATCHED
from clip_seg_ros.nodes.subscription_thread import SubscriptionThread, own_thread_group

_PAUSE_S = 0.01
"""Between two looks for transforms: what came meanwhile is taken in one go, for waking up costs more than taking."""
_KEPT_NS = 10_000_000_000
"""For so long tf2 keeps transforms; older ones than that it throws away."""


class TransformFeed:
    """Listens to /tf and /tf_static, remapped or not, and fills a buffer with what comes.

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
        self._newest_ns: dict[str, int] = {}
        """Stamp of the newest transform of each frame that moves."""
        group = own_thread_group()
        self._subscriptions = [
            node.create_subscription(TFMessage, topic, callback, qos, callback_group=group)
            for topic, callback, qos in (
                ("/tf", self._on_moving, TRANSFORMS), ("/tf_static", self._on_static, TRANSFORMS_LATCHED)
            )
        ]  # fmt: skip
        self._thread = SubscriptionThread(self._subscriptions, node.context, self._on_error, _PAUSE_S)
        threshold = JumpThreshold(min_forward=None, min_backward=Duration(seconds=-1), on_clock_change=True)
        self._jumps = node.get_clock().create_jump_callback(threshold, post_callback=self._on_jump)

    def close(self) -> None:
        """Stops listening."""
        self._jumps.unregister()
        self._thread.close()
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _on_moving(self, message: TFMessage) -> None:
        for transform in message.transforms:
            frame, stamp_ns = transform.child_frame_id, Time.from_msg(transform.header.stamp).nanoseconds
            if stamp_ns < self._newest_ns.get(frame, stamp_ns) - _KEPT_NS:
                self._begin_anew()
            self._newest_ns[frame] = max(stamp_ns, self._newest_ns.get(frame, stamp_ns))
            self._buffer.set_transform(transform, "clip_seg_ros")

    def _on_static(self, message: TFMessage) -> None:
        for transform in message.transforms:
            self._buffer.set_transform_static(transform, "clip_seg_ros")

    def _on_jump(self, jump: TimeJump) -> None:
        self._begin_anew()

    def _begin_anew(self) -> None:
        # Static transforms outlast this.
        self._buffer.clear()
        self._newest_ns.clear()

    def _on_error(self, error: Exception) -> None:
        note = f"a transform cannot be taken: {type(error).__name__}: {error}"
        self._faults.report("transforms", repr(error), note)
