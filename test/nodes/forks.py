# SPDX-License-Identifier: Apache-2.0
"""Programs as processes of their own, which begin with PyTorch and ROS imported: each is a fork of one that has both.

To import them takes seconds, and the tests start a hundred nodes. Nothing else is shared: rclpy, models and settings
begin in the program, as in any other process.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

_IMPORTED = [
    "clip_seg_ros.nodes.life.process",
    "clip_seg_ros.nodes.life.segmentation_node",
    "clip_seg_ros.nodes.tasks.referring",
    "clip_seg_ros.nodes.tasks.semantic",
    "clip_seg_ros.runtime.eager",
    "clip_seg_ros.zoo.factory",
]
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(_IMPORTED)


def fresh_program(module: str, arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Starts ``python -m MODULE ARGUMENTS`` with its output in a file."""
    with log.open("wb") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments], stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
        )


class ForkedProgram:
    """The same as ``fresh_program`` without waiting for imports; it has the methods of ``subprocess.Popen``."""

    def __init__(self, module: str, arguments: Sequence[str], log: Path) -> None:
        log.write_bytes(b"")
        # A daemon ends with the tests, should one of them forget it.
        self._process = _forks.Process(
            target=_run, args=(module, list(arguments), str(log), dict(os.environ), os.getcwd()), daemon=True
        )
        self._process.start()

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, or minus the number of the signal that ended it, or ``None`` while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Returns ``returncode``."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Returns the exit code once there is one; raises ``subprocess.TimeoutExpired``."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends it at once."""
        self.send_signal(signal.SIGKILL)


def _run(module: str, arguments: list[str], log: str, environment: dict[str, str], folder: str) -> None:
    """Runs a module as a program."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    with open(os.devnull) as nothing, open(log, "a") as stream:
        for number, file in enumerate((nothing, stream, stream)):
            os.dup2(file.fileno(), number)
    sys.stdout.reconfigure(line_buffering=True)
    sys.argv = [module, *arguments]
    code = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    # A fork would end without what libraries do at the end of a process: Fast DDS would leave its memory behind.
    ctypes.pythonapi.Py_Exit(code)
