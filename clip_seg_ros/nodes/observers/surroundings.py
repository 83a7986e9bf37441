# SPDX-License-Identifier: Apache-2.0
"""What the depth of an image shows around the found objects, for the view in 3D."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from clip_seg_ros.nodes.camera.target_frame import Motion
from clip_seg_ros.pipeline.space.ground import fit_ground
from clip_seg_ros.pipeline.space.point_cloud import PointCloud
from clip_seg_ros.types import CameraFrame, CameraIntrinsics
from clip_seg_ros.viewer.space_around import surroundings


@dataclass(frozen=True)
class Surroundings:
    """The space that one image shows; its parts are those of ``View`` with these names."""

    frame: str
    """Name of the frame of everything below."""
    surroundings: PointCloud
    intrinsics: CameraIntrinsics
    camera_pose: np.ndarray | None
    table: tuple[float, float, float, float] | None


def surroundings_of(frame: CameraFrame, motion: Motion | None) -> Surroundings | None:
    """Looks at the depth of an image.

    Args:
        frame: The image.
        motion: The transform to the frame of the positions; ``None``: they are in the optical frame.

    Returns:
        What the depth shows; ``None`` without depth or intrinsics.
    """
    points = surroundings(frame)
    if points is None or frame.intrinsics is None:
        return None
    ground = fit_ground(frame, motion.up if motion else None)
    plane = None if ground is None else (*ground.up, ground.camera_m)
    if motion is not None:
        points = replace(points, points_m=motion.points(points.points_m))
        plane = None if plane is None else _moved(plane, motion.matrix())
    return Surroundings(
        frame=motion.frame_id if motion else frame.frame_id,
        surroundings=points,
        intrinsics=frame.intrinsics,
        camera_pose=motion.matrix() if motion else None,
        table=plane,
    )


def _moved(plane: tuple[float, ...], matrix: np.ndarray) -> tuple[float, float, float, float]:
    """Returns a plane (a, b, c, d) in the frame that a transform (4, 4) leads to."""
    a, b, c = (float(value) for value in matrix[:3, :3] @ np.asarray(plane[:3]))
    return a, b, c, float(plane[3] - np.dot((a, b, c), matrix[:3, 3]))
