# SPDX-License-Identifier: Apache-2.0
"""``clip-seg bench models``: CLIPSeg against transformers, and the four models at their published sizes, by engine."""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clip_seg_ros.runtime.agreement import LEAST_MEAN_IOU
from clip_seg_ros.tools.bench_models import TRANSFORMERS, Request
from clip_seg_ros.tools.bench_turns import BenchError, Measured, difference, in_turns, mask_iou
from clip_seg_ros.tools.engine_options import EXACT
from clip_seg_ros.tools.published_sizes import LAYOUTS

TOLERANCE = 1e-3
"""The bound of the difference between the logits of the two sides, whose magnitude is around 10."""


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


def run(args: argparse.Namespace) -> int:
    """Measures, prints tables and writes the requested file; returns the exit code."""
    if args.repeats < 1 or args.threads < 0:
        return _fail("--repeats must be 1 or more, --threads 0 or more", 2)
    if args.json and (not args.json.parent.is_dir() or args.json.is_dir()):
        # This is checked now rather than after minutes of measuring.
        return _fail(f"{args.json} cannot be written: name a file in a folder that exists", 2)
    if not args.layouts and importlib.util.find_spec("transformers") is None:
        return _fail("transformers is not installed: pip install transformers", 1)
    try:
        if args.layouts:
            figures = compare_layouts(args.engines, args.repeats, args.threads)
        else:
            figures = compare(VIT_B16, args.engines, args.prompts, args.repeats, args.threads)
    except BenchError as error:
        return _fail(str(error), 1)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def _fail(message: str, code: int) -> int:
    print(f"clip-seg bench: {message}", file=sys.stderr)
    return code


def compare(
    architecture: Architecture, engines: Sequence[str], counts: Sequence[int], repeats: int, threads: int
) -> list[dict[str, object]]:
    """Times transformers and the engines of this package in turns for every number of prompts, and prints tables.

    Args:
        architecture: Architecture to build on both sides.
        engines: Engines and precisions, such as "openvino_bfloat16", beginning with ``EXACT``.
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
        step("prepare", folder, json.dumps(dict(architecture.config)), str(architecture.size))
        # Their memory and their times of loading are those of a second start.
        first_s = {name: _first_load_s(Request(name, folder, 1, threads)) for name in engines}
        for count in counts:
            requests = {name: Request(name, folder, count, threads) for name in (TRANSFORMERS, *engines)}
            measured, missing = in_turns(list(requests.values()), repeats)
            prefix = f"clipseg.{architecture.name}.cpu."
            error = difference(requests[TRANSFORMERS], requests[EXACT])
            rows = {
                name: {
                    **_row(measured[TRANSFORMERS], each, mask_iou(requests[EXACT], requests[name])),
                    "first_load": (round(first_s[name] or each.report["load_s"], 2), "s"),
                }
                for name, each in measured.items()
                if name != TRANSFORMERS
            }
            figures += _named(f"{prefix}prompts_{count}.", _against(measured[TRANSFORMERS], measured[EXACT], error))
            for name, row in rows.items():
                figures += _named(f"{prefix}{name}.prompts_{count}.", row)
            best = max(
                (name for name, row in rows.items() if row["mask_iou"][0] >= LEAST_MEAN_IOU),
                key=lambda name: rows[name]["speedup"][0],
            )
            figures += _named(f"{prefix}best.prompts_{count}.", rows[best])
            print(
                f"{architecture.name}, {count} prompts, {measured[EXACT].report['threads']} threads, median of "
                f"{repeats} in turns; logits of {TRANSFORMERS} and {EXACT} differ by {error:.1e}"
            )
            _print_table({TRANSFORMERS: _row(measured[TRANSFORMERS], measured[TRANSFORMERS], 1.0), **rows}, missing)
            print(f"best: {best}\n", flush=True)
            if not error < TOLERANCE:
                raise BenchError(f"the logits of the two sides differ by {error:g}, which is too much")
    return figures


def compare_layouts(engines: Sequence[str], repeats: int, threads: int) -> list[dict[str, object]]:
    """Times the engines in turns on the four models at their published sizes; one prompt, or all classes.

    The arguments, what is returned and the errors are those of ``compare``; the speed-ups are against ``EXACT``.
    """
    figures: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="clip_seg_bench_") as folder:
        for layout in LAYOUTS:
            requests = {name: Request(name, folder, 1, threads, layout) for name in engines}
            first_s = {name: _first_load_s(request) for name, request in requests.items()}
            measured, missing = in_turns(list(requests.values()), repeats)
            rows = {
                name: {
                    **_row(measured[EXACT], each, mask_iou(requests[EXACT], requests[name])),
                    "first_load": (round(first_s[name] or each.report["load_s"], 2), "s"),
                }
                for name, each in measured.items()
            }
            print(f"{layout}, {measured[EXACT].report['threads']} threads, median of {repeats} in turns")
            _print_table(rows, missing)
            print(flush=True)
            for name, row in rows.items():
                figures += _named(f"{layout}.cpu.{name}.", row)
    return figures


def _first_load_s(request: Request) -> float | None:
    """Returns how long an engine takes that has kept nothing of this model yet; ``None`` if it keeps nothing."""
    if request.side.startswith("eager"):
        return None
    measured, _ = in_turns([request], 0)
    return measured[request.side].report["load_s"] if request.side in measured else None


def _against(theirs: Measured, ours: Measured, error: float) -> dict[str, tuple[float, str]]:
    return {
        "speedup": (round(theirs.ms / ours.ms, 3), "x"),
        "speedup_text_cached": (round(theirs.ms / ours.cached_ms, 3), "x"),
        "transformers": (round(theirs.ms, 1), "ms"),
        "ours": (round(ours.ms, 1), "ms"),
        "ours_text_cached": (round(ours.cached_ms, 1), "ms"),
        "transformers_peak": (round(theirs.report["peak_bytes"] / 2**20), "MiB"),
        "ours_peak": (round(ours.report["peak_bytes"] / 2**20), "MiB"),
        "max_difference": (error, "logit"),
    }


def _row(base: Measured, side: Measured, iou: float) -> dict[str, tuple[float, str]]:
    return {
        "speedup": (round(base.ms / side.ms, 3), "x"),
        "speedup_text_cached": (round(base.cached_ms / side.cached_ms, 3), "x"),
        "ms": (round(side.ms, 1), "ms"),
        "ms_text_cached": (round(side.cached_ms, 1), "ms"),
        "ms_least": (round(1e3 * min(side.texts_s), 1), "ms"),
        "spread": (round(side.spread, 3), "of the median"),
        "mask_iou": (round(iou, 4), "IoU"),
        "load": (round(side.report["load_s"], 2), "s"),
        "peak": (round(side.report["peak_bytes"] / 2**20), "MiB"),
    }


def _print_table(rows: Mapping[str, Mapping[str, tuple[float, str]]], missing: Mapping[str, str]) -> None:
    print("engine                     ms  quartiles   texts cached  speed-up  text cached  mask IoU    load       peak")
    for name, row in rows.items():
        value = {key: number for key, (number, _) in row.items()}
        print(
            f"{name:<20}{value['ms']:>9.1f}{100 * value['spread']:>9.1f} %{value['ms_text_cached']:>12.1f} ms"
            f"{value['speedup']:>8.2f} x{value['speedup_text_cached']:>11.2f} x{value['mask_iou']:>10.4f}"
            f"{value['load']:>7.2f} s{value['peak']:>7} MiB"
        )
    for name, reason in missing.items():
        print(f"{name:<20} cannot be had: {reason}")


def _named(prefix: str, row: Mapping[str, tuple[float, str]]) -> list[dict[str, object]]:
    return [{"name": prefix + name, "value": value, "unit": unit} for name, (value, unit) in row.items()]


def step(*arguments: str) -> None:
    """Runs one step of ``bench_models`` in a process of its own."""
    command = [sys.executable, "-m", "clip_seg_ros.tools.bench_models", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise BenchError(f"the step {arguments[0]} failed with exit code {done.returncode}: {last}")
