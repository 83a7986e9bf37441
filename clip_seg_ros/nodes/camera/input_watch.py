# SPDX-License-Identifier: Apache-2.0
"""Reports why no messages arrive: no publisher, another type, or an incompatible quality of service."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible
from rclpy.subscription import Subscription
from std_msgs.msg import String

from clip_seg_ros.nodes.camera.camera_input import SILENCE_S, CameraInput, Input
from clip_seg_ros.nodes.camera.clock_watch import ClockWatch
from clip_seg_ros.nodes.common.faults import FaultLog
from clip_seg_ros.nodes.common.qos import RELIABLE

_PERIOD_S = 1.0
_NAME_TO_COME = "_NODE_NAME_UNKNOWN_"
_NAMELESS_LOOKS = 3
"""How often a publisher is seen without the name of its node before it is reported without it."""


class InputWatch:
    """Checks the inputs of a node once a second.

    Args:
        node: Node of the inputs.
        faults: Log of the inputs' faults.
        cameras: Cameras whose topics are checked.
        commands: Subscription to commands.
        wanted: Returns whether images are needed at the moment.
    """

    def __init__(
        self,
        node: Node,
        faults: FaultLog,
        cameras: Sequence[CameraInput],
        commands: Subscription,
        wanted: Callable[[], bool],
    ) -> None:
        self._node, self._faults, self._cameras, self._wanted = node, faults, cameras, wanted
        self._commands = Input(commands.topic_name, String, RELIABLE, commands)
        self._since_s = time.monotonic()
        self._seen: Counter[bytes] = Counter()
        """How often each incompatible publisher that still exists was seen before the present check."""
        self._present: Counter[bytes] = Counter()
        """How often each incompatible publisher was seen, including the present check."""
        self._clock = ClockWatch(node, faults)
        # The timer runs in steady time, because simulated time may stand still.
        self._timer = node.create_timer(_PERIOD_S, self._look, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def close(self) -> None:
        """Ends the watch."""
        self._node.destroy_timer(self._timer)

    def _look(self) -> None:
        # Publishers that left are forgotten, because those that come and go all day would fill the memory.
        self._seen, self._present = self._present, Counter()
        self._tell("command topic", self._commands)
        now_s = time.monotonic()
        self._clock.look(now_s)
        wanted = self._wanted()
        if not wanted:
            self._since_s = now_s
        for camera in self._cameras:
            for what, each in zip(("image topic", "depth topic", "camera_info topic"), camera.inputs):
                self._tell(camera.source(what), each)
            source = camera.source("camera")
            if camera.is_alive():
                self._faults.clear(source)
            elif wanted and now_s - self._since_s >= SILENCE_S:
                publishers = self._node.count_publishers(camera.image_topic)
                note = f"no image on {camera.image_topic} for {SILENCE_S:g} s; it has {publishers} publishers"
                self._faults.report(source, f"{publishers} publishers", note)

    def _tell(self, source: str, wanted: Input) -> None:
        misfits = self._misfits(wanted)
        if not misfits:
            self._faults.clear(source)
        for misfit in misfits:
            self._faults.report(source, misfit, misfit)

    def _misfits(self, wanted: Input) -> list[str]:
        """Returns one line for each publisher of a topic whose messages cannot arrive."""
        lines = []
        name = type_name(wanted.kind)
        for other in self._node.get_publishers_info_by_topic(wanted.topic):
            who = f"{other.node_namespace.rstrip('/')}/{other.node_name}"
            fits, reason = qos_check_compatible(_as_offered(other.qos_profile), wanted.qos)
            if other.topic_type != name:
                line = f"{who} publishes {other.topic_type} on {wanted.topic}, and {name} is expected there"
            elif fits == QoSCompatibility.ERROR:
                line = f"the quality of service of {who} on {wanted.topic} does not fit: {reason.strip(' ;')}"
            else:
                continue
            endpoint = bytes(other.endpoint_gid)
            # The name of its node becomes known a little later than a publisher itself.
            if other.node_name != _NAME_TO_COME or self._seen[endpoint] >= _NAMELESS_LOOKS:
                lines.append(line)
            self._present[endpoint] = self._seen[endpoint] + 1
        return lines


def _as_offered(qos: QoSProfile) -> QoSProfile:
    """Returns the QoS that a publisher offers, with a history, which is not known and does not matter here."""
    return QoSProfile(
        depth=1,
        reliability=qos.reliability,
        durability=qos.durability,
        deadline=qos.deadline,
        liveliness=qos.liveliness,
        liveliness_lease_duration=qos.liveliness_lease_duration,
    )


def type_name(kind: type) -> str:
    """Returns the name of a message type, such as "sensor_msgs/msg/Image" for the class ``Image``."""
    return f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
