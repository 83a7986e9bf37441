# SPDX-License-Identifier: Apache-2.0
"""Fetches published weights in a process of its own, while this one goes on.

The process is ``clip-seg weights download``, which takes its memory along when it ends, and whose conversion does not
hold this process's lock.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import IO

from clip_seg_ros.zoo.public_weights import PUBLIC_WEIGHTS

_LOOK_S = 0.5
_STEPS = 10
"""The number of steps of a whole file."""
_NICENESS = "10"
_WRONG = 2
"""The exit code of the command for what no further attempt can mend."""


class NotFetched(Exception):
    """The weights were not fetched; the message says why, for somebody who typed the command."""

    def __init__(self, why: str, is_final: bool) -> None:
        super().__init__(why)
        self.is_final = is_final
        """Whether no further attempt can mend it."""


def announcement(name: str, serving: str | None) -> str:
    """Returns what is fetched, how large it is and on which terms, for people; ``serving`` serves meanwhile."""
    entry = PUBLIC_WEIGHTS[name]
    return (
        f"fetching {name} for real pictures, about {entry.megabytes} MB from {entry.page}; licence: "
        f"{entry.licence}; {serving} serves until they are there"
    )


def fetch(name: str, ended: threading.Event, on_progress: Callable[[str, bool], None]) -> None:
    """Fetches weights and converts them; it returns early if it ``ended``.

    Args:
        name: One of ``PUBLIC_WEIGHTS`` that a program can download.
        ended: Ends the process; what has arrived is kept for the next time.
        on_progress: Called twice a second with how far it is, for people, and whether that is a tenth more.

    Raises:
        ValueError: There are no such weights.
        WeightsError: They must be downloaded by hand.
        NotFetched: They were not fetched.
    """
    # The import is not at the top: it takes a second, and few programs fetch.
    from clip_seg_ros.zoo.download import arrived_bytes, find

    hub, entry = find(name).hub, PUBLIC_WEIGHTS[name]
    told = 0
    with tempfile.TemporaryFile() as errors:
        child = _start(name, errors)
        try:
            while child.poll() is None and not ended.wait(_LOOK_S):
                arrived = arrived_bytes(hub) / 1e6
                is_step = arrived * _STEPS >= (told + 1) * entry.megabytes
                if is_step:
                    told = int(arrived * _STEPS / entry.megabytes)
                on_progress(f"{name}: {arrived:.0f} of about {entry.megabytes} MB have arrived", is_step)
        finally:
            _end(child)
        if not ended.is_set() and child.returncode != 0:
            errors.seek(0)
            lines = errors.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
            why = lines[-1].removeprefix("clip-seg weights: ")
            raise NotFetched(why, child.returncode == _WRONG)


def _start(name: str, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    # Wherever this process found its modules, the other one finds them, too.
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    nice = ["nice", "-n", _NICENESS] if shutil.which("nice") else []
    return subprocess.Popen(
        [*nice, sys.executable, "-m", "clip_seg_ros.tools.cli", "weights", "download", name],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        env=env,
    )


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(timeout=3.0)
    if child.poll() is None:
        child.kill()
        child.wait()
