# SPDX-License-Identifier: Apache-2.0
"""``clip-seg demo``: runs the simulated camera and the ``referring`` node, gives a command and evaluates the answer."""

from __future__ import annotations

import argparse
import json
import queue
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clip_seg_ros import resources
from clip_seg_ros.commands.parser import CommandError, parse_command
from clip_seg_ros.config import FOR_PHRASES
from clip_seg_ros.tools import demo_report
from clip_seg_ros.tools.engine_options import add_engine_options, node_parameters
from clip_seg_ros.tools.processes import ChildDied, ChildProcesses
from clip_seg_ros.tools.simulation import NoRos, check_ros, environment, start_web_view, things_named, web_address
from clip_seg_ros.viewer.needed import missing_package


class DemoError(Exception):
    """The demo cannot go on; the message tells the user why."""


def add_parser(subparsers: Any) -> None:
    """Adds ``demo`` to the commands of ``clip-seg``."""
    parser = subparsers.add_parser(
        "demo",
        help="watch the simulated robot camera find what you name",
        description="Starts a simulated robot camera and the segmentation node, gives a command, and compares the "
        "answer with the ground truth. Runs on until 'quit' or Ctrl-C and takes further commands from the terminal.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("--command", default="segment the red cup", metavar="TEXT", help="default: %(default)s")
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=_natural, default=0, help="which scene; it holds what the command names")
    seeds.add_argument("--seeds", type=_seed_range, metavar="A-B", help="many scenes, summed up")
    parser.add_argument("--absent", action="store_true", help="scenes that do not hold what the command names")
    parser.add_argument("--once", action="store_true", help="stop after the first answer")
    parser.add_argument("--no-web", action="store_true", help="without the view in the browser")
    add_engine_options(parser)
    parser.add_argument(
        "--overlay",
        type=Path,
        default=Path("clip_seg_demo.png"),
        metavar="FILE",
        help="where the picture goes (default: %(default)s)",
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the answer as JSON (--seeds: a list)")
    parser.add_argument("--json", type=Path, metavar="FILE", help='figures as a list of {"name", "value", "unit"}')
    parser.add_argument(
        "--timeout",
        type=float,
        default=120.0,
        metavar="S",
        help="seconds to wait for the start and for each answer (default: %(default)g)",
    )


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number >= 0")
    return int(text)


def _seed_range(text: str) -> range:
    first, _, last = text.partition("-")
    if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a range such as 0-19")
    return range(int(first), int(last) + 1)


def run(args: argparse.Namespace) -> int:
    """Runs the demo; returns 0, or 1 after a wrong answer, a time-out or a dead process, or 2 for a wrong command."""
    # The processes of the demo end with it, whatever ends it.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        names = things_named(args.command)
        check_ros("the demo")
        with (
            tempfile.TemporaryDirectory(prefix="clip_seg_demo_") as log_dir,
            ChildProcesses(Path(log_dir), environment()) as children,
        ):
            session = _Session(children, args.timeout, node_parameters(args))
            print(_other_terminal(children.env["ROS_DOMAIN_ID"]))
            if args.seeds is not None:
                return _run_seeds(session, args, names)
            return _run_one(session, args, names, Path(log_dir))
    except CommandError as error:
        return _fail(str(error), 2)
    except (DemoError, NoRos, ChildDied, OSError) as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return 130 if args.once or args.seeds is not None else 0


def _other_terminal(domain: str) -> str:
    """Returns what to type in another terminal, with commands that this machine has."""
    lines = [
        "In another terminal, in this environment:",
        f"  ROS_DOMAIN_ID={domain} clip-seg watch",
        f'  ROS_DOMAIN_ID={domain} clip-seg say "find the blue box"',
    ]
    if shutil.which("rviz2"):
        lines.append(f"  ROS_DOMAIN_ID={domain} rviz2 -d {resources.share_dir() / 'rviz' / 'seg.rviz'}")
    return "\n".join(lines)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _fail(message: str, code: int) -> int:
    print(f"clip-seg demo: {message}", file=sys.stderr)
    return code


class _Session:
    """The processes of the demo, and requests to the observer."""

    def __init__(self, children: ChildProcesses, timeout_s: float, parameters: dict[str, str]) -> None:
        self._children, self._parameters = children, parameters
        self._timeout_s = timeout_s
        self._lines: queue.Queue[str] = queue.Queue()

    def start(self, scene: dict[str, Any], shows: bool = False) -> None:
        """Starts camera, node and observer, and the view in the browser if one is wanted and its packages are there.

        It returns when camera, node and observer have discovered each other.
        """
        if shows and not missing_package():
            start_web_view(self._children)
        config = resources.config_dir()
        arguments = ["--ros-args", "--params-file", str(config / "sim_camera.yaml")]
        for name, value in scene.items():
            # A JSON list of texts is a YAML list, too.
            arguments += ["-p", f"{name}:={json.dumps(value or [''] if isinstance(value, list) else value)}"]
        of_node = [word for name, value in self._parameters.items() for word in ("-p", f"{name}:={value}")]
        self._children.start(
            "referring",
            "clip_seg_ros.nodes.referring",
            # It was made for the simulated table, whatever else was downloaded.
            [
                "--ros-args",
                "--params-file",
                str(config / "referring.yaml"),
                "-p",
                f"model:={FOR_PHRASES[-1]}",
                *of_node,
            ],
        )
        self._children.start("sim_camera", "clip_seg_ros.nodes.sim_camera", arguments)
        self._observer = self._children.start("demo_observer", "clip_seg_ros.nodes.observers.demo_observer", talks=True)
        threading.Thread(target=self._read, args=(self._observer.stdout,), daemon=True).start()
        self._reply("the processes to start")

    def tell_address(self, log_dir: Path) -> None:
        """Prints the address of the view in the browser, which was started; without its packages, how to get them."""
        if missing := missing_package():
            print(missing)
            return
        address = web_address(self._children, log_dir, self._timeout_s)
        if address is None:
            raise DemoError(f"waited {self._timeout_s:g} s in vain for the view in the browser; --no-web goes without")
        print(f"In the browser: {address}", flush=True)

    def ask(self, command: str, scene: dict[str, Any] | None = None, overlay: Path | None = None) -> dict[str, Any]:
        """Gives a command, in a new scene if one is given, and returns the observer's measurements."""
        request = {"command": command, "scene": scene, "overlay": str(overlay.absolute()) if overlay else None}
        self._children.check()
        self._observer.stdin.write(json.dumps(request) + "\n")
        self._observer.stdin.flush()
        reply = self._reply(f"an answer to {command!r}")
        if "error" in reply:
            raise DemoError(reply["error"])
        return reply

    def check(self) -> None:
        """Raises ``ChildDied`` if a process has ended."""
        self._children.check()

    def _read(self, stream: Any) -> None:
        for line in stream:
            self._lines.put(line)

    def _reply(self, awaited: str) -> dict[str, Any]:
        deadline = time.monotonic() + self._timeout_s
        while True:
            # The check comes first: if one has ended, an answer is from another program in the same ROS domain.
            self._children.check()
            try:
                return json.loads(self._lines.get(timeout=0.1))
            except queue.Empty:
                pass
            if time.monotonic() > deadline:
                raise DemoError(f"waited {self._timeout_s:g} s in vain for {awaited}; --timeout waits longer")


def _scene(seed: int, names: Sequence[str], absent: bool) -> dict[str, Any]:
    return {"seed": seed, "required": [] if absent else list(names), "forbidden": list(names) if absent else []}


def _run_one(session: _Session, args: argparse.Namespace, names: Sequence[str], log_dir: Path) -> int:
    print(f"Starting the camera and the segmentation node; first command: {args.command!r}", flush=True)
    shows = not (args.once or args.no_web)
    session.start(_scene(args.seed, names, args.absent), shows)
    if shows:
        session.tell_address(log_dir)
    reply = session.ask(args.command, overlay=args.overlay)
    if not reply["accepted"]:
        raise DemoError(f"the command was rejected: {reply['understood']}")
    print(f"Scene {args.seed} holds: {', '.join(reply['scene'])}")
    _show(reply, args.overlay)
    report = demo_report.report(args.command, args.seed, reply)
    _write(args.report, report)
    _write(args.json, demo_report.figures([report]))
    right = demo_report.is_right(reply)
    if args.once:
        return 0 if right else _fail(f"the answer is wrong: {reply['message']}", 1)
    _converse(session, args.overlay)
    return 0


def _run_seeds(session: _Session, args: argparse.Namespace, names: Sequence[str]) -> int:
    print(f"Scenes {args.seeds[0]} to {args.seeds[-1]}, each asked: {args.command!r}", flush=True)
    scenes = [_scene(seed, names, args.absent) for seed in args.seeds]
    session.start(scenes[0])
    reports = []
    for scene in scenes:
        reply = session.ask(args.command, scene)
        if not reply["accepted"]:
            raise DemoError(f"the command was rejected: {reply['understood']}")
        reports.append(demo_report.report(args.command, scene["seed"], reply))
        print(f"\nScene {scene['seed']}, {reply['latency_ms']:.0f} ms\n{demo_report.table(reply)}", flush=True)
    figures = demo_report.figures(reports)
    print()
    for figure in figures:
        print(f"{figure['name']}: {figure['value']} {figure['unit']}")
    _write(args.report, reports)
    _write(args.json, figures)
    return 0


def _show(reply: dict[str, Any], overlay: Path) -> None:
    print(reply["understood"])
    print(f"{reply['message']} ({reply['latency_ms']:.0f} ms from image to mask)")
    print(demo_report.table(reply))
    print(f"Picture: {overlay}", flush=True)


def _type_into(typed: queue.Queue[str]) -> None:
    for line in sys.stdin:
        typed.put(line)


def _converse(session: _Session, overlay: Path) -> None:
    """Accepts further commands from the terminal until "quit" or Ctrl-C."""
    typed: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_type_into, args=(typed,), daemon=True).start()
    print('\nType another command, "help" or "quit":', flush=True)
    while True:
        try:
            command = typed.get(timeout=0.2).strip()
        except queue.Empty:
            session.check()
            continue
        if not command:
            continue
        if _ends(command):
            return
        reply = session.ask(command, overlay=overlay)
        if reply.get("measured"):
            _show(reply, overlay)
        else:
            print("\n".join(filter(None, (reply["understood"], reply.get("message")))), flush=True)


def _ends(command: str) -> bool:
    try:
        return parse_command(command).verb == "quit"
    except CommandError:  # the node reports what is wrong
        return False


def _write(path: Path | None, value: Any) -> None:
    if path is not None:
        path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
