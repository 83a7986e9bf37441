# SPDX-License-Identifier: Apache-2.0
"""``clip-seg bench ros``: what the node adds to the time of its model, between processes over Fast DDS.

A camera plays views that were drawn beforehand, the node ``referring`` answers, and an observer notes when each mask
arrives: three processes. For every image

    latency = the rest + waiting + model

where latency is from the image's stamp to the mask at the observer, waiting is until the node was done with the image
before, and model is ``Predictor`` from the image's bytes to probabilities; the node logs these two for every image.
The rest is what a node around a model costs: the transport of image and mask, conversions, objects, their positions.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clip_seg_ros import resources
from clip_seg_ros.commands.parser import CommandError
from clip_seg_ros.tools.processes import ChildDied, ChildProcesses
from clip_seg_ros.tools.simulation import NoRos, check_ros, environment, things_named

TRANSPORTS = {"shared_memory": "shared memory", "default": "Fast DDS's own"}
"""What is measured, and how the table calls it: ``config/fastdds_shm.xml``, and no profile."""
WARM_UP_S = 2.0
START_S = 180.0
"""How long the processes may take to start and to draw what the camera plays."""
# What the node logs of each image (``nodes/life/health.py``).
_LOGGED = re.compile(
    r"image (\d+): (\S+) ms to arrive, (\S+) ms waiting, (\S+) ms in the model, .* (\d+) images received"
)


class BenchRosError(Exception):
    """A measurement that came to nothing; the message is written for the person at the terminal."""


@dataclass(frozen=True)
class Timing:
    """Where one image's time went, milliseconds."""

    latency: float
    """From its stamp to its mask at another process."""
    arrival: float
    """From its stamp to the node's callback."""
    waiting: float
    """From there until the worker was done with the image before."""
    model: float
    answered: float
    """When, on the clock of the stamps."""
    received: int
    """How many images the node had received by then."""

    @property
    def rest(self) -> float:
        """What the node adds: all but the model and the wait for it. The arrival is a part of it."""
        return self.latency - self.waiting - self.model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``clip-seg bench ros``."""
    parser.add_argument("--command", default="segment the red cup", metavar="TEXT", help="default: %(default)s")
    parser.add_argument("--model", default="clipseg-pocket", metavar="NAME", help="default: %(default)s")
    parser.add_argument(
        "--rate",
        type=_positive,
        default=30.0,
        metavar="HZ",
        help="the camera's images a second, up to 120 (default: %(default)g)",
    )
    parser.add_argument(
        "--seconds",
        type=_positive,
        default=20.0,
        metavar="S",
        help="how long to measure each transport (default: %(default)g)",
    )
    parser.add_argument("--depth", action="store_true", help="a depth camera: the node finds positions too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.set_defaults(run=run)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 3600.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0.1 to 3600")
    return value


def run(args: argparse.Namespace) -> int:
    """Measures both transports, prints a table and writes what was asked for; returns the exit code."""
    try:
        if args.rate > 120:
            return _fail(f"--rate must be at most 120, got {args.rate:g}", 2)
        if args.json and (not args.json.parent.is_dir() or args.json.is_dir()):
            return _fail(f"{args.json} cannot be written: name a file in a folder that exists", 2)
        names = things_named(args.command)
        check_ros("this bench")
        # Whoever ends this, its processes end with it.
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _interrupt)
        figures = []
        print(
            f"640x480 at {args.rate:g} Hz for {args.seconds:g} s, {args.model}, {args.command!r}, "
            f"{len(os.sched_getaffinity(0))} processor cores\n{_HEAD}",
            flush=True,
        )
        for transport in TRANSPORTS:
            row = summary(*measure(args, names, transport))
            print(table_line(transport, row), flush=True)
            figures += [
                {"name": f"ros.{transport}.{name}", "value": round(value, 2), "unit": unit}
                for name, (value, unit) in row.items()
            ]
    except CommandError as error:
        return _fail(str(error), 2)
    except (BenchRosError, NoRos, ChildDied, OSError) as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return 130
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _fail(message: str, code: int) -> int:
    print(f"clip-seg bench: {message}", file=sys.stderr)
    return code


def measure(args: argparse.Namespace, names: Sequence[str], transport: str) -> tuple[list[Timing], int, float]:
    """Runs the three processes.

    Args:
        args: Those of the command.
        names: What the scene is to hold.
        transport: A key of ``TRANSPORTS``.

    Returns:
        The images whose masks arrived, in the order of their stamps; how many the camera sent; and the seconds that
        this took.

    Raises:
        BenchRosError: The node refuses the command, or nothing happens.
        ChildDied: One of the processes.
    """
    with (
        tempfile.TemporaryDirectory(prefix="clip_seg_bench_") as folder,
        ChildProcesses(Path(folder), environment(profile=transport == "shared_memory")) as children,
    ):
        _start_node_and_camera(children, args, names)
        observer = children.start(
            "bench_observer",
            "clip_seg_ros.nodes.observers.bench_observer",
            ["--command", args.command, "--warm-up", str(WARM_UP_S), "--seconds", str(args.seconds)],
            talks=True,
        )
        seen = _answer(children, observer.stdout, START_S + WARM_UP_S + args.seconds)
        logged = (Path(folder) / "referring.log").read_text(encoding="utf-8", errors="replace")
    if not seen["accepted"]:
        raise BenchRosError(f"the command was rejected: {seen['understood']}")
    return timings(seen["masks_ns"], logged), len(seen["sent_ns"]), args.seconds


def _start_node_and_camera(children: ChildProcesses, args: argparse.Namespace, names: Sequence[str]) -> None:
    config = resources.config_dir()
    node = {"model": args.model}
    if not args.depth:
        node |= {"depth_topic": "", "camera_info_topic": ""}
    camera = {"required": list(names) or [""], "rate_hz": args.rate}
    for name, module, file, values, more in (
        ("referring", "referring", "referring", node, ["--log-level", "clip_seg.referring:=debug"]),
        ("bench_camera", "observers.bench_camera", "sim_camera", camera, []),
    ):
        arguments = ["--ros-args", "--params-file", str(config / f"{file}.yaml"), *more]
        for key, value in values.items():
            # A JSON list of texts is a YAML list too.
            arguments += ["-p", f"{key}:={json.dumps(value)}"]
        children.start(name, f"clip_seg_ros.nodes.{module}", arguments)


def _answer(children: ChildProcesses, stream: Any, patience_s: float) -> dict[str, Any]:
    """The observer's one line."""
    deadline_s = time.monotonic() + patience_s
    while not select.select([stream], [], [], 0.1)[0]:
        children.check()
        if time.monotonic() > deadline_s:
            raise BenchRosError(f"waited {patience_s:g} s in vain for the processes to start and to be measured")
    line = stream.readline()
    if not line:
        children.check()
        raise BenchRosError("the observer ended without a word")
    return json.loads(line)


def timings(masks_ns: Sequence[tuple[int, int]], logged: str) -> list[Timing]:
    """Puts together what the observer and the node noted of each image.

    Args:
        masks_ns: A pair for each mask: its image's stamp and when it had arrived.
        logged: The node's log; images that are missing there are left out.
    """
    arrivals_ns, found = dict(masks_ns), []
    for stamp, arrival, waiting, model, received in _LOGGED.findall(logged):
        stamp_ns = int(stamp)
        if stamp_ns in arrivals_ns:
            arrived_ns = arrivals_ns[stamp_ns]
            latency = (arrived_ns - stamp_ns) * 1e-6
            found.append(
                Timing(latency, float(arrival), float(waiting), float(model), arrived_ns * 1e-6, int(received))
            )
    return sorted(found, key=lambda timing: timing.answered - timing.latency)


def summary(images: Sequence[Timing], sent: int, seconds: float) -> dict[str, tuple[float, str]]:
    """Name -> value and unit of all figures; without images, only how many were sent and answered."""
    row = {"sent": (sent / seconds, "1/s"), "answered": (len(images) / seconds, "1/s")}
    if len(images) > 1:
        first, last = images[0], images[-1]
        row["received"] = (1e3 * (last.received - first.received) / (last.answered - first.answered), "1/s")
    if images:
        for name in ("latency", "arrival", "waiting", "model", "rest"):
            values = [getattr(image, name) for image in images]
            for share, suffix in ((50, "median"), (99, "p99")):
                row[f"{name}_{suffix}"] = (float(np.percentile(values, share)), "ms")
    return row


_HEAD = (
    "                images/s                  latency ms        model ms          waiting ms        the rest ms\n"
    "transports        sent received answered  median  99th %    median  99th %    median  99th %    median  99th %"
)


def table_line(transport: str, row: Mapping[str, tuple[float, str]]) -> str:
    """One line of the table."""
    value = {name: number for name, (number, _) in row.items()}
    received = f"{value['received']:.1f}" if "received" in value else "?"
    line = f"{TRANSPORTS[transport]:<15}{value['sent']:>7.1f}{received:>9}{value['answered']:>9.1f}"
    if "latency_median" not in value:
        return f"{line}  no mask came: no image reached the node"
    for name in ("latency", "model", "waiting", "rest"):
        line += f"{value[f'{name}_median']:>8.1f}{value[f'{name}_p99']:>8.1f}  "
    return line.rstrip()
