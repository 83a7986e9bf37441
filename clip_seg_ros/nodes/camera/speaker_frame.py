# SPDX-License-Identifier: Apache-2.0
"""Where the person is who says "on my left", by tf2 at the stamp of the image."""

from __future__ import annotations

from rclpy.node import Node
from std_msgs.msg import Header

from clip_seg_ros.nodes.camera.target_frame import TargetFrame
from clip_seg_ros.nodes.common.faults import FaultLog
from clip_seg_ros.pipeline.space.solids import Speaker


class SpeakerFrame:
    """Looks up where the person is who speaks.

    Args:
        node: Node that listens to tf.
        name: Name of the person's frame, x forward and y to the left; if it is empty, the camera stands for the person.
        faults: Log of missing transforms.
    """

    def __init__(self, node: Node, name: str, faults: FaultLog) -> None:
        self._name = name
        self._frame = TargetFrame(node, name, faults, "speaker_frame", 'nothing tells where "my left" is')

    def close(self) -> None:
        """Stops listening to tf."""
        self._frame.close()

    def of(self, header: Header) -> Speaker:
        """Returns who speaks, in the frame of a header at its stamp."""
        if not self._name:
            return "camera"
        motion = self._frame.of(header)
        return motion.person if motion else "unknown"
