# SPDX-License-Identifier: Apache-2.0
"""``clip-seg evaluate --annotations --truth``: what ``clip-seg annotate`` wrote against the truth of a recording."""

from __future__ import annotations

import argparse
import json

from tqdm import tqdm

from clip_seg_ros.evaluation.annotations import compare
from clip_seg_ros.tools.data_options import WrongCall, exit_code_of
from clip_seg_ros.tools.figures import figure_table

_TAKEN = {"annotations", "truth", "json", "device", "engine", "precision", "run", "subcommand"}
"""What the parser always sets, and the options that count here."""


def run_annotations(args: argparse.Namespace) -> int:
    """Measures, prints the figures and writes the requested file; returns the exit code."""
    return exit_code_of(_run, args)


def _run(args: argparse.Namespace) -> None:
    if args.annotations is None or args.truth is None:
        raise WrongCall("annotations are compared with the truth of a recording: give --annotations and --truth")
    for name, value in vars(args).items():
        if name not in _TAKEN and value not in (None, False):
            raise WrongCall(f"--{name.replace('_', '-')} does not go with --annotations, which asks no model")
    if args.json and (not args.json.parent.is_dir() or args.json.is_dir()):
        raise WrongCall(f"{args.json} cannot be written: name a file in a folder that exists")
    figures = compare(
        args.annotations, args.truth, lambda items: tqdm(items, desc="compare", unit="image", mininterval=1.0)
    )
    print(figure_table(figures))
    if args.json:
        args.json.write_text(json.dumps([figure.to_dict() for figure in figures], indent=2) + "\n")
