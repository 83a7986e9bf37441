# SPDX-License-Identifier: Apache-2.0
"""``clip-seg export``: writes a model as ONNX, or for OpenVINO."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from clip_seg_ros import resources
from clip_seg_ros.models.base import PromptableSegmenter
from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.folding import fold_batch_norms
from clip_seg_ros.models.spec import ModelSpec
from clip_seg_ros.pipeline.preprocess import Preprocessor
from clip_seg_ros.pipeline.sliding import window_boxes
from clip_seg_ros.runtime.eager import fingerprint_of
from clip_seg_ros.runtime.engine_cache import EngineCache, engine_key, form_of
from clip_seg_ros.runtime.export import Exported, ExportRefused, Request, Samples, export_model
from clip_seg_ros.runtime.file_formats import FORMATS, FileFormat, require_format
from clip_seg_ros.runtime.samples import sample_prompts
from clip_seg_ros.zoo.factory import build_segmenter

_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}
_MOST_IMAGES = 300
_FEW_IMAGES = 20
_FOR_ENGINES = ("float32", "int8")
"""The precisions of the files that the engines of the nodes read."""


def add_parser(subparsers: Any) -> None:
    """Adds ``export`` to the commands of ``clip-seg``."""
    parser = subparsers.add_parser(
        "export",
        help="write a model as ONNX, which TensorRT reads, too, or for OpenVINO",
        description="Writes image encoder, decoder, text tower and tokenizer of a model, with a metadata.json that "
        "says how to use them and how well the answers agree with those of the model here. An export that does not "
        "agree is not kept.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("model", metavar="MODEL", help="a name such as clipseg-rd64-refined, or a .safetensors file")
    parser.add_argument("--format", choices=list(FORMATS), default="openvino", help="default: openvino")
    parser.add_argument(
        "--precision",
        choices=["float32", "bfloat16", "float16", "int8"],
        default="float32",
        help="of the numbers in it (default: float32)",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="DIR",
        help=f"folder of .jpg or .png of what the robot sees, of which at most {_MOST_IMAGES} are used: for int8 the "
        "ranges of numbers are taken from them, and the answers are compared on them (default: three rendered images)",
    )
    parser.add_argument(
        "--prompts",
        nargs="+",
        metavar="PROMPT",
        help="what is asked for in these images (default: a few things of the rendered images, or all classes)",
    )
    parser.add_argument(
        "--image-size",
        default="640x480",
        metavar="WxH",
        help="size of the camera's images; it counts for models that keep the aspect ratio (default: 640x480)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder to write (default for float32 and int8: the one in the user's cache where the engines of the "
        "nodes look for it; bfloat16 and float16 are for other programs)",
    )
    parser.add_argument("--keep-anyway", action="store_true", help="keep it even if the answers do not agree")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="folder of the weights (default: the usual ones)")


def run(args: argparse.Namespace) -> int:
    """Exports a model; returns 0, 1 if that fails or the answers do not agree, or 2 for arguments that do not fit."""
    try:
        file_format = require_format(args.format, args.precision)
        _require_reader(args)
        image_size = _image_size(args.image_size)
        paths = _image_paths(args.calibration)
        model = build_segmenter(args.model, args.weights)
        prompts = _prompts(model.spec, args.prompts)
    except (ValueError, WeightsError, FileNotFoundError) as error:
        print(f"clip-seg export: {error}", file=sys.stderr)
        return 2
    if args.precision == "int8" and len(paths) < _FEW_IMAGES:
        print(f"Note: int8 needs the images of some {_FEW_IMAGES} scenes to be good elsewhere, here are {len(paths)}.")
    fold_batch_norms(model)
    pixels = _pixels(paths, model.spec, image_size)
    request = Request(args.format, args.precision, tuple(pixels[0].shape[2:]), args.keep_anyway)
    folder = args.out or _usual_folder(model, request, file_format)
    height, width = request.size
    print(f"Exporting {model.name} for pixels of {width}x{height}; this may take minutes.", flush=True)
    try:
        exported = export_model(model, request, Samples(pixels, prompts), folder)
    except (ExportRefused, OSError, RuntimeError, ValueError) as error:
        print(f"clip-seg export: {error}", file=sys.stderr)
        return 1
    _report(exported, request, folder, len(pixels))
    return 0


def _report(exported: Exported, request: Request, folder: Path, image_count: int) -> None:
    print(f"On {image_count} images: {exported}")
    if not exported.is_good(request.precision):
        print("THE ANSWERS DO NOT AGREE.")
    if request.precision == "int8":
        parts = [part for part, precision in exported.precisions.items() if precision == "int8"]
        print(f"In int8: {', '.join(parts)}")
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder} ({size / 1e6:.1f} MB)")


def _require_reader(args: argparse.Namespace) -> None:
    """Raises ValueError for an export to the user's cache that no engine would look for there."""
    if args.out is None and args.precision not in _FOR_ENGINES:
        raise ValueError(
            f"an export in {args.precision} is for other programs, and needs --out DIR: the engines of the nodes read "
            f"files in {' or '.join(_FOR_ENGINES)}, and compute in halves from float32 by themselves where they can"
        )


def _image_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if match is None or not int(match[1]) or not int(match[2]):
        raise ValueError(f'--image-size must be WIDTHxHEIGHT in pixels, such as 640x480, got "{text}"')
    return int(match[2]), int(match[1])


def _image_paths(folder: Path | None) -> list[Path]:
    """Lists the images of ``folder``, spread evenly if they are too many, or those of the package."""
    folder = folder or resources.config_dir() / "samples"
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _IMAGE_SUFFIXES)
    if not paths:
        raise ValueError(f"there is no .jpg or .png in {folder}")
    unreadable = [path.name for path in paths if not cv2.haveImageReader(str(path))]
    if unreadable:
        raise ValueError(f"{unreadable[0]} in {folder} is no image")
    step = max(1.0, len(paths) / _MOST_IMAGES)
    return [paths[int(index * step)] for index in range(int(len(paths) / step))]


def _prompts(spec: ModelSpec, asked: Iterable[str] | None) -> tuple[str, ...]:
    if not asked:
        return sample_prompts(spec)
    if spec.class_names is not None:
        raise ValueError(f"{spec.name} has a list of classes, which are all compared: leave out --prompts")
    return tuple(dict.fromkeys((*asked, *spec.background_prompts)))


def _pixels(paths: Iterable[Path], spec: ModelSpec, image_size: tuple[int, int]) -> list[torch.Tensor]:
    """Returns the model's pixels of each image, resized to the camera's (H, W); (B, 3, h, w) with its windows."""
    prepare, prepared = Preprocessor(spec.input, torch.device("cpu")), []
    for path in paths:
        rgb = cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        rgb = cv2.resize(rgb, image_size[::-1], interpolation=cv2.INTER_AREA)
        pixels = prepare(np.ascontiguousarray(rgb)).pixels
        if spec.input.window is not None:
            boxes = window_boxes(tuple(pixels.shape[2:]), spec.input.window)
            pixels = torch.cat([pixels[..., top:bottom, left:right] for top, left, bottom, right in boxes])
        prepared.append(pixels)
    return prepared


def _usual_folder(model: PromptableSegmenter, request: Request, file_format: FileFormat) -> Path:
    form = form_of(request.file_format, request.precision)
    key = engine_key(model, fingerprint_of(model), form, request.size, file_format.key_packages)
    return EngineCache().folder / key
