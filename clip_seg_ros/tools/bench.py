# SPDX-License-Identifier: Apache-2.0
"""``clip-seg bench SUBJECT``: times this package.

``models`` compares CLIPSeg with that of transformers on one image and N prompts, as on a robot; for transformers, these
are N copies of the image, as in its own example. Every measurement has a process of its own (``bench_models``).

``pixels`` measures what comes after the model, from logits to objects (``bench_pixels``).

``ros`` measures the time that the node adds to the model, between processes (``bench_ros``).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clip_seg_ros.tools import bench_ros

MAX_PROMPTS = 64
"""The number of different phrases of ``bench_models``."""
TOLERANCE = 1e-3
"""The bound of the difference between the logits of the two sides, whose magnitude is around 10."""


class BenchError(Exception):
    """A measurement failed; the message is written for the user."""


@dataclass(frozen=True)
class Architecture:
    """A CLIPSeg to measure, with random weights."""

    name: str
    size: int
    """The side of the image in pixels."""
    config: Mapping[str, Any]
    """The arguments of transformers' ``CLIPSegConfig``; all others are as published."""


VIT_B16 = Architecture(
    "vit_b16_352", 352, {"vision_config": {"patch_size": 16}, "use_complex_transposed_convolution": True}
)
"""The architecture of the published rd64-refined at its full size."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the ``bench`` subcommand."""
    parser = subparsers.add_parser("bench", help="time the models", description="Measures how fast this package is.")
    subjects = parser.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    models = subjects.add_parser(
        "models",
        help="CLIPSeg against transformers, on the CPU",
        description="Builds CLIPSeg (ViT-B/16, refined, 352 x 352) twice with the same random weights, here and in "
        "transformers, checks that both say the same and times one image with N prompts, single precision, on the CPU.",
    )
    models.add_argument("--against", choices=["transformers"], default="transformers", help="who to compare with")
    models.add_argument("--prompts", type=_counts, default=(1, 8, 16), help="numbers of prompts (default: 1,8,16)")
    models.add_argument("--repeats", type=int, default=11, help="how often each is timed (default: 11)")
    models.add_argument("--threads", type=int, default=0, help="processor threads (default: torch's choice)")
    models.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    models.set_defaults(run=run_models)
    pixels = subjects.add_parser(
        "pixels",
        help="what comes after the model, from logits to objects",
        description="Measures on one thread of the CPU what the nodes do with the answer of a model: bring it to the "
        "size of the image, decide which pixel belongs to what, and find the objects.",
    )
    pixels.add_argument("--only", metavar="NAMES", help="such as vga.prompts_13,1080p.classes_150 (default: all)")
    pixels.add_argument("--repeats", type=int, default=15, help="how often each is timed (default: 15)")
    pixels.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    pixels.set_defaults(run=run_pixels)
    bench_ros.add_arguments(
        subjects.add_parser(
            "ros",
            help="what the node adds to the model, between processes",
            description="Runs a camera, the segmentation node and an observer as processes over Fast DDS, with the "
            "package's shared memory profile and without, and measures from each image's stamp to its mask. Source the "
            "built workspace first.",
        )
    )


def run_models(args: argparse.Namespace) -> int:
    """Measures, prints a table and writes the requested file; returns the exit code."""
    if args.repeats < 1 or args.threads < 0:
        print("clip-seg bench: --repeats must be 1 or more, --threads 0 or more", file=sys.stderr)
        return 2
    if args.json and (not args.json.parent.is_dir() or args.json.is_dir()):
        # This is checked now rather than after minutes of measuring.
        print(f"clip-seg bench: {args.json} cannot be written: name a file in a folder that exists", file=sys.stderr)
        return 2
    if importlib.util.find_spec("transformers") is None:
        print("clip-seg bench: transformers is not installed: pip install transformers", file=sys.stderr)
        return 1
    try:
        figures = compare(VIT_B16, args.prompts, args.repeats, args.threads)
    except BenchError as error:
        print(f"clip-seg bench: {error}", file=sys.stderr)
        return 1
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def run_pixels(args: argparse.Namespace) -> int:
    """Runs ``bench_pixels``; returns the exit code."""
    # It is imported here because it needs torch, which takes seconds to import and which the other subjects do without.
    from clip_seg_ros.tools import bench_pixels

    return bench_pixels.run(args)


def compare(architecture: Architecture, counts: Sequence[int], repeats: int, threads: int) -> list[dict[str, object]]:
    """Times both sides for every number of prompts and prints a table, row by row.

    Args:
        architecture: Architecture to build on both sides.
        counts: Numbers of prompts.
        repeats: Number of timed repetitions, of which the median counts.
        threads: Number of processor threads; 0 for torch's choice.

    Returns:
        The figures, each ``{"name", "value", "unit"}``.

    Raises:
        BenchError: The sides give different answers, or one of them failed.
    """
    figures: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="clip_seg_bench_") as folder:
        _child("prepare", folder, json.dumps(dict(architecture.config)), str(architecture.size))
        for count in counts:
            sides = {
                side: _child(side, folder, str(count), str(repeats), str(threads)) for side in ("transformers", "ours")
            }
            difference = _difference(Path(folder), count)
            row = _figures(sides, difference)
            if not figures:
                print(f"{architecture.name}, {sides['ours']['threads']} threads, median of {repeats}")
                print("prompts  transformers        ours  speed-up  text cached       peak memory  max difference")
            print(_table_line(count, row), flush=True)
            prefix = f"clipseg.{architecture.name}.cpu.prompts_{count}."
            figures += [{"name": prefix + name, "value": value, "unit": unit} for name, (value, unit) in row.items()]
            if not difference < TOLERANCE:
                raise BenchError(f"the logits of the two sides differ by {difference:g}, which is too much")
    return figures


def _figures(sides: Mapping[str, Mapping[str, float]], difference: float) -> dict[str, tuple[float, str]]:
    theirs, ours = sides["transformers"], sides["ours"]
    return {
        "speedup": (round(theirs["seconds"] / ours["seconds"], 3), "x"),
        "speedup_text_cached": (round(theirs["seconds"] / ours["cached_seconds"], 3), "x"),
        "transformers": (round(theirs["seconds"] * 1e3, 1), "ms"),
        "ours": (round(ours["seconds"] * 1e3, 1), "ms"),
        "ours_text_cached": (round(ours["cached_seconds"] * 1e3, 1), "ms"),
        "transformers_peak": (round(theirs["peak_bytes"] / 2**20), "MiB"),
        "ours_peak": (round(ours["peak_bytes"] / 2**20), "MiB"),
        "max_difference": (difference, "logit"),
    }


def _table_line(count: int, row: Mapping[str, tuple[float, str]]) -> str:
    value = {name: number for name, (number, _) in row.items()}
    return (
        f"{count:>7}  {value['transformers']:>9.1f} ms  {value['ours']:>7.1f} ms  {value['speedup']:>6.2f} x  "
        f"{value['ours_text_cached']:>8.1f} ms  {value['transformers_peak']:>5} / {value['ours_peak']:>4} MiB  "
        f"{value['max_difference']:>14.1e}"
    )


def _difference(folder: Path, count: int) -> float:
    theirs, ours = (np.load(folder / f"{side}_{count}.npy") for side in ("transformers", "ours"))
    if theirs.shape != ours.shape:
        raise BenchError(f"the logits of the two sides have the shapes {theirs.shape} and {ours.shape}")
    return float(np.abs(theirs - ours).max())


def _child(*arguments: str) -> dict[str, float]:
    """Runs one step of ``bench_models`` in a fresh process, whose peak memory is its own."""
    command = [sys.executable, "-m", "clip_seg_ros.tools.bench_models", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise BenchError(f"the step {arguments[0]} failed with exit code {done.returncode}: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def _counts(text: str) -> tuple[int, ...]:
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError:
        counts = ()
    if not counts or not all(1 <= count <= MAX_PROMPTS for count in counts):
        raise argparse.ArgumentTypeError(f"numbers from 1 to {MAX_PROMPTS}, separated by commas, are needed")
    return counts
