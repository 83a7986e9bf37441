# SPDX-License-Identifier: Apache-2.0
"""``clip-seg bench web``: what the view in the browser costs the robot, and how soon a picture is on the screen.

A camera, the node ``referring`` and the node ``web_view`` run as processes over Fast DDS. A viewer without a browser
takes pictures as the page does, as if its browser ran on another machine. The time to the screen is measured with
Chromium on this machine, where it is installed with the package playwright, and so takes its share of the processor.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from clip_seg_ros.tools.measuring import Figures, memory_mib, start_node
from clip_seg_ros.tools.processes import ChildDied, ChildProcesses
from clip_seg_ros.tools.simulation import NoRos, check_ros, environment
from clip_seg_ros.tools.talking import Talk

COMMAND, NAMESPACE = "segment the red cup", "/clip_seg"
MANY = 5
"""The number of viewers of which it is measured what several cost."""
_SETTLE_S = 3.0
_PATIENCE_S = 120.0
_CHROMIUM_ARGUMENTS = ["--no-sandbox"]


class BenchError(Exception):
    """Something could not be measured; the message says what."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``bench web``."""
    parser.add_argument(
        "--seconds", type=float, default=10.0, metavar="S", help="how long each turn is (default: %(default)g)"
    )
    parser.add_argument(
        "--turns", type=int, default=3, metavar="N", help="number of turns; 0: no rates (default: %(default)s)"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=0.0,
        metavar="MIN",
        help="watch the memory of web_view for so long, with one viewer (default: not at all)",
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=30.0,
        metavar="HZ",
        help="images a second while it is measured what viewers cost (default: %(default)g)",
    )
    parser.add_argument(
        "--screen-rate",
        type=float,
        default=10.0,
        metavar="HZ",
        help="images a second while the time to the screen and the memory are measured (default: %(default)g)",
    )
    parser.add_argument("--no-browser", action="store_true", help="measure without Chromium")
    parser.add_argument("--json", type=Path, metavar="FILE", help='figures as a list of {"name", "value", "unit"}')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measures and prints each figure once it is known; returns the exit code."""
    try:
        check_ros("bench web")
        figures = measure(args)
    except (BenchError, NoRos, ChildDied, ModuleNotFoundError, OSError) as error:
        print(f"clip-seg bench web: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if args.json:
        figures.write(args.json)
    return 0


def measure(args: argparse.Namespace) -> Figures:
    """Returns all figures.

    Raises:
        BenchError: A step took too long.
        ChildDied: A process ended.
        ModuleNotFoundError: websockets is not installed.
    """
    figures = Figures("web")
    with tempfile.TemporaryDirectory(prefix="clip_seg_bench_web_") as folder, ExitStack() as stack:
        if args.turns > 0:
            robot = stack.enter_context(running(Path(folder), args.rate))
            _measure_rates(robot, args.turns, args.seconds, figures.note)
    if args.no_browser and args.minutes <= 0:
        return figures
    with tempfile.TemporaryDirectory(prefix="clip_seg_bench_web_") as folder, ExitStack() as stack:
        robot = stack.enter_context(running(Path(folder), args.screen_rate))
        if not args.no_browser:
            _measure_screen(robot, max(1, args.turns) * args.seconds, figures.note)
        if args.minutes > 0:
            _watch_memory(robot, 60 * args.minutes, figures.note)
    return figures


@dataclass
class _Robot:
    """The running processes."""

    children: ChildProcesses
    talk: Talk
    address: str
    web_pid: int

    def answers(self, seconds: float) -> float:
        """Returns the answers of the node a second."""
        self.talk.arrived()
        begun_s = time.monotonic()
        time.sleep(seconds)
        count = _answers(self.talk.arrived())
        self.children.check()
        return count / (time.monotonic() - begun_s)


@contextmanager
def running(folder: Path, rate_hz: float) -> Iterator[_Robot]:
    """Runs camera, node and view, with the red cup asked for, until the block is left."""
    with ChildProcesses(folder, environment()) as children, Talk("bench web", [], children.env) as talk:
        camera = {"required": ["red cup", "blue box"], "rate_hz": rate_hz}
        start_node(children, "camera", "observers.bench_camera", "sim_camera", camera, "/")
        start_node(children, "node", "referring", "referring", {"initial_command": COMMAND}, NAMESPACE)
        web = start_node(children, "web", "web_view", "web_view", {"port": 0}, NAMESPACE)
        _first(children, lambda: (event := talk.next(time.monotonic() + 0.2)) and event["event"] == "objects", "answer")
        # Engines are measured beside what is answered at first.
        log = folder / "node.log"
        _first(children, lambda: " is run by " in log.read_text(encoding="utf-8", errors="replace"), "engine")
        told = _first(
            children,
            lambda: re.search(r"http://\S+", (folder / "web.log").read_text(encoding="utf-8", errors="replace")),
            "address of the view",
        )
        yield _Robot(children, talk, told[0], web.pid)


def _first(children: ChildProcesses, happened: Callable[[], Any], what: str) -> Any:
    deadline_s = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline_s:
        children.check()
        if found := happened():
            return found
        time.sleep(0.02)
    raise BenchError(f"waited {_PATIENCE_S:g} s in vain for the first {what}")


def _answers(events: list[dict[str, Any]]) -> int:
    return sum(event["event"] == "objects" for event in events)


class PlainViewer:
    """Takes pictures on a thread of its own, as the page does, and counts them."""

    def __init__(self, address: str) -> None:
        from websockets.sync.client import connect

        parts = urlsplit(address)
        self._socket = connect(f"ws://{parts.netloc}/view?{parts.query}", max_size=None)
        look = {"ask": "look", "camera": "", "layer": "overlay", "space": False, "paused": False, "width_px": 640}
        self._socket.send(json.dumps(look))
        self.pictures = 0
        self.bytes = 0
        self._thread = threading.Thread(target=self._take, name="viewer", daemon=True)
        self._thread.start()

    def __enter__(self) -> PlainViewer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._socket.close()
        self._thread.join()

    def _take(self) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            for message in self._socket:
                if isinstance(message, bytes):
                    header = json.loads(message[4 : 4 + int.from_bytes(message[:4], "big")])
                    self._socket.send(json.dumps({"ask": "drawn", "number": header["number"]}))
                    self.pictures += 1
                    self.bytes += len(message)
        except ConnectionClosed:
            pass


def _measure_rates(robot: _Robot, turns: int, seconds: float, note: Callable[..., None]) -> None:
    """Measures the node's rate with nobody, one and several viewers, in turns."""
    found: dict[int, list[float]] = {0: [], 1: [], MANY: []}
    seen: list[float] = []
    busy: list[float] = []
    for viewers in itertools.chain(*itertools.repeat((0, 1, MANY), turns)):
        with ExitStack() as stack:
            those = [stack.enter_context(PlainViewer(robot.address)) for _ in range(viewers)]
            time.sleep(_SETTLE_S)
            before, busy_s = [viewer.pictures for viewer in those], _busy_s(robot.web_pid)
            found[viewers].append(robot.answers(seconds))
            if viewers == MANY:
                seen.append(min(viewer.pictures - count for viewer, count in zip(those, before, strict=True)) / seconds)
            if viewers == 1:
                busy.append((_busy_s(robot.web_pid) - busy_s) / seconds)
                size = those[0].bytes / max(1, those[0].pictures)
        # What the view subscribed to, it gives up after two seconds.
        time.sleep(_SETTLE_S)
    alone, one, many = (statistics.median(found[viewers]) for viewers in found)
    note("rate.without", alone, "1/s", "answers of the node, nobody looks")
    note("rate.one_viewer", one, "1/s", "answers of the node, one looks")
    note("rate.kept", 100 * one / alone, "%", "of the node's rate is kept with one viewer")
    note(f"rate.{MANY}_viewers", many, "1/s", f"answers of the node, {MANY} look")
    note(f"rate.{MANY}_viewers_kept", 100 * many / alone, "%", f"of the node's rate is kept with {MANY} viewers")
    note(f"pictures.{MANY}_viewers", statistics.median(seen), "1/s", f"pictures for the slowest of {MANY} viewers")
    note("cpu.one_viewer", 100 * statistics.median(busy), "%", "of a core that web_view takes for one viewer")
    note("picture", size / 1e3, "kB", "a picture of 640x480")


def _measure_screen(robot: _Robot, seconds: float, note: Callable[..., None]) -> None:
    """Measures with a browser on this machine, from the image's arrival to the picture on the screen."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        print("the time to the screen is not measured: the package playwright is not installed", file=sys.stderr)
        return
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        print("the time to the screen is not measured: there is no Chromium here", file=sys.stderr)
        return
    times_ms: list[float] = []

    def take(message: Any) -> None:
        if isinstance(message, bytes):
            header = json.loads(message[4 : 4 + int.from_bytes(message[:4], "big")])
            if header["to_screen_ms"] is not None:
                times_ms.append(header["to_screen_ms"])

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_CHROMIUM_ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.on("websocket", lambda socket: socket.on("framereceived", take))
        page.goto(robot.address)
        page.wait_for_selector("#waiting", state="hidden")
        page.wait_for_timeout(1e3 * _SETTLE_S)
        times_ms.clear()
        robot.talk.arrived()
        begun_s = time.monotonic()
        page.wait_for_timeout(1e3 * seconds)
        count, taken_s = _answers(robot.talk.arrived()), time.monotonic() - begun_s
        page.fill("#command", "segment the blue box")
        begun_s = time.monotonic()
        page.press("#command", "Enter")
        page.locator("#things tr", has_text="blue box").first.wait_for()
        to_mask_s = time.monotonic() - begun_s
        browser.close()
    if not times_ms:
        raise BenchError("no picture came to the screen of Chromium")
    note("to_screen.median", statistics.median(times_ms), "ms", "until a picture is on the screen, median")
    note("to_screen.99", statistics.quantiles(times_ms, n=100)[98], "ms", "until a picture is on the screen, 99 %")
    note("screen.pictures", len(times_ms) / taken_s, "1/s", "pictures on the screen")
    note("screen.answers", count / taken_s, "1/s", "answers of the node, with Chromium on this machine")
    note("command_to_mask", 1e3 * to_mask_s, "ms", "from a command to its object in the list")


def _watch_memory(robot: _Robot, seconds: float, note: Callable[..., None]) -> None:
    """Watches how far the memory of the view strays, after a tenth of the time."""
    # Its own pages: those of files and of what it shares come and go as the kernel likes.
    samples: list[float] = []
    with PlainViewer(robot.address) as viewer:
        time.sleep(seconds / 10)
        begun_s, before = time.monotonic(), viewer.pictures
        while time.monotonic() < begun_s + seconds:
            time.sleep(1.0)
            robot.talk.arrived()
            robot.children.check()
            samples.append(memory_mib(robot.web_pid, "RssAnon"))
        rate = (viewer.pictures - before) / (time.monotonic() - begun_s)
    middle = statistics.median(samples)
    # Within a few seconds it goes up and down with the pictures on their way, and what they took is given back.
    minutes = [statistics.median(part) for part in _by_minutes(samples)]
    note("memory", memory_mib(robot.web_pid, "VmRSS"), "MiB", f"memory of web_view after {seconds / 60:g} minutes")
    note("memory.own", middle, "MiB", "of it are its own, median")
    note("memory.most", max(samples), "MiB", "the most of its own")
    note(
        "memory.stray", 100 * (max(minutes) - min(minutes)) / middle, "%", "from the least to the most minute's median"
    )
    note("memory.pictures", rate, "1/s", "pictures meanwhile")


def _by_minutes(samples: Sequence[float]) -> list[Sequence[float]]:
    """Cuts samples of every second into whole minutes; a shorter rest goes to the last one."""
    count = max(1, len(samples) // 60)
    return [samples[60 * index : 60 * (index + 1) if index < count - 1 else None] for index in range(count)]


def _busy_s(pid: int) -> float:
    """Returns the processor time that a process has taken, in seconds."""
    # Its name, in brackets, may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
