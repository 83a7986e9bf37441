# SPDX-License-Identifier: Apache-2.0
"""``clip-seg evaluate --protocol alignment``: which preparation of example images agrees best with their names."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable

from tqdm import tqdm

from clip_seg_ros.config import AUTO
from clip_seg_ros.data.catalog import open_dataset
from clip_seg_ros.data.coco import CocoInstances
from clip_seg_ros.evaluation.alignment import evaluate_alignment
from clip_seg_ros.evaluation.pages.report import package_version
from clip_seg_ros.evaluation.prefetch import spread
from clip_seg_ros.models.clipseg.model import CLIPSeg
from clip_seg_ros.runtime.devices import resolve_device
from clip_seg_ros.tools.data_options import WrongCall, exit_code_of, parse_data
from clip_seg_ros.zoo.factory import build_segmenter, full_name

_OTHERS = (
    "--page",
    "--prompt",
    "--text-weight",
    "--threshold",
    "--multi-scale",
    "--names",
    "--background-phrases",
    "--unseen",
    "--antialias",
    "--templates",
    "--corruption",
)
"""Options of the other protocols."""


def run_alignment(args: argparse.Namespace) -> int:
    """Measures, prints the figures and writes the requested file; returns the exit code."""
    return exit_code_of(_run, args)


def _run(args: argparse.Namespace) -> None:
    for option in _OTHERS:
        if getattr(args, option.removeprefix("--").replace("-", "_")) not in (None, False):
            raise WrongCall(f"{option} does not go with --protocol alignment")
    if (args.engine, args.precision) != ("eager", "float32"):
        raise WrongCall(
            "--protocol alignment compares inside the model: only --engine eager --precision float32 does that"
        )
    name = args.model or full_name(AUTO, args.weights)
    dataset = open_dataset(parse_data(args.data))
    if not isinstance(dataset, CocoInstances):
        raise WrongCall("--protocol alignment needs objects with masks: --data coco:ROOT:SPLIT:task=instances")
    model = build_segmenter(name, args.weights)
    if not isinstance(model, CLIPSeg):
        raise WrongCall(f"--protocol alignment compares example images with words, and {name} is no CLIPSeg")
    model = model.eval().to(resolve_device(args.device))
    indices = spread(len(dataset), args.limit)

    def progress(samples: Iterable) -> Iterable:
        return tqdm(samples, desc="alignment", total=len(indices), mininterval=1.0)

    figures = evaluate_alignment(model, dataset, indices, progress=progress)
    print("\n".join(f"{figure.name:<40} {figure.value:>8.4f}  {figure.unit}" for figure in figures))
    if args.json:
        run = {"version": package_version(), "model": name, "data": args.data, "samples": len(indices)}
        content = {"run": run, "figures": [figure.to_dict() for figure in figures]}
        args.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
