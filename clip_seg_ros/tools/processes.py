# SPDX-License-Identifier: Apache-2.0
"""Child processes that never outlive their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

LOG_LINES_SHOWN = 12
_IMPATIENCE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1
# The signals that end a process group, each with the seconds until the next one.
_ENDINGS = ((signal.SIGINT, 4.0), (signal.SIGTERM, 2.0), (signal.SIGKILL, 2.0))


class ChildDied(Exception):
    """A child process ended unexpectedly; the message names it and shows the end of its log."""


class ChildProcesses:
    """Starts Python modules as processes, each in a group of its own, and ends them all when its block is left.

    Args:
        log_dir: Existing folder for one ``<name>.log`` of each child, with its stderr.
        env: The environment of the children.
    """

    def __init__(self, log_dir: Path, env: Mapping[str, str]) -> None:
        self._log_dir = log_dir
        self.env = dict(env)
        self._children: dict[str, subprocess.Popen[str]] = {}

    def __enter__(self) -> ChildProcesses:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(
        self, name: str, module: str, arguments: Sequence[str] = (), talks: bool = False
    ) -> subprocess.Popen[str]:
        """Starts ``python -m module``; one that ``talks`` has pipes as its stdin and stdout."""
        with open(self._log_dir / f"{name}.log", "w", encoding="utf-8") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else log,
                stderr=log,
                text=True,
                env=self.env,
                # A Ctrl-C in the terminal reaches the parent alone, which then ends the children in order.
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        self._children[name] = child
        return child

    def check(self) -> None:
        """Raises ``ChildDied`` if any child has ended."""
        for name, child in self._children.items():
            if child.poll() is not None:
                log = (self._log_dir / f"{name}.log").read_text(encoding="utf-8", errors="replace").strip()
                shown = "\n".join(f"  {line}" for line in log.splitlines()[-LOG_LINES_SHOWN:])
                raise ChildDied(f"the process {name} ended with exit code {child.returncode}. It said last:\n{shown}")

    def stop(self, *names: str) -> None:
        """Ends the named children, by default all, and their own children; call it from the main thread, also again."""
        children = [self._children.pop(name) for name in names or tuple(self._children)]
        # A second Ctrl-C must not leave some of them running.
        previous = {number: signal.signal(number, signal.SIG_IGN) for number in _IMPATIENCE}
        try:
            for number, patience_s in _ENDINGS:
                for child in children:
                    _signal_group(child, number)
                deadline = time.monotonic() + patience_s
                while any(child.poll() is None for child in children) and time.monotonic() < deadline:
                    time.sleep(0.02)
            for child in children:
                for pipe in filter(None, (child.stdin, child.stdout)):
                    pipe.close()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def _end_with_parent() -> None:
    # Even a parent that is killed outright takes its children along (Linux).
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _signal_group(child: subprocess.Popen[str], number: int) -> None:
    # The group's id is the child's; it stays taken while any member lives, also after the child itself has ended.
    with suppress(ProcessLookupError):
        os.killpg(child.pid, number)
