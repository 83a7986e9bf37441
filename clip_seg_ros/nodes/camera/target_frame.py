# SPDX-License-Identifier: Apache-2.0
"""Transforms positions to a frame of the user's choice, by tf2 at the stamp of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from geometry_msgs.msg import Transform
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time
from std_msgs.msg import Header

from clip_seg_ros.nodes.common.faults import FaultLog
from clip_seg_ros.pipeline.space.solids import Person
from clip_seg_ros.types import ObjectRegion, OrientedBox, vector3

_PATIENCE_S = 0.05
"""Time in seconds to wait for a transform, which often arrives a little later than the image."""


@dataclass(frozen=True)
class Motion:
    """A rigid transform of points from one frame to another."""

    frame_id: str
    """The frame that points are transformed to."""
    rotation_xyzw: tuple[float, float, float, float]
    translation_m: tuple[float, float, float]

    @classmethod
    def none(cls, frame_id: str) -> Motion:
        """Returns the transform of a frame to itself."""
        return cls(frame_id, (0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0))

    def matrix(self) -> np.ndarray:
        """Returns the transform as (4, 4) float64."""
        whole = np.eye(4)
        whole[:3, :3], whole[:3, 3] = _matrix(self.rotation_xyzw), self.translation_m
        return whole

    @property
    def up(self) -> tuple[float, float, float] | None:
        """The direction against gravity as a unit vector of the frame that points come from; ``None`` if unknown.

        By REP 103, z points up in every frame but optical ones, which only their names tell.
        """
        return None if "optical" in self.frame_id else vector3(_matrix(self.rotation_xyzw)[2])

    @property
    def person(self) -> Person:
        """Who stands at the origin of the frame that points come to and looks along its x, with y to the left."""
        matrix = _matrix(self.rotation_xyzw)
        at_m = vector3(-matrix.T @ np.asarray(self.translation_m))
        return Person(at_m, ahead=vector3(matrix[0]), left=vector3(matrix[1]))

    def points(self, points_m: np.ndarray) -> np.ndarray:
        """Transforms points (N, 3) in metres; returns (N, 3) float32."""
        moved = points_m @ _matrix(self.rotation_xyzw).T + np.asarray(self.translation_m)
        return moved.astype(np.float32)

    def region(self, region: ObjectRegion) -> ObjectRegion:
        """Returns a region with its position and its box transformed."""
        if region.position_m is None:
            return region
        box = region.box_m
        if box is not None:
            turned = _product(self.rotation_xyzw, box.orientation_xyzw)
            box = OrientedBox(self._point(box.center_m), box.size_m, turned)
        return replace(region, position_m=self._point(region.position_m), box_m=box)

    def _point(self, point_m: Sequence[float]) -> tuple[float, float, float]:
        x, y, z = _matrix(self.rotation_xyzw) @ np.asarray(point_m) + np.asarray(self.translation_m)
        return float(x), float(y), float(z)


class TargetFrame:
    """Looks up the transform from the camera to the target frame.

    Args:
        node: Node that listens to tf.
        name: Name of the target frame; if it is empty, positions stay in the camera's optical frame.
        faults: Log of missing transforms.
        use: What the frame is for, the name of a parameter.
        loss: What becomes of it without a transform; empty for positions.
    """

    def __init__(self, node: Node, name: str, faults: FaultLog, use: str = "target_frame", loss: str = "") -> None:
        self._name, self._faults, self._feed, self._buffer = name, faults, None, None
        self._use, self._loss = use, loss
        if not name:
            return
        try:
            import tf2_ros

            from clip_seg_ros.nodes.camera.transform_feed import TransformFeed
        except ImportError:
            loss = loss or f"positions stay in the camera's frame and are not in {name}"
            faults.report(use, "tf2_ros", f"tf2_ros is not installed: {loss}")
            return
        self._buffer = tf2_ros.Buffer()
        self._feed = TransformFeed(node, self._buffer, faults)
        self._unknown = tf2_ros.TransformException

    def close(self) -> None:
        """Stops listening to tf."""
        if self._feed is not None:
            self._feed.close()
            self._feed = self._buffer = None

    def of(self, header: Header) -> Motion | None:
        """Returns the transform from a header's frame at its stamp; ``None`` if positions stay in that frame."""
        buffer, feed = self._buffer, self._feed
        if buffer is None or feed is None or header.frame_id == self._name:
            return None
        feed.want(self._name, header.frame_id)
        try:
            found = buffer.lookup_transform(
                self._name, header.frame_id, Time.from_msg(header.stamp), Duration(seconds=_PATIENCE_S)
            ).transform
        except self._unknown as error:
            loss = self._loss or f"positions stay in {header.frame_id}"
            self._faults.report(self._use, "lookup", f"{error}: {loss}")
            return None
        self._faults.clear(self._use)
        return self._motion(found)

    def place_of(self, frame_id: str) -> tuple[float, float, float] | None:
        """Returns where the origin of a frame is in the target frame at present, metres; ``None`` if unknown."""
        buffer = self._buffer
        if frame_id == self._name:
            return 0.0, 0.0, 0.0
        if buffer is None:
            return None
        try:
            return self._motion(buffer.lookup_transform(self._name, frame_id, Time()).transform).translation_m
        except self._unknown:
            return None

    def _motion(self, transform: Transform) -> Motion:
        turn, shift = transform.rotation, transform.translation
        return Motion(self._name, (turn.x, turn.y, turn.z, turn.w), (shift.x, shift.y, shift.z))


def _matrix(xyzw: Sequence[float]) -> np.ndarray:
    """Returns the rotation matrix (3, 3) of a unit quaternion."""
    x, y, z, w = xyzw
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def _product(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float, float]:
    """Returns the quaternion of the rotation ``second`` followed by ``first``, with w >= 0; all are (x, y, z, w)."""
    (x1, y1, z1, w1), (x2, y2, z2, w2) = first, second
    product = np.array(
        [
            w1 * x2 + x1 * w2 + y1 * z2 - z1 * y2,
            w1 * y2 - x1 * z2 + y1 * w2 + z1 * x2,
            w1 * z2 + x1 * y2 - y1 * x2 + z1 * w2,
            w1 * w2 - x1 * x2 - y1 * y2 - z1 * z2,
        ]
    )
    product /= np.linalg.norm(product)
    x, y, z, w = product if product[3] >= 0 else -product
    return float(x), float(y), float(z), float(w)
