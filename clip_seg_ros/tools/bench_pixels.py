# SPDX-License-Identifier: Apache-2.0
"""``clip-seg bench pixels``: times what comes after the model, from its logits to the objects of one image.

An engine without a network answers with prepared logits, and the functions that the nodes run do the rest: they bring
the answer to the size of the image, decide which pixel belongs to what, and find the objects. The logits have the
resolution of the published models. Each prompt's mask covers half of the picture, in blobs; of many classes only some
are in the picture, as in real images.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from clip_seg_ros.models.base import ImageFeatures, TextFeatures
from clip_seg_ros.models.spec import InputSpec, ModelSpec, SlidingWindow
from clip_seg_ros.pipeline.answering import Question, answer
from clip_seg_ros.pipeline.class_labels import class_regions
from clip_seg_ros.pipeline.predictor import EncodedImage, Predictor
from clip_seg_ros.pipeline.preprocess import Geometry
from clip_seg_ros.pipeline.sliding import Box, window_boxes
from clip_seg_ros.runtime.engine import Engine

SIZES = {"vga": (480, 640), "1080p": (1080, 1920)}
"""The sizes (H, W) of the images, by the names in the table."""
PRESENT_CLASSES = 15
"""How many classes are in a picture; pictures of ADE20K show about ten of its 150."""
MIN_AREA_FRACTION = 0.002
"""The smallest object, as the nodes have it by default."""
_BLOBS = (6, 8)
"""The number of random values, along both sides of the picture, between which logits run smoothly."""
_COLORS = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Kind:
    """A kind of answers to measure."""

    name: str
    count: int
    """The number of prompts or classes."""
    spec: ModelSpec
    stride: int
    """The side of a cell of the logits, in pixels of the prepared image."""


def _names(count: int) -> tuple[str, ...]:
    return tuple(f"thing {number}" for number in range(count))


def _kinds() -> Iterator[Kind]:
    clipseg = InputSpec(352, "squash", 16, *_COLORS)
    cris = InputSpec(416, "letterbox", 32, *_COLORS)
    whole = InputSpec(512, "short_side", 1, *_COLORS, 2048)
    windows = InputSpec(512, "short_side", 1, *_COLORS, 2048, SlidingWindow(512, 341))
    for count in (1, 13):
        yield Kind(f"prompts_{count}", count, ModelSpec("clipseg", clipseg, "sigmoid"), 1)
    for count in (1, 13):
        yield Kind(f"cris_{count}", count, ModelSpec("cris", cris, "sigmoid", threshold=0.35), 4)
    for count in (10, 150):
        names = _names(count)
        yield Kind(f"classes_{count}", count, ModelSpec("whole", whole, "softmax", class_names=names), 4)
    yield Kind("windows_150", 150, ModelSpec("windows", windows, "softmax", class_names=_names(150)), 4)


CASES = {f"{name}.{kind.name}": (kind, size) for name, size in SIZES.items() for kind in _kinds()}
"""Answers of CLIPSeg, CRIS, a network that sees the whole image, and DenseCLIP, which sees it through windows."""


@dataclass(frozen=True)
class Timing:
    """The time of one kind of answers at one size, in milliseconds."""

    median: float
    low: float
    """The first quartile."""
    high: float
    """The third quartile."""


class Prepared(Engine):
    """Answers every question with the same logits."""

    device, precision = torch.device("cpu"), "float32"

    def __init__(self, spec: ModelSpec, logits: torch.Tensor) -> None:
        self.spec, self._logits = spec, logits

    def encode_image(self, pixels: torch.Tensor) -> ImageFeatures:
        return ImageFeatures()

    def encode_text(self, prompts: Sequence[str]) -> TextFeatures:
        return TextFeatures(torch.zeros(len(prompts), 1))

    def decode(self, image: ImageFeatures, text: TextFeatures) -> torch.Tensor:
        return self._logits

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.softmax(dim=1) if self.spec.competition == "softmax" else logits.sigmoid()

    def fingerprint(self) -> str:
        return "0" * 16


def run(args: argparse.Namespace) -> int:
    """Measures, prints a table and writes the requested file; returns the exit code."""
    if args.repeats < 2:
        print("clip-seg bench: --repeats must be 2 or more", file=sys.stderr)
        return 2
    if args.json and (not args.json.parent.is_dir() or args.json.is_dir()):
        print(f"clip-seg bench: {args.json} cannot be written: name a file in a folder that exists", file=sys.stderr)
        return 2
    wanted = args.only.split(",") if args.only else list(CASES)
    if unknown := [name for name in wanted if name not in CASES]:
        print(f"clip-seg bench: unknown {', '.join(unknown)}: use some of {', '.join(CASES)}", file=sys.stderr)
        return 2
    threads, cv_threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    figures: list[dict[str, object]] = []
    try:
        print(f"after the model, one thread, {args.repeats} repeats")
        print(f"{'answers':<20}   median   quartiles")
        for name in wanted:
            timing = measure(*CASES[name], args.repeats)
            print(f"{name:<20} {timing.median:8.1f} {timing.low:8.1f} .. {timing.high:.1f} ms", flush=True)
            figures.append({"name": f"pixels.{name}.ms", "value": round(timing.median, 2), "unit": "ms"})
    finally:
        torch.set_num_threads(threads)
        cv2.setNumThreads(cv_threads)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def measure(kind: Kind, size: tuple[int, int], repeats: int) -> Timing:
    """Times one kind of answers for an image of ``size`` (H, W), after one answer that is not timed."""
    step = prepare(kind, size)
    step()
    taken_ms = []
    for _ in range(repeats):
        start_s = time.perf_counter()
        step()
        taken_ms.append((time.perf_counter() - start_s) * 1e3)
    low, median, high = statistics.quantiles(taken_ms, n=4)
    return Timing(median, low, high)


def prepare(kind: Kind, size: tuple[int, int]) -> Callable[[], int]:
    """Returns the work after the model for one image; it returns the number of objects that it found."""
    geometry = Geometry.fit(size, kind.spec.input)
    window = kind.spec.input.window
    boxes = None if window is None else tuple(window_boxes(geometry.model_size, window))
    predictor = Predictor(Prepared(kind.spec, logits_of(kind, geometry, boxes)))
    encoded = EncodedImage(ImageFeatures(), geometry, boxes)
    names = _names(kind.count)
    if kind.spec.competition == "sigmoid":
        question = Question(names, min_area_fraction=MIN_AREA_FRACTION)
        return lambda: len(answer(predictor, encoded, question).regions)
    least_px = round(MIN_AREA_FRACTION * size[0] * size[1])
    return lambda: len(class_regions(predictor.classify(encoded, names), least_px))


def logits_of(kind: Kind, geometry: Geometry, boxes: Sequence[Box] | None) -> torch.Tensor:
    """Returns smooth logits of the whole image (1, P, h, w) or of its windows (W, P, h, w)."""
    random = np.random.default_rng(0)
    coarse = torch.from_numpy(random.normal(size=(1, kind.count, *_BLOBS)).astype(np.float32))
    height, width = (-(-side // kind.stride) for side in geometry.model_size)
    fields = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)
    if kind.spec.competition == "sigmoid":
        # Half of all pixels are above the threshold.
        middle = fields.flatten(2).median(dim=2).values[..., None, None]
        level = np.log(kind.spec.threshold / (1 - kind.spec.threshold))
        return 6.0 * (fields - middle) + level
    fields = 3.0 * fields
    fields[:, PRESENT_CLASSES:] -= 12.0
    if boxes is None:
        return fields
    whole = F.interpolate(fields, size=geometry.model_size, mode="bilinear", align_corners=False)
    windows = torch.cat([whole[:, :, top:bottom, left:right] for top, left, bottom, right in boxes])
    side = [-(-length // kind.stride) for length in windows.shape[2:]]
    return F.interpolate(windows, size=side, mode="bilinear", align_corners=False)
