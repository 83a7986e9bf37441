# SPDX-License-Identifier: Apache-2.0
"""``clip-seg rehearse``: downloads, converts and serves weights of the published size on this machine, offline.

The weights are random numbers in the published layout, behind a hub on this machine, so that nothing comes from the
network and the answers mean nothing. The caches are empty and temporary. The node starts as ``seg.launch.py`` starts
it: with ``model: auto``, which serves the embedded model until the published weights have arrived.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from clip_seg_ros import resources
from clip_seg_ros.config import FOR_PHRASES
from clip_seg_ros.runtime.chosen import PROVISIONAL
from clip_seg_ros.tools.engine_options import add_engine_options, node_parameters
from clip_seg_ros.tools.measuring import Figures, memory_mib, start_node
from clip_seg_ros.tools.processes import ChildDied, ChildProcesses
from clip_seg_ros.tools.simulation import NoRos, check_ros, environment
from clip_seg_ros.tools.talking import Talk

SIZES = {"vga": (640, 480), "1080p": (1920, 1080)}
"""The sizes (width, height) of the camera's images."""
COMMAND = "segment the red cup"
_RATE_HZ = 10.0
_PEAK = "VmHWM"
_PUBLISHED = FOR_PHRASES[0]


class RehearsalError(Exception):
    """The rehearsal failed; the message says at what."""


def add_parser(subparsers: Any) -> None:
    """Adds ``rehearse`` to the commands of ``clip-seg``."""
    parser = subparsers.add_parser(
        "rehearse",
        help="try out downloading and serving weights of the published size, without the network",
        description="Puts random numbers in the layout of "
        f"{_PUBLISHED} behind a hub on this machine, starts the node with an empty cache as seg.launch.py does, and "
        "measures how it downloads, converts and serves them for a simulated camera at 640x480 and 1080p.",
    )
    parser.add_argument(
        "--seconds", type=float, default=10.0, metavar="S", help="how long to measure each size (default: %(default)g)"
    )
    parser.add_argument(
        "--memory",
        type=float,
        default=6.0,
        metavar="GIB",
        help="the most that the node, and what downloads beside it, may take each (default: %(default)g)",
    )
    parser.add_argument(
        "--timeout", type=float, default=300.0, metavar="S", help="seconds to wait for each step (default: %(default)g)"
    )
    add_engine_options(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help='figures as a list of {"name", "value", "unit"}')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Rehearses and prints the figures; returns 1 if a step fails or takes too much memory."""
    try:
        check_ros("the rehearsal")
        figures = rehearse(args)
    except (RehearsalError, NoRos, ChildDied, OSError) as error:
        print(f"clip-seg rehearse: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if args.json:
        figures.write(args.json)
    return 0


def rehearse(args: argparse.Namespace) -> Figures:
    """Goes through all steps and prints each figure once it is known.

    Raises:
        RehearsalError: A step failed, took too long or took too much memory.
        ChildDied: A process ended.
    """
    # The imports are not at the top, because "--help" needs no torch.
    from clip_seg_ros.tools.local_hub import HubHandler, address, served
    from clip_seg_ros.tools.published_sizes import write_hugging_face
    from clip_seg_ros.zoo.public_weights import PUBLIC_WEIGHTS

    hub = PUBLIC_WEIGHTS[_PUBLISHED].hub
    with tempfile.TemporaryDirectory(prefix="clip_seg_rehearsal_") as name:
        folder = Path(name)
        file = folder / hub.files[0]
        write_hugging_face(file)
        print(f"{_PUBLISHED} of random numbers, {file.stat().st_size / 1e6:.0f} MB, behind a hub on this machine")
        handler = type("Handler", (HubHandler,), {"files": {address(hub.repository, hub.files[0]): file}})
        with served(handler) as url:
            env = _surroundings(folder, url)
            with (
                ChildProcesses(folder, env) as children,
                Talk("the rehearsal", [], env) as talk,
            ):
                return _Rehearsal(folder, children, talk, args).run()


def _surroundings(folder: Path, url: str) -> dict[str, str]:
    """Returns the environment of a user with empty caches, for whom ``url`` is the hub."""
    env = {name: value for name, value in environment().items() if not name.startswith("HF_")}
    env.pop(resources.CACHE_VARIABLE, None)
    return env | {
        "HF_ENDPOINT": url,
        "HF_HOME": str(folder / "hub"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "NO_PROXY": "127.0.0.1",
    }


class _Rehearsal:
    """The steps, with the processes that take part, and the figures."""

    def __init__(self, folder: Path, children: ChildProcesses, talk: Talk, args: argparse.Namespace) -> None:
        self._folder, self._children, self._talk, self._args = folder, children, talk, args
        self._figures = Figures("rehearsal")
        self._helpers_mib: dict[int, float] = {}
        """The peak of each process that the node has started, by its id."""

    def run(self) -> Figures:
        begun_s = time.monotonic()
        parameters = {"download": True, "initial_command": COMMAND, **node_parameters(self._args)}
        node = start_node(self._children, "node", "referring", "referring", parameters)
        self._start_camera("vga")
        self._first(node.pid, _is_answer, "a first answer")
        self._figures.note("start", time.monotonic() - begun_s, "s", "until the embedded model first answered")
        ended = self._first(node.pid, _is_end_of_switch, f"{_PUBLISHED} to serve")
        if ended["state"] != "done":
            raise RehearsalError(ended["message"])
        self._figures.note("switch", time.monotonic() - begun_s, "s", "until the download was converted and served")
        engine = self._engine(node.pid)
        self._figures.note("engine", time.monotonic() - begun_s, "s", f"until its engine was chosen: {engine}")
        for size in SIZES:
            if size != "vga":
                self._children.stop("camera")
                self._start_camera(size)
            self._measure_rate(node.pid, size)
        self._check_memory("node", memory_mib(node.pid, _PEAK), "the node at its peak")
        self._check_memory("helper", max(self._helpers_mib.values(), default=0.0), "what downloads and converts")
        return self._figures

    def _measure_rate(self, node: int, size: str) -> None:
        since_ns, pixels = time.time_ns(), "{}x{}".format(*SIZES[size])
        self._first(node, lambda event: _is_answer(event, since_ns), f"an answer at {pixels}")
        self._figures.note(
            f"{size}.answered", self._rate(node), "1/s", f"answers at {pixels}, of {_RATE_HZ:g} images sent"
        )

    def _start_camera(self, size: str) -> None:
        width, height = SIZES[size]
        scene = {"required": ["red cup"], "rate_hz": _RATE_HZ, "width": width, "height": height}
        start_node(self._children, "camera", "observers.bench_camera", "sim_camera", scene)

    def _first(self, node: int, fits: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Waits for an event; raises RehearsalError if none comes in time."""
        deadline_s = time.monotonic() + self._args.timeout
        while time.monotonic() < deadline_s:
            self._look(node)
            event = self._talk.next(time.monotonic() + 0.2)
            if event is not None:
                if event["event"] == "status":
                    print(f"  {event['state']}: {event['message']}", flush=True)
                if fits(event):
                    return event
        raise RehearsalError(f"waited {self._args.timeout:g} s in vain for {what}")

    def _engine(self, node: int) -> str:
        """Waits until no engine is being measured any more, and returns the one that serves."""
        deadline_s = time.monotonic() + self._args.timeout
        while time.monotonic() < deadline_s:
            self._look(node)
            said = (self._folder / "node.log").read_text(encoding="utf-8", errors="replace")
            engines = re.findall(rf"{_PUBLISHED} is run by (\w+ in \w+)(.*)", said)
            if engines and PROVISIONAL not in engines[-1][1]:
                return engines[-1][0]
            self._talk.next(time.monotonic() + 0.2)
        raise RehearsalError(f"waited {self._args.timeout:g} s in vain for an engine to be chosen")

    def _rate(self, node: int) -> float:
        """Returns the number of answers a second, over as many seconds more as the first answer takes."""
        count, begun_s = 0, time.monotonic()
        until_s = begun_s + self._args.seconds
        while time.monotonic() < until_s or (count == 0 and time.monotonic() < begun_s + self._args.timeout):
            self._look(node)
            event = self._talk.next(time.monotonic() + 0.2)
            count += event is not None and _is_answer(event)
        return count / (time.monotonic() - begun_s)

    def _look(self, node: int) -> None:
        """Notes the memory of the processes that the node has started, and that all processes run."""
        self._children.check()
        for helper in _children_of(node):
            with suppress(OSError):  # it has ended
                self._helpers_mib[helper] = max(self._helpers_mib.get(helper, 0.0), memory_mib(helper, _PEAK))

    def _check_memory(self, name: str, mib: float, what: str) -> None:
        self._figures.note(f"{name}.memory", mib, "MiB", what)
        if mib > self._args.memory * 1024:
            raise RehearsalError(f"{what} took {mib:.0f} MiB, more than --memory {self._args.memory:g} GiB")


def _is_answer(event: dict[str, Any], since_ns: int = 0) -> bool:
    """Returns whether an event is the answer to an image that was taken since then."""
    return event["event"] == "objects" and event["stamp_ns"] >= since_ns


def _is_end_of_switch(event: dict[str, Any]) -> bool:
    return event["event"] == "status" and event["command"] == "use auto" and event["state"] in ("done", "failed")


def _children_of(pid: int) -> list[int]:
    children: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended
            children += map(int, path.read_text(encoding="ascii").split())
    return children
