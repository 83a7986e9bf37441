"""``clip-seg evaluate --suite embedded``: measures the embedded weights on held-out scenes."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tqdm import tqdm

from clip_seg_ros.data import tabletop
from clip_seg_ros.evaluation.embedded import evaluate_embedded, summarise
from clip_seg_ros.evaluation.pictures import answer_grid, write_picture
from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.sim.renderer import RendererUnavailable


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the ``evaluate`` subcommand."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure the embedded weights on held-out scenes",
        description="Renders scenes that training never saw, asks for what is there and for what is not, "
        "and prints the figures.",
    )
    parser.add_argument("--suite", choices=["embedded"], default="embedded", help="what to measure")
    parser.add_argument("--scenes", type=int, default=500, help="how many of the 500 held-out scenes (default: all)")
    parser.add_argument("--weights", type=Path, help="folder of the weights (default: the shipped ones)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threshold", type=float, default=0.5, help="probability above which a pixel counts, 0..1")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--pictures", type=Path, metavar="FILE", help="write random and worst answers as a PNG")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measures, prints a table and writes what was asked for; returns the exit code."""
    available = len(tabletop.TEST_SEEDS)
    if not 1 <= args.scenes <= available:
        print(f"clip-seg evaluate: --scenes must lie in 1..{available}, got {args.scenes}", file=sys.stderr)
        return 2
    for path in filter(None, (args.json, args.pictures)):
        # Now, and not after minutes of measuring.
        if not path.parent.is_dir() or path.is_dir():
            print(f"clip-seg evaluate: {path} cannot be written: name a file in a folder that exists", file=sys.stderr)
            return 2
    try:
        predictor = Predictor.from_name("clipseg-pocket", args.device, args.weights)
        seeds = tabletop.TEST_SEEDS[: args.scenes]
        questions = evaluate_embedded(
            predictor, seeds, args.threshold, lambda items: tqdm(items, desc="scenes", mininterval=1.0)
        )
    except (WeightsError, RendererUnavailable, ValueError) as error:
        print(f"clip-seg evaluate: {error}", file=sys.stderr)
        return 1
    figures = summarise(questions)
    for figure in figures:
        print(f"{figure['name']:<48} {figure['value']:>9}  {figure['unit']}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")
    if args.pictures:
        write_picture(args.pictures, answer_grid(predictor, questions, args.threshold))
    return 0
