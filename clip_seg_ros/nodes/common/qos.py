# SPDX-License-Identifier: Apache-2.0
"""The QoS profiles of all nodes."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def _profile(
    reliability: ReliabilityPolicy, depth: int, durability: DurabilityPolicy = DurabilityPolicy.VOLATILE
) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=reliability,
        durability=durability,
    )


# A best-effort subscription connects to reliable and to best-effort cameras; only the newest image is needed.
IMAGE_INPUT = _profile(ReliabilityPolicy.BEST_EFFORT, 1)
# Depth images are matched with colour images by their stamps, so that a few are kept.
COMPANION_INPUT = _profile(ReliabilityPolicy.BEST_EFFORT, 5)
# Commands and results.
RELIABLE = _profile(ReliabilityPolicy.RELIABLE, 10)
# Statuses, also for subscribers that join a little later; volatile subscribers get the new ones.
STATUS = _profile(ReliabilityPolicy.RELIABLE, 10, DurabilityPolicy.TRANSIENT_LOCAL)
# Calls of services, most of them with an image; with ROS's default of ten, simultaneous calls get lost silently.
SERVICE = _profile(ReliabilityPolicy.RELIABLE, 32)
# Goals of actions are small, and hundreds may arrive at once.
ACTION = _profile(ReliabilityPolicy.RELIABLE, 1000)
# Messages that hold until the next one, also for subscribers that join later.
LATCHED = _profile(ReliabilityPolicy.RELIABLE, 1, DurabilityPolicy.TRANSIENT_LOCAL)
# The profiles that tf2 uses.
TRANSFORMS = _profile(ReliabilityPolicy.RELIABLE, 100)
TRANSFORMS_LATCHED = _profile(ReliabilityPolicy.RELIABLE, 100, DurabilityPolicy.TRANSIENT_LOCAL)


def camera_output(reliability: str) -> QoSProfile:
    """Returns the profile of a camera's publishers; ``reliability`` is "best_effort", as usual, or "reliable"."""
    policy = ReliabilityPolicy.RELIABLE if reliability == "reliable" else ReliabilityPolicy.BEST_EFFORT
    return _profile(policy, 5)
