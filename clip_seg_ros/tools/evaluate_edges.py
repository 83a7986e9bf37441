# SPDX-License-Identifier: Apache-2.0
"""``clip-seg evaluate --suite edges --data``: what it brings to fit masks to the edges of real pictures."""

from __future__ import annotations

import argparse
import json
from typing import cast

from tqdm import tqdm

from clip_seg_ros.data.catalog import open_dataset
from clip_seg_ros.data.samples import DataError, SemanticDataset, SemanticSample
from clip_seg_ros.evaluation.prefetch import spread
from clip_seg_ros.evaluation.suites.label_edges import label_edges
from clip_seg_ros.tools.data_options import WrongCall, exit_code_of, parse_data
from clip_seg_ros.tools.figures import figure_table

_TAKEN = {"data", "suite", "limit", "json", "device", "engine", "precision", "run", "subcommand"}
"""What the parser always sets, and the options that count here."""


def run_label_edges(args: argparse.Namespace) -> int:
    """Measures, prints the figures and writes the requested file; returns the exit code."""
    return exit_code_of(_run, args)


def _run(args: argparse.Namespace) -> None:
    for name, value in vars(args).items():
        if name not in _TAKEN and value not in (None, False):
            raise WrongCall(f"--{name.replace('_', '-')} does not go with --suite edges --data, which asks no model")
    if args.limit is not None and args.limit < 1:
        raise WrongCall(f"--limit must be at least 1, got {args.limit}")
    # What it yields is looked at in the next line.
    dataset = cast(SemanticDataset, open_dataset(parse_data(args.data)))
    if not len(dataset) or not isinstance(dataset[0], SemanticSample):
        raise DataError(f"{args.data} holds no pictures with a class for each pixel, from whose labels masks are made")
    indices = tqdm(spread(len(dataset), args.limit), desc="images", mininterval=1.0)
    figures = label_edges((dataset[index] for index in indices), dataset.class_names)
    print(figure_table(figures))
    if args.json:
        args.json.write_text(json.dumps([figure.to_dict() for figure in figures], indent=2) + "\n")
