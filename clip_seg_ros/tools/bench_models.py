# SPDX-License-Identifier: Apache-2.0
"""The processes of ``clip-seg bench models``: ``python -m clip_seg_ros.tools.bench_models STEP ...``.

``prepare FOLDER CONFIG SIZE`` writes the same random weights of a CLIPSeg for transformers and for this package, and
what both are asked. ``serve REQUEST`` loads one side and answers whenever it is told to, so that several sides can be
timed in turns; each has a process of its own, whose peak memory is its own.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load_file, save_file

TRANSFORMERS = "transformers"
TEXTS, CACHED = "texts", "cached"
"""What a side is asked: the prompts with their texts, or with the features of texts that it has encoded before."""
_COLORS = ("red", "green", "blue", "white", "black", "yellow", "brown", "grey")
_THINGS = ("cup", "wooden table", "dog", "bicycle", "house on the left", "bottle", "person", "tree")
PHRASES = tuple(f"a {color} {thing}" for thing in _THINGS for color in _COLORS)


@dataclass(frozen=True)
class Request:
    """The side that a process is to be."""

    side: str
    """``TRANSFORMERS``, or an engine and its precision, such as "openvino_bfloat16"."""
    folder: str
    """Where the files of ``prepare`` are, and where the logits go."""
    count: int
    """The number of prompts."""
    threads: int
    """The number of processor threads; 0 for torch's choice."""
    layout: str = ""
    """One of ``published_sizes.LAYOUTS``; empty for the CLIPSeg of ``prepare``."""


class Side(Protocol):
    """Somebody who answers."""

    def ask(self, what: str) -> float:
        """Answers ``TEXTS`` or ``CACHED``; returns the time in seconds."""

    def finish(self) -> dict[str, float]:
        """Writes the logits of the last answer and returns "load_s", "peak_bytes" and "threads"."""


def prepare(folder: Path, config: str, size: str) -> dict[str, float]:
    """Writes a random CLIPSeg in the format of transformers, the same model converted, token ids and an image."""
    # This import comes first, because it makes torchvision importable even if it does not fit torch.
    from clip_seg_ros.models.clip.tokenizer import ClipTokenizer
    from clip_seg_ros.models.spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec
    from clip_seg_ros.runtime.samples import sample_pixels
    from clip_seg_ros.zoo.formats import convert

    from transformers import CLIPSegConfig, CLIPSegForImageSegmentation  # isort: skip

    torch.manual_seed(0)
    theirs = CLIPSegForImageSegmentation(CLIPSegConfig(**json.loads(config)))
    # With the initial weights, logits are in the thousands, where rounding alone exceeds the tolerance.
    upsampling = theirs.decoder.transposed_convolution
    last = upsampling[-1] if isinstance(upsampling, torch.nn.Sequential) else upsampling
    last.weight.data /= 100
    theirs.save_pretrained(folder / "transformers")
    vision, text = theirs.config.vision_config, theirs.config.text_config
    options = {
        "extract_layers": tuple(theirs.config.extract_layers),
        "vision_head_width": vision.hidden_size // vision.num_attention_heads,
        "text_head_width": text.hidden_size // text.num_attention_heads,
    }
    converted = convert(theirs.state_dict(), "transformers", options)
    save_file(converted.tensors, folder / "ours.safetensors")
    (folder / "ours.json").write_text(json.dumps(converted.config))
    pixels = sample_pixels(InputSpec(int(size), "squash", 16, IMAGENET_MEAN, IMAGENET_STD))[0]
    save_file({"pixels": pixels, "token_ids": ClipTokenizer()(PHRASES)}, folder / "inputs.safetensors")
    return {}


class Transformers:
    """transformers as in its own example: as many copies of the image as there are texts."""

    def __init__(self, request: Request) -> None:
        import clip_seg_ros.models.clip.backbone  # noqa: F401 - makes torchvision importable even if it does not fit

        from transformers import CLIPSegForImageSegmentation  # isort: skip

        self._request, start = request, time.perf_counter()
        folder = Path(request.folder)
        self._model = CLIPSegForImageSegmentation.from_pretrained(folder / "transformers").eval()
        self._load_s = time.perf_counter() - start
        inputs = load_file(folder / "inputs.safetensors")
        token_ids = inputs["token_ids"][: request.count]
        # The processor of transformers pads to the longest text, too.
        token_ids = token_ids[:, : int(token_ids.argmax(dim=1).max()) + 1]
        self._mask = (token_ids != 0).long()
        # The processor's padding is the end token.
        self._token_ids = token_ids.where(token_ids != 0, token_ids.max())
        self._pixels = inputs["pixels"].repeat(request.count, 1, 1, 1)

    @torch.inference_mode()
    def ask(self, what: str) -> float:
        start = time.perf_counter()
        answer = self._model(input_ids=self._token_ids, pixel_values=self._pixels, attention_mask=self._mask)
        taken = time.perf_counter() - start
        self._logits = answer.logits.reshape(self._request.count, *answer.logits.shape[-2:])
        return taken

    def finish(self) -> dict[str, float]:
        return _report(self._request, self._logits, self._load_s)


class Ours:
    """An engine of this package: the image once, and all prompts in one pass."""

    def __init__(self, request: Request) -> None:
        from clip_seg_ros.models.folding import fold_batch_norms
        from clip_seg_ros.runtime.choice import Candidate, make_engine
        from clip_seg_ros.runtime.samples import sample_pixels

        self._request = request
        model, pixels = _model(request)
        fold_batch_norms(model)
        start = time.perf_counter()
        self._engine = make_engine(model, "cpu", Candidate(*request.side.rsplit("_", 1)))
        self._prompts = model.class_names or PHRASES[: request.count]
        self._pixels = sample_pixels(model.input_spec)[0] if pixels is None else pixels
        self._text = self._engine.encode_text(self._prompts)
        # An engine may build for a size when it first sees it.
        self.ask(CACHED)
        self._load_s = time.perf_counter() - start

    @torch.inference_mode()
    def ask(self, what: str) -> float:
        start = time.perf_counter()
        features = self._engine.encode_image(self._pixels)
        text = self._text if what == CACHED else self._engine.encode_text(self._prompts)
        self._logits = self._engine.decode(features, text)
        return time.perf_counter() - start

    def finish(self) -> dict[str, float]:
        return _report(self._request, self._logits.flatten(0, 1), self._load_s)


def _model(request: Request) -> tuple[Any, torch.Tensor | None]:
    if request.layout:
        from clip_seg_ros.tools.published_sizes import random_model

        return random_model(request.layout), None
    from clip_seg_ros.zoo.build import build_from_config

    folder = Path(request.folder)
    config = json.loads((folder / "ours.json").read_text())
    model = build_from_config("ours", config, load_file(folder / "ours.safetensors"), "ours.safetensors").eval()
    return model, load_file(folder / "inputs.safetensors")["pixels"]


def logits_file(request: Request) -> Path:
    """Returns the file of the logits (P, h, w) of a side, or (B * P, h, w) for a model that looks through windows."""
    return Path(request.folder) / f"{request.layout}_{request.side}_{request.count}.npy"


def _report(request: Request, logits: torch.Tensor, load_s: float) -> dict[str, float]:
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    np.save(logits_file(request), logits.numpy())
    return {"load_s": load_s, "peak_bytes": peak_bytes, "threads": torch.get_num_threads()}


def open_side(request: Request) -> Side:
    """Loads a side. Raises EngineUnavailable if it cannot be had here."""
    if request.threads:
        torch.set_num_threads(request.threads)
    return Transformers(request) if request.side == TRANSFORMERS else Ours(request)


def serve(request: Request, lines: Iterable[str]) -> None:
    """Loads a side and answers every line, ``TEXTS``, ``CACHED`` or "finish", with a line of JSON."""
    from clip_seg_ros.runtime.engine import EngineUnavailable

    try:
        side = open_side(request)
    except EngineUnavailable as error:
        print(json.dumps({"unavailable": str(error)}), flush=True)
        return
    print(json.dumps({}), flush=True)
    for line in lines:
        what = line.strip()
        if what == "finish":
            print(json.dumps(side.finish()), flush=True)
            return
        print(json.dumps({"seconds": side.ask(what)}), flush=True)


def main(argv: list[str]) -> None:
    """Runs one step."""
    if argv[0] == "prepare":
        print(json.dumps(prepare(Path(argv[1]), *argv[2:])))
    else:
        {"serve": serve}[argv[0]](Request(**json.loads(argv[1])), sys.stdin)


def encoded(request: Request) -> str:
    """Returns a request as the argument of ``serve``."""
    return json.dumps(asdict(request))


if __name__ == "__main__":
    main(sys.argv[1:])
