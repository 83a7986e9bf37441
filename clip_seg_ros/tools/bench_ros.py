# SPDX-License-Identifier: Apache-2.0
"""``clip-seg bench ros``: measures the time that the node adds to its model, between processes over Fast DDS.

There are three processes: a camera plays views that were rendered beforehand, the node ``referring`` answers, and an
observer records when each mask arrives. For every image

    latency = the rest + waiting + model

where latency is the time from the image's stamp to the mask at the observer, waiting is the time until the node has
finished the image before, and model is the time of ``Predictor`` from the image's bytes to probabilities. The node logs
the last two for every image. The rest is the cost of the node: transport of image and mask, conversions, objects and
their positions.
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
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clip_seg_ros import resources
from clip_seg_ros.tools.engine_options import add_engine_options, node_parameters
from clip_seg_ros.tools.processes import ChildDied, ChildProcesses
from clip_seg_ros.tools.simulation import NoRos, check_ros, environment, things_named
from clip_seg_ros.zoo.caution import EmbeddedWeightsWarning

TRANSPORTS = {"shared_memory": "shared memory", "default": "Fast DDS's own"}
"""The transports to measure, with ``config/fastdds_shm.xml`` and without a profile, and their names in the table."""
WARM_UP_S = 2.0
START_S = 180.0
"""The time that the processes may take to start and to render the camera's views."""
# The line that the node logs when a model begins to serve (``nodes/life/model_switch.py``).
_SERVES = re.compile(r"is run by (\S+) in (\S+)")
# The line that the node logs for each image (``nodes/life/health.py``).
_LOGGED = re.compile(
    r"image (\d+): (\S+) ms to arrive, (\S+) ms waiting, (\S+) ms in the model, .* (\d+) images received"
)


class BenchRosError(Exception):
    """A measurement failed; the message is written for the user."""


@dataclass(frozen=True)
class Timing:
    """The times of one image, in milliseconds."""

    latency: float
    """The time from its stamp to its mask in another process."""
    arrival: float
    """The time from its stamp to the node's callback."""
    waiting: float
    """The time from the callback until the worker had finished the image before."""
    model: float
    answered: float
    """The time when its mask arrived, on the clock of the stamps."""
    received: int
    """The number of images that the node had received when it logged this one."""

    @property
    def rest(self) -> float:
        """The time that the node adds: all but the model and the wait for it; it includes the arrival."""
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
    parser.add_argument(
        "--size", type=_size, default=(640, 480), metavar="WxH", help="of the camera's images (default: 640x480)"
    )
    add_engine_options(parser)
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


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{2,4})x(\d{2,4})", text)
    if match is None or not all(16 <= int(side) <= 4096 for side in match.groups()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 1920x1080, with sides of 16 to 4096 pixels")
    return int(match[1]), int(match[2])


def run(args: argparse.Namespace) -> int:
    """Measures both transports, prints a table and writes the requested file; returns the exit code."""
    try:
        if args.rate > 120:
            return _fail(f"--rate must be at most 120, got {args.rate:g}", 2)
        if args.json and (not args.json.parent.is_dir() or args.json.is_dir()):
            return _fail(f"{args.json} cannot be written: name a file in a folder that exists", 2)
        names = things_named(args.command)
        check_ros("this bench")
        # The processes of this command end with it, whatever ends it.
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _interrupt)
        _prepare(args)
        figures = []
        print(
            f"{args.size[0]}x{args.size[1]} at {args.rate:g} Hz for {args.seconds:g} s, {args.model}, "
            f"{args.command!r}, "
            f"{len(os.sched_getaffinity(0))} processor cores\n{_HEAD}",
            flush=True,
        )
        for transport in TRANSPORTS:
            engine, images, sent, seconds = measure(args, names, transport)
            row = summary(images, sent, seconds)
            print(f"{table_line(transport, row)}  {engine.replace(' ', ' in ')}", flush=True)
            row[f"engine.{engine.replace(' ', '_')}"] = (1.0, "serves")
            figures += [
                {"name": f"ros.{transport}.{name}", "value": round(value, 2), "unit": unit}
                for name, (value, unit) in row.items()
            ]
    except ValueError as error:
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


def _prepare(args: argparse.Namespace) -> None:
    """Has the engine chosen and the model converted for the camera's images, which would else happen beside them."""
    # Importing it takes seconds, which a wrong command is spared.
    from clip_seg_ros.pipeline.predictor import Predictor

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmbeddedWeightsWarning)
        predictor = Predictor.from_name(args.model, engine=args.engine, precision=args.precision)
    predictor.engine.prepare(predictor.spec.input.encoder_size(args.size[::-1]))


def measure(args: argparse.Namespace, names: Sequence[str], transport: str) -> tuple[str, list[Timing], int, float]:
    """Runs the three processes with one transport.

    Args:
        args: Arguments of the command.
        names: Names of the objects that the scene must contain.
        transport: Key of ``TRANSPORTS``.

    Returns:
        The engine that served and its precision, such as "openvino bfloat16"; the images whose masks arrived, in the
        order of their stamps; the number of images that the camera sent; and the duration in seconds.

    Raises:
        BenchRosError: The node rejects the command, or the processes give no result in time.
        ChildDied: One of the processes ended.
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
    return served_by(logged), timings(seen["masks_ns"], logged), len(seen["sent_ns"]), args.seconds


def _start_node_and_camera(children: ChildProcesses, args: argparse.Namespace, names: Sequence[str]) -> None:
    config = resources.config_dir()
    node = {"model": args.model, **node_parameters(args)}
    if not args.depth:
        node |= {"depth_topic": "", "camera_info_topic": ""}
    width, height = args.size
    camera = {"required": list(names) or [""], "rate_hz": args.rate, "width": width, "height": height}
    for name, module, file, values, more in (
        ("referring", "referring", "referring", node, ["--log-level", "clip_seg.referring:=debug"]),
        ("bench_camera", "observers.bench_camera", "sim_camera", camera, []),
    ):
        arguments = ["--ros-args", "--params-file", str(config / f"{file}.yaml"), *more]
        for key, value in values.items():
            # A JSON list of texts is a YAML list, too.
            arguments += ["-p", f"{key}:={json.dumps(value)}"]
        children.start(name, f"clip_seg_ros.nodes.{module}", arguments)


def _answer(children: ChildProcesses, stream: Any, patience_s: float) -> dict[str, Any]:
    """Waits for the observer's only line and returns its content."""
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


def served_by(logged: str) -> str:
    """Returns the engine and the precision that the log of a node names, such as "openvino bfloat16"."""
    found = _SERVES.search(logged)
    return f"{found[1]} {found[2]}" if found else "unknown engine"


def timings(masks_ns: Sequence[tuple[int, int]], logged: str) -> list[Timing]:
    """Combines the records of the observer and of the node for each image.

    Args:
        masks_ns: Pair for each mask: the stamp of its image and the time of its arrival.
        logged: Log of the node; images that are missing there are left out.
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
    """Returns name -> value and unit of all figures; without images, only the rates of sent and answered images."""
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
    """Formats one line of the table."""
    value = {name: number for name, (number, _) in row.items()}
    received = f"{value['received']:.1f}" if "received" in value else "?"
    line = f"{TRANSPORTS[transport]:<15}{value['sent']:>7.1f}{received:>9}{value['answered']:>9.1f}"
    if "latency_median" not in value:
        return f"{line}  no mask came: no image reached the node"
    for name in ("latency", "model", "waiting", "rest"):
        line += f"{value[f'{name}_median']:>8.1f}{value[f'{name}_p99']:>8.1f}  "
    return line.rstrip()
