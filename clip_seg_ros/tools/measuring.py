# SPDX-License-Identifier: Apache-2.0
"""What commands share that measure running nodes: figures, starting nodes, and the memory of processes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clip_seg_ros import resources
from clip_seg_ros.tools.processes import ChildProcesses


@dataclass(frozen=True)
class Figure:
    """One measured number."""

    name: str
    value: float
    unit: str


class Figures:
    """Measured numbers, each of which is printed once it is known.

    Args:
        subject: What is measured, with which the names in the file begin.
    """

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self.all: list[Figure] = []

    def note(self, name: str, value: float, unit: str, what: str) -> None:
        """Adds a number and prints it with what it is, for people."""
        self.all.append(Figure(f"{self._subject}.{name}", round(value, 2), unit))
        print(f"{value:8.1f} {unit:<4} {what}", flush=True)

    def write(self, path: Path) -> None:
        """Writes all of them as a list of {"name", "value", "unit"}. Raises OSError if that is not possible."""
        plain = [{"name": each.name, "value": each.value, "unit": each.unit} for each in self.all]
        path.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")


def start_node(
    children: ChildProcesses, name: str, module: str, file: str, parameters: Mapping[str, Any], namespace: str = ""
) -> subprocess.Popen[str]:
    """Starts a node as a child.

    Args:
        children: The processes.
        name: Name of the child.
        module: Module of the node, in ``clip_seg_ros.nodes``.
        file: Name of the parameter file in ``config``, without its ending.
        parameters: Values of other parameters.
        namespace: Of the node; empty: none is told.
    """
    arguments = ["--ros-args", *(["-r", f"__ns:={namespace}"] if namespace else [])]
    arguments += ["--params-file", str(resources.config_dir() / f"{file}.yaml")]
    for key, value in parameters.items():
        # A JSON list of texts is a YAML list, too.
        arguments += ["-p", f"{key}:={json.dumps(value)}"]
    return children.start(name, f"clip_seg_ros.nodes.{module}", arguments)


def memory_mib(pid: int, kind: str) -> float:
    """Returns the memory of a process in MiB.

    Args:
        pid: Its id.
        kind: A line of ``/proc/PID/status``, such as VmRSS (what it holds), RssAnon (of it its own) or VmHWM (the most
            that it has ever held).

    Returns:
        The number; 0 if it has ended, and nobody has taken notice yet.

    Raises:
        OSError: There is no such process any more.
    """
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) / 1024
    return 0.0
