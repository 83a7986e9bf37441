# SPDX-License-Identifier: Apache-2.0
"""``clip-seg bench gpu``: times the four models at their published sizes on a CUDA device.

For every model, size of image and number of prompts there is a row for eager float32, eager float16 and CUDA graphs in
float16: the time of encoding and decoding by CUDA events, the kernels that the processor launches, the memory, and the
agreement with float32. The weights are random numbers, which changes nothing of these but the agreement.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from clip_seg_ros.models.base import PromptableSegmenter, TextFeatures
from clip_seg_ros.models.folding import fold_batch_norms
from clip_seg_ros.models.spec import InputSpec
from clip_seg_ros.pipeline.sliding import window_boxes
from clip_seg_ros.runtime.agreement import compare
from clip_seg_ros.runtime.choice import Candidate, make_engine
from clip_seg_ros.runtime.engine import Engine
from clip_seg_ros.runtime.samples import sample_pixels
from clip_seg_ros.tools.bench_models import PHRASES
from clip_seg_ros.tools.published_sizes import LAYOUTS, random_model

ENGINES = (Candidate("eager", "float32"), Candidate("eager", "float16"), Candidate("cuda_graph", "float16"))
"""What is timed; the first one is what the others are compared with."""
SIZES = {"640x480": (480, 640), "1920x1080": (1080, 1920)}
COUNTS = (1, 13)
"""The numbers of prompts, for models that do not decode all of their classes together."""
_WARM_UPS = 5


@dataclass(frozen=True)
class Case:
    """What is asked of a model."""

    name: str
    pixels: torch.Tensor
    """(B, 3, h, w) on the device; B windows for a model that looks through windows."""
    prompts: tuple[str, ...]


def run(args: argparse.Namespace) -> int:
    """Measures, prints rows and writes the requested file after each of them; returns the exit code."""
    if args.repeats < 1 or not args.minutes > 0:
        return _fail("--repeats must be 1 or more, --minutes more than 0", 2)
    if args.json and (not args.json.parent.is_dir() or args.json.is_dir()):
        return _fail(f"{args.json} cannot be written: name a file in a folder that exists", 2)
    if not torch.cuda.is_available():
        return _fail("torch sees no CUDA device on this machine: nothing was measured", 1)
    try:
        device = torch.device(args.device)
        if device.type != "cuda" or (device.index or 0) >= torch.cuda.device_count():
            return _fail(f"{args.device} is no CUDA device that torch sees", 2)
    except RuntimeError:
        return _fail(f"{args.device} is no device: use cuda or cuda:N", 2)
    deadline_s = time.monotonic() + 60 * args.minutes
    figures: list[dict[str, object]] = []
    print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, median of {args.repeats}\n{_HEAD}")
    for layout in LAYOUTS:
        for row in measure(layout, device, args.repeats, deadline_s):
            print(_line(row), flush=True)
            figures += _figures(row)
            if args.json:
                _write(args.json, figures)
    if time.monotonic() > deadline_s:
        print(f"ended after {args.minutes:g} minutes; what is missing was not measured")
    return 0


def _fail(message: str, code: int) -> int:
    print(f"clip-seg bench: {message}", file=sys.stderr)
    return code


@torch.inference_mode()
def measure(layout: str, device: torch.device, repeats: int, deadline_s: float) -> Iterator[dict[str, Any]]:
    """Measures one model with all engines; yields a row for each engine and case.

    Args:
        layout: One of ``LAYOUTS``.
        device: The CUDA device.
        repeats: How often each is timed.
        deadline_s: The monotonic time after which nothing more is begun.
    """
    expected: dict[str, torch.Tensor] = {}
    for wanted in ENGINES:
        if time.monotonic() > deadline_s:
            return
        model = random_model(layout)
        fold_batch_norms(model)
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        start = time.perf_counter()
        engine = make_engine(model, str(device), wanted)
        torch.cuda.synchronize(device)
        load_s = time.perf_counter() - start
        for case in cases(model, device):
            if time.monotonic() > deadline_s:
                return
            text = engine.encode_text(case.prompts)
            row = _timed(engine, case, text, repeats)
            logits = engine.decode(engine.encode_image(case.pixels), text).cpu()
            right = expected.setdefault(case.name, logits)
            agreement = compare([right], [logits], model.competition, model.threshold)
            fault = getattr(engine, "fault", "")
            yield {
                "name": f"{layout}.cuda.{wanted.engine}_{wanted.precision}.{case.name}",
                **row,
                "load_s": load_s,
                "mask_iou": agreement.mean_iou,
                "logits": agreement.logits,
                "fault": fault,
            }
        del engine, model


def cases(model: PromptableSegmenter, device: torch.device) -> list[Case]:
    """Returns what a model is asked: images of two sizes, and two numbers of prompts unless its classes are fixed."""
    asked = {}
    for size, (height, width) in SIZES.items():
        pixels = _pixels(model.input_spec, (height, width)).to(device)
        for count in COUNTS if model.class_names is None else (len(model.class_names),):
            prompts = model.class_names or PHRASES[:count]
            # Models that see a square see the same of images of all sizes.
            name = f"prompts_{count}.{size}" if model.input_spec.resize == "short_side" else f"prompts_{count}"
            asked[name] = Case(name, pixels, prompts)
    return list(asked.values())


def _pixels(spec: InputSpec, source_size: tuple[int, int]) -> torch.Tensor:
    """Returns what a model sees of a sample image of ``source_size`` (H, W), (B, 3, h, w)."""
    size = spec.model_size(source_size)
    picture = functional.interpolate(sample_pixels(spec)[0][:1], size=size, mode="bilinear", align_corners=False)
    if spec.window is None:
        return picture
    boxes = window_boxes(size, spec.window)
    return torch.cat([picture[:, :, top:bottom, left:right] for top, left, bottom, right in boxes])


def _timed(engine: Engine, case: Case, text: TextFeatures, repeats: int) -> dict[str, float]:
    device = engine.device
    torch.cuda.reset_peak_memory_stats(device)

    def ask() -> torch.Tensor:
        return engine.decode(engine.encode_image(case.pixels), text)

    for _ in range(_WARM_UPS):
        ask()
    whole, encoding = [], []
    for _ in range(repeats):
        events = [torch.cuda.Event(enable_timing=True) for _ in range(3)]
        torch.cuda.synchronize(device)
        events[0].record()
        features = engine.encode_image(case.pixels)
        events[1].record()
        engine.decode(features, text)
        events[2].record()
        torch.cuda.synchronize(device)
        whole.append(events[0].elapsed_time(events[2]))
        encoding.append(events[0].elapsed_time(events[1]))
    quartiles = statistics.quantiles(whole, n=4) if len(whole) > 1 else [0.0, 0.0, 0.0]
    return {
        "ms": statistics.median(whole),
        "encode_ms": statistics.median(encoding),
        "spread": (quartiles[2] - quartiles[0]) / statistics.median(whole),
        "launches": launches(ask),
        "peak_bytes": torch.cuda.max_memory_allocated(device),
    }


def launches(ask: Any) -> int:
    """Returns how often the processor launches a kernel or a graph in one call."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        ask()
        torch.cuda.synchronize()
    names = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync")
    return sum(event.count for event in profiler.key_averages() if event.key.startswith(names))


_HEAD = f"{'':<60}{'ms':>8}{'quartiles':>11}{'encode':>10}{'launches':>10}{'memory':>13}{'mask IoU':>10}"


def _line(row: dict[str, Any]) -> str:
    line = (
        f"{row['name']:<60}{row['ms']:>8.2f}{100 * row['spread']:>9.1f} %{row['encode_ms']:>10.2f}{row['launches']:>10}"
        f"{row['peak_bytes'] / 2**20:>9.0f} MiB{row['mask_iou']:>10.4f}"
    )
    return f"{line}  {row['fault']}" if row["fault"] else line


def _figures(row: dict[str, Any]) -> list[dict[str, object]]:
    values: Sequence[tuple[str, float, str]] = (
        ("ms", round(row["ms"], 3), "ms"),
        ("encode_ms", round(row["encode_ms"], 3), "ms"),
        ("spread", round(row["spread"], 3), "of the median"),
        ("launches", row["launches"], "launches"),
        ("peak", round(row["peak_bytes"] / 2**20), "MiB"),
        ("load", round(row["load_s"], 2), "s"),
        ("mask_iou", round(row["mask_iou"], 4), "IoU"),
        ("logits", row["logits"], "of the largest logit"),
    )
    return [{"name": f"{row['name']}.{name}", "value": value, "unit": unit} for name, value, unit in values]


def _write(path: Path, figures: list[dict[str, object]]) -> None:
    """Writes the figures so that the file is whole whenever somebody reads it."""
    partial = path.with_suffix(path.suffix + ".part")
    partial.write_text(json.dumps(figures, indent=2) + "\n")
    os.replace(partial, path)
