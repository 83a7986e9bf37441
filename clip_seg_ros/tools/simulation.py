# SPDX-License-Identifier: Apache-2.0
"""Functions for the commands that run the nodes in the simulated world."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from clip_seg_ros import dds
from clip_seg_ros.commands.parser import CommandError, parse_command
from clip_seg_ros.config import WebViewConfig
from clip_seg_ros.sim.naming import pair_of
from clip_seg_ros.tools.processes import ChildProcesses

_ADDRESS = re.compile(r"the view in the browser: (\S+)")


class NoRos(Exception):
    """This Python cannot run the nodes; the message says what to do."""


def things_named(command: str) -> list[str]:
    """Returns the objects of the simulated world that a command names, such as "red cup".

    Raises:
        CommandError: The command is wrong, or names nothing.
    """
    references = parse_command(command).references
    if not references:
        raise CommandError(f"{command!r} names nothing to look for; try: segment the red cup")
    # What a thing is placed by must be there, too.
    names = dict.fromkeys(name for reference in references for name in reference.names())
    return [name for name in names if pair_of(name) is not None]


def check_ros(what: str) -> None:
    """Raises ``NoRos`` if the nodes that ``what`` runs cannot be started."""
    # The packages are only searched and not imported, because the nodes are processes of their own.
    if importlib.util.find_spec("rclpy") is None or importlib.util.find_spec("clip_seg_ros.nodes") is None:
        raise NoRos(
            f"{what} runs ROS 2 nodes, and this Python has no rclpy or not the nodes of clip_seg_ros. "
            "Source the built workspace, or type `make demo` in a clone: it brings its own ROS 2"
        )


def shared_memory(env: Mapping[str, str]) -> dict[str, str]:
    """Returns ``env`` with the package's profile of Fast DDS, unless it names another."""
    return dict(env) if dds.chosen_by_user(env) else {**env, **dds.profile_variables()}


def environment(profile: bool | None = None) -> dict[str, str]:
    """Returns the environment for nodes: that of this process, with a ROS domain of its own unless one is set.

    Args:
        profile: Whether to use the package's profile of Fast DDS; ``None``: unless the user has chosen another.
    """
    env = dict(os.environ)
    if profile is None:
        env = shared_memory(env)
    elif not profile:
        env = {name: value for name, value in env.items() if name not in dds.PROFILE_VARIABLES}
    else:
        env.update(dds.profile_variables())
    # Nodes that run at the same time must not interfere.
    env.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    return env


def start_web_view(children: ChildProcesses) -> None:
    """Starts the view in the browser as the child "web_view", on a port that is free."""
    port = WebViewConfig.port if _is_free(WebViewConfig.host, WebViewConfig.port) else 0
    children.start("web_view", "clip_seg_ros.nodes.web_view", ["--ros-args", "-p", f"port:={port}"])


def web_address(children: ChildProcesses, log_dir: Path, patience_s: float) -> str | None:
    """Returns the address of the view that ``start_web_view`` began, or ``None`` if it does not come in time.

    Raises:
        ChildDied: A child has ended.
    """
    deadline_s = time.monotonic() + patience_s
    while time.monotonic() < deadline_s:
        children.check()
        if said := _ADDRESS.search((log_dir / "web_view.log").read_text(encoding="utf-8", errors="replace")):
            return said[1]
        time.sleep(0.05)
    return None


def _is_free(host: str, port: int) -> bool:
    try:
        socket.create_server((host, port)).close()
    except OSError:
        return False
    return True
