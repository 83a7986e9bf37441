# SPDX-License-Identifier: Apache-2.0
"""``clip-seg record OUT.mcap``: a recording of a rendered table with the truth, as a robot would record its cameras."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from clip_seg_ros.sim.renderer import RendererUnavailable
from clip_seg_ros.sources.bag_messages import RecordingError
from clip_seg_ros.sources.recorded_table import RecordingPlan, write_recording

_DEFAULT = RecordingPlan()


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the ``record`` subcommand."""
    parser = subparsers.add_parser(
        "record",
        help="record cameras over a rendered table with the exact truth, as an MCAP bag",
        description="Renders a table on which objects slide, seen by cameras that move, and writes it as an MCAP bag "
        "that ROS 2 plays and Foxglove opens: colour, depth, camera_info and tf of each camera, and for every image "
        "the true label of each pixel and the true objects. Scenes and shapes are held out: no training sees them. The "
        "same arguments give the same bytes.",
    )
    parser.add_argument("out", type=Path, metavar="OUT.mcap", help="the new file")
    parser.add_argument("--seconds", type=float, default=_DEFAULT.seconds, help="how long (default: %(default)g)")
    parser.add_argument("--cameras", type=int, default=_DEFAULT.cameras, help="how many (default: %(default)s)")
    parser.add_argument(
        "--rate", type=float, default=_DEFAULT.rate_hz, metavar="HZ", help="images a second (default: %(default)g)"
    )
    parser.add_argument(
        "--seed", type=int, default=_DEFAULT.seed, metavar="N", help="which scene, 0..999 (default: %(default)s)"
    )
    parser.add_argument("--size", type=_size, default=_DEFAULT.size, help="of the images (default: 640x480)")
    parser.add_argument("--raw", action="store_true", help="write colours and depth as they are, not as JPEG and PNG")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Writes the recording; returns the exit code."""
    try:
        plan = RecordingPlan(args.seconds, args.cameras, args.rate, args.seed, args.size, args.raw)
    except ValueError as error:
        print(f"clip-seg record: {error}", file=sys.stderr)
        return 2
    try:
        with tqdm(total=plan.moments * plan.cameras, desc="record", unit="image") as bar:
            for done in write_recording(args.out, plan):
                bar.update(done - bar.n)
    except (RecordingError, RendererUnavailable, FileNotFoundError) as error:
        print(f"clip-seg record: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"clip-seg record: stopped; nothing was written to {args.out}", file=sys.stderr)
        return 130
    print(_summary(args.out, plan))
    return 0


def _summary(path: Path, plan: RecordingPlan) -> str:
    topics = [plan.color_topic(camera) for camera in range(1, plan.cameras + 1)]
    phrases = " ".join(f'"{name}"' for name in plan.names)
    topic = f" --topic {topics[0]}" if plan.cameras > 1 else ""
    return (
        f"{path}: {plan.moments / plan.rate_hz:g} s, {plan.moments} images of each camera ({', '.join(topics)}), "
        f"{path.stat().st_size / 1e6:.1f} MB\n"
        f"on the table: {', '.join(plan.names)}\n"
        f"look at it: clip-seg view {path}{topic}\n"
        f"annotate it: clip-seg annotate {path} --prompts {phrases} --out {path.with_suffix('')}"
    )


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"the size of images is given as 640x480, got {text!r}")
    return int(width), int(height)
