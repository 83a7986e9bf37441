# SPDX-License-Identifier: Apache-2.0
"""Settings of Fast DDS, the middleware of most ROS 2 installations, with which camera images are not lost."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from clip_seg_ros import resources

PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
"""The environment variable for the profile of Fast DDS; its name changed between ROS 2 releases."""
CHOICES = (*PROFILE_VARIABLES, "FASTDDS_BUILTIN_TRANSPORTS")
"""Variables by which a user chooses the transports of Fast DDS."""
_FROM_PROFILE = "RMW_FASTRTPS_USE_QOS_FROM_XML"
_READER = "clip_seg_reader"
"""The name of the profile by which Fast DDS frees the memory of messages."""
SHARED_MEMORY = "/dev/shm"
SEGMENT_BYTES = 64 * 2**20
"""The shared memory that each process takes with ``config/fastdds_shm.xml``, in bytes."""
PROCESSES = 4
"""The number of processes in a small set-up: a camera driver, a node, RViz and a subscriber."""


def chosen_by_user(environment: Mapping[str, str]) -> bool:
    """Returns whether an environment has transports or a middleware of the user's own choice."""
    middleware = environment.get("RMW_IMPLEMENTATION", "")
    return any(environment.get(name) for name in CHOICES) or (bool(middleware) and "fastrtps" not in middleware)


def profile_variables() -> dict[str, str]:
    """Returns the environment variables that give Fast DDS the package's profile."""
    return dict.fromkeys(PROFILE_VARIABLES, str(resources.config_dir() / "fastdds_shm.xml"))


def variables_for_images(environment: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """Chooses how images travel between processes of this machine.

    Args:
        environment: Environment variables of the process that starts the nodes.

    Returns:
        The environment variables to add for the nodes, none if the user has chosen, and a warning, which may be empty.
    """
    if chosen_by_user(environment):
        return {}, ""
    free = free_bytes()
    if free is not None and free < PROCESSES * SEGMENT_BYTES:
        # With the profile, Fast DDS would say "SHM Transport is not supported in the current platform" and go on
        # without shared memory; without the profile, it uses the room that there is.
        return {}, (
            f"{SHARED_MEMORY} has {free / 2**20:.0f} MiB left; images in shared memory need {SEGMENT_BYTES >> 20} MiB "
            f"for every process, {PROCESSES * SEGMENT_BYTES >> 20} MiB in all: some images will get lost. In Docker, "
            "start the container with --ipc=host, or with --shm-size=1g"
        )
    return profile_variables(), ""


def free_read_messages(environment: MutableMapping[str, str]) -> None:
    """Has Fast DDS free the memory of a message once it was read, if the environment names the package's profile.

    Otherwise a node keeps a buffer for each message that ever waited, as large as the largest that it held: a few large
    images, or a burst of calls with images, cost memory for ever. Call it before ``rclpy.init``.

    Args:
        environment: The environment of this process; a choice of the user's stays.
    """
    path = next((environment[name] for name in PROFILE_VARIABLES if environment.get(name)), "")
    try:
        profile = Path(path).read_text(encoding="utf-8") if path else ""
    except (OSError, ValueError):  # Fast DDS says what is wrong with it
        return
    if _READER in profile:
        environment.setdefault(_FROM_PROFILE, "1")


def free_bytes(folder: str = SHARED_MEMORY) -> int | None:
    """Returns the free bytes of shared memory; ``None`` if this system keeps it elsewhere."""
    try:
        system = os.statvfs(folder)
    except OSError:
        return None
    return system.f_bavail * system.f_frsize
