# SPDX-License-Identifier: Apache-2.0
"""ROS domains that no other run of the tests on this machine uses at the same time."""

from __future__ import annotations

import fcntl
import os
import random
import tempfile
from pathlib import Path
from typing import IO

# 1 to 101 are the domains whose ports are free on every Linux.
_DOMAINS = range(1, 102)
_held: list[IO[str]] = []


def reserve_domain() -> int:
    """Returns a ROS domain that belongs to this process until it ends: a lock on a file, which outlives no process.

    Raises:
        RuntimeError: All are taken.
    """
    folder = Path(tempfile.gettempdir()) / f"clip_seg_ros_test_domains_{os.getuid()}"
    folder.mkdir(exist_ok=True)
    # Begun anywhere: nobody waits for the ports of one that has just been given up.
    for domain in random.SystemRandom().sample(_DOMAINS, len(_DOMAINS)):
        lock = (folder / str(domain)).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        _held.append(lock)
        return domain
    raise RuntimeError(f"all ROS domains from {_DOMAINS[0]} to {_DOMAINS[-1]} are taken by tests; see {folder}")


def own_domain_environment() -> dict[str, str]:
    """The environment of processes that must hear nothing of this run's other nodes."""
    return os.environ | {"ROS_DOMAIN_ID": str(reserve_domain())}
