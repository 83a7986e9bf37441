# SPDX-License-Identifier: Apache-2.0
"""Qualities of service, one place for all nodes."""

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


# A best-effort subscription hears both reliable and best-effort cameras; only the newest image is of interest.
IMAGE_INPUT = _profile(ReliabilityPolicy.BEST_EFFORT, 1)
# Depth is matched to an image by its stamp, so that a few are kept.
COMPANION_INPUT = _profile(ReliabilityPolicy.BEST_EFFORT, 5)
# Commands, their answers and the results.
RELIABLE = _profile(ReliabilityPolicy.RELIABLE, 10)
# The answers to commands, for those who come a little later, too: whoever asks for volatile ones still gets the new.
STATUS = _profile(ReliabilityPolicy.RELIABLE, 10, DurabilityPolicy.TRANSIENT_LOCAL)
# Calls of services, most of them with an image; ROS's default of ten loses callers who come at once, without a word.
SERVICE = _profile(ReliabilityPolicy.RELIABLE, 32)
# Goals of actions are small, and may come by the hundred.
ACTION = _profile(ReliabilityPolicy.RELIABLE, 1000)
# What stays true until it is said anew, for those who come later.
LATCHED = _profile(ReliabilityPolicy.RELIABLE, 1, DurabilityPolicy.TRANSIENT_LOCAL)
# As tf2 sends and hears them.
TRANSFORMS = _profile(ReliabilityPolicy.RELIABLE, 100)
TRANSFORMS_LATCHED = _profile(ReliabilityPolicy.RELIABLE, 100, DurabilityPolicy.TRANSIENT_LOCAL)


def camera_output(reliability: str) -> QoSProfile:
    """The profile of a camera's publishers; ``reliability`` is "best_effort", as of real cameras, or "reliable"."""
    policy = ReliabilityPolicy.RELIABLE if reliability == "reliable" else ReliabilityPolicy.BEST_EFFORT
    return _profile(policy, 5)
