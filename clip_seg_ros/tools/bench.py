# SPDX-License-Identifier: Apache-2.0
"""``clip-seg bench SUBJECT``: times this package.

``models`` compares CLIPSeg with that of transformers on one image and N prompts, as on a robot; for transformers, these
are N copies of the image, as in its own example. All engines of this machine are timed in turns, each in a process of
its own (``bench_compare``). With ``--layouts published`` they are timed on the four models at their published sizes.

``gpu`` times the four models on a CUDA device (``bench_gpu``).

``pixels`` measures what comes after the model, from logits to objects (``bench_pixels``).

``ros`` measures the time that the node adds to the model, between processes (``bench_ros``).

``web`` measures what the view in the browser costs, and how soon a picture is on the screen (``bench_web``).

``annotate`` measures how fast recordings are annotated, with Ray and without (``bench_annotate``).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from clip_seg_ros.config import ENGINE_NAMES, PRECISION_NAMES
from clip_seg_ros.tools import bench_ros, bench_web
from clip_seg_ros.tools.engine_options import EXACT

MAX_PROMPTS = 64
"""The number of different phrases of ``bench_models``."""
ENGINES = (EXACT, "eager_bfloat16", "openvino_float32", "openvino_bfloat16", "onnxruntime_float32")
"""The engines with their precisions that are timed on the CPU unless others are named."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the ``bench`` subcommand."""
    parser = subparsers.add_parser("bench", help="time the models", description="Measures how fast this package is.")
    subjects = parser.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    _add_models(subjects)
    _add_gpu(subjects)
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
    bench_web.add_arguments(
        subjects.add_parser(
            "web",
            help="what the view in the browser costs, and how soon a picture is on the screen",
            description="Runs a camera, the segmentation node and the view as processes over Fast DDS, with no viewer, "
            f"one and {bench_web.MANY}, in turns, and with Chromium where it is installed.",
        )
    )
    _add_annotate(subjects)


def _add_annotate(subjects: argparse._SubParsersAction) -> None:
    from clip_seg_ros.tools import bench_annotate

    bench_annotate.add_arguments(
        subjects.add_parser(
            "annotate",
            help="how fast recordings are annotated, by one worker and two, with Ray and without",
            description="Annotates a drawn video with 1 and 2 worker processes and with 1 and 2 workers of Ray, in "
            "turns, and one that is ten times as long. With --plan, calculates 1,000 hours on 100 workers instead.",
        )
    )


def _add_models(subjects: argparse._SubParsersAction) -> None:
    parser = subjects.add_parser(
        "models",
        help="CLIPSeg against transformers, on the CPU, and the engines against each other",
        description="Builds CLIPSeg (ViT-B/16, refined, 352 x 352) with the same random weights in transformers and in "
        "every engine of this package, checks that they say the same, and times one image with N prompts in turns.",
    )
    parser.add_argument("--against", choices=["transformers"], default="transformers", help="who to compare with")
    parser.add_argument(
        "--layouts",
        choices=["published"],
        help="time the engines on the four models at their published sizes, with random numbers, without anybody else",
    )
    parser.add_argument(
        "--engines",
        type=_engines,
        default=ENGINES,
        metavar="NAMES",
        help=f"engines with precisions beside {EXACT} (default: {','.join(ENGINES[1:])})",
    )
    parser.add_argument("--prompts", type=_counts, default=(1, 8, 16), help="numbers of prompts (default: 1,8,16)")
    parser.add_argument("--repeats", type=int, default=11, help="how often each is timed (default: 11)")
    parser.add_argument("--threads", type=int, default=0, help="processor threads (default: torch's choice)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.set_defaults(run=run_models)


def _add_gpu(subjects: argparse._SubParsersAction) -> None:
    parser = subjects.add_parser(
        "gpu",
        help="the four models on a CUDA device",
        description="Times the four models at their published sizes, with random numbers, on a CUDA device: eager in "
        "float32 and float16, and CUDA graphs in float16, with 1 and 13 prompts, for images of 640x480 and 1920x1080. "
        "It ends by itself after --minutes.",
    )
    parser.add_argument("--device", default="cuda", help="cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=30, help="how often each is timed (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=8.0, help="the longest it takes (default: %(default)g)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON, anew after every row")
    parser.set_defaults(run=run_gpu)


# The modules below need torch, which takes seconds to import and which the other subjects do without.


def run_models(args: argparse.Namespace) -> int:
    """Runs ``bench_compare``; returns the exit code."""
    from clip_seg_ros.tools import bench_compare

    return bench_compare.run(args)


def run_gpu(args: argparse.Namespace) -> int:
    """Runs ``bench_gpu``; returns the exit code."""
    from clip_seg_ros.tools import bench_gpu

    return bench_gpu.run(args)


def run_pixels(args: argparse.Namespace) -> int:
    """Runs ``bench_pixels``; returns the exit code."""
    from clip_seg_ros.tools import bench_pixels

    return bench_pixels.run(args)


def _engines(text: str) -> tuple[str, ...]:
    engines = tuple(filter(None, text.split(",")))
    known = [f"{engine}_{precision}" for engine in ENGINE_NAMES[1:] for precision in PRECISION_NAMES[1:]]
    for engine in engines:
        if engine not in known:
            raise argparse.ArgumentTypeError(f"{engine} is no engine with its precision, such as openvino_bfloat16")
    return (EXACT, *(engine for engine in engines if engine != EXACT))


def _counts(text: str) -> tuple[int, ...]:
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError:
        counts = ()
    if not counts or not all(1 <= count <= MAX_PROMPTS for count in counts):
        raise argparse.ArgumentTypeError(f"numbers from 1 to {MAX_PROMPTS}, separated by commas, are needed")
    return counts
