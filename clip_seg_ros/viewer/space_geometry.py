# SPDX-License-Identifier: Apache-2.0
"""Where things go in the 3D scene, whose z axis points up: every view's frame is turned so that it stands upright."""

from __future__ import annotations

import numpy as np

from clip_seg_ros.types import OrientedBox, quaternion
from clip_seg_ros.viewer.views import View

BEHIND, ABOVE, ASIDE = 0.2, 0.3, 0.3
"""How far the first look is behind, above and to the right of the robot's camera, in its distances from the things."""
_OPTICAL_UP = (0.0, -1.0, 0.0)
_OPTICAL_FORWARD = (0.0, 0.0, 1.0)

Turn = tuple[float, float, float, float]


def wxyz(rotation: np.ndarray) -> Turn:
    """Converts a rotation matrix (3, 3) to a unit quaternion (w, x, y, z)."""
    x, y, z, w = quaternion(rotation)
    return w, x, y, z


def box_wxyz(box: OrientedBox) -> Turn:
    """Returns the orientation of a box as (w, x, y, z)."""
    x, y, z, w = box.orientation_xyzw
    return w, x, y, z


def camera_pose(view: View) -> np.ndarray:
    """Returns the (4, 4) transform from the optical frame to ``view.frame``."""
    return np.eye(4) if view.camera_pose is None else view.camera_pose


def up_of(view: View) -> np.ndarray:
    """Returns the direction of up in ``view.frame``, a unit vector (3,).

    Frames of robots and maps have z up. In an optical frame, up is away from the table, and against y without one.
    """
    if view.camera_pose is not None:
        return np.array([0.0, 0.0, 1.0])
    return np.array(_OPTICAL_UP if view.table is None else view.table[:3], np.float64)


def upright(view: View, up: np.ndarray) -> np.ndarray:
    """Returns the rotation (3, 3) from ``view.frame`` to the scene, which takes ``up`` to z.

    A camera in its own frame looks along y of the scene; other frames keep their axes.
    """
    if view.camera_pose is not None:
        return np.eye(3)
    right = np.cross(_OPTICAL_FORWARD, up)
    length = np.linalg.norm(right)
    # A camera that looks straight up or down has its right side to the right.
    right = right / length if length > 1e-3 else np.array([1.0, 0.0, 0.0])
    right = right - (right @ up) * up
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(up, right), up])


def facing(normal: np.ndarray) -> np.ndarray:
    """Returns a rotation (3, 3) that takes z to ``normal``, a unit vector (3,)."""
    aside = np.array([1.0, 0.0, 0.0]) if abs(normal[0]) < 0.9 else np.array([0.0, 1.0, 0.0])
    first = aside - (aside @ normal) * normal
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(normal, first), normal], axis=1)


def middle_of(view: View) -> np.ndarray | None:
    """Returns the middle of the things, or else of all points, (3,) in ``view.frame``; ``None`` if there are none."""
    places = [thing.position_m for thing in view.things if thing.position_m is not None]
    if places:
        return np.mean(places, axis=0)
    for cloud in (view.cloud, view.surroundings):
        if cloud is not None and len(cloud.points_m):
            return np.median(cloud.points_m, axis=0).astype(np.float64)
    return None


def first_look(view: View) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns from where (3,) and at what (3,) to look first, in ``view.frame``; ``None`` if nothing is to be seen."""
    target = middle_of(view)
    if target is None:
        return None
    camera = camera_pose(view)[:3, 3]
    distance = float(np.linalg.norm(target - camera))
    if distance < 1e-3:
        return None
    up = up_of(view)
    right = np.cross(target - camera, up)  # of length 0 if the camera looks straight down
    aside = ASIDE * distance / max(float(np.linalg.norm(right)), 1e-3 * distance) * right
    return camera + BEHIND * (camera - target) + ABOVE * distance * up + aside, target
