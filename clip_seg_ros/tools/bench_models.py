# SPDX-License-Identifier: Apache-2.0
"""Runs one step of ``clip-seg bench models`` in its own process: ``python -m clip_seg_ros.tools.bench_models STEP``.

``prepare FOLDER CONFIG SIZE`` writes the same random weights for both sides, and an image.
``transformers FOLDER COUNT REPEATS THREADS`` and ``ours ...`` time one side and print the measurements as JSON.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

_WARM_UPS = 2
_COLORS = ("red", "green", "blue", "white", "black", "yellow", "brown", "grey")
_THINGS = ("cup", "wooden table", "dog", "bicycle", "house on the left", "bottle", "person", "tree")
PHRASES = tuple(f"a {color} {thing}" for thing in _THINGS for color in _COLORS)


def prepare(folder: Path, config: str, size: str) -> dict[str, float]:
    """Writes a random CLIPSeg in the format of transformers, the same model converted, token ids and a random image."""
    # This import comes first, because it makes torchvision importable even if it does not fit torch.
    from clip_seg_ros.models.clip.tokenizer import ClipTokenizer
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
    inputs = {"pixels": torch.randn(1, 3, int(size), int(size)), "token_ids": ClipTokenizer()(PHRASES)}
    save_file(inputs, folder / "inputs.safetensors")
    return {}


def transformers(folder: Path, count: int, repeats: int) -> dict[str, float]:
    """Times transformers as in its own example: ``count`` copies of the image with as many texts."""
    import clip_seg_ros.models.clip.backbone  # noqa: F401 - makes torchvision importable even if it does not fit torch

    from transformers import CLIPSegForImageSegmentation  # isort: skip

    model = CLIPSegForImageSegmentation.from_pretrained(folder / "transformers").eval()
    inputs = load_file(folder / "inputs.safetensors")
    token_ids = inputs["token_ids"][:count]
    # The processor of transformers pads to the longest text, too.
    token_ids = token_ids[:, : int(token_ids.argmax(dim=1).max()) + 1]
    attention_mask = (token_ids != 0).long()
    # The processor's padding is the end token.
    token_ids = token_ids.where(token_ids != 0, token_ids.max())
    pixels = inputs["pixels"].repeat(count, 1, 1, 1)

    def ask() -> torch.Tensor:
        return model(input_ids=token_ids, pixel_values=pixels, attention_mask=attention_mask).logits

    seconds, logits = _time(ask, repeats)
    return _report(folder, f"transformers_{count}", logits.reshape(count, *logits.shape[-2:]), seconds=seconds)


def ours(folder: Path, count: int, repeats: int) -> dict[str, float]:
    """Times this package with one image and ``count`` texts, then the same with cached features of the texts."""
    from clip_seg_ros.zoo.build import build_from_config

    config = json.loads((folder / "ours.json").read_text())
    model = build_from_config("ours", config, load_file(folder / "ours.safetensors"), "ours.safetensors").eval()
    pixels = load_file(folder / "inputs.safetensors")["pixels"]
    prompts = PHRASES[:count]

    def ask() -> torch.Tensor:
        return model.decode(model.encode_image(pixels), model.encode_text(prompts))

    seconds, logits = _time(ask, repeats)
    text = model.encode_text(prompts)
    cached_seconds, _ = _time(lambda: model.decode(model.encode_image(pixels), text), repeats)
    return _report(folder, f"ours_{count}", logits[0], seconds=seconds, cached_seconds=cached_seconds)


def _time(ask: Callable[[], torch.Tensor], repeats: int) -> tuple[float, torch.Tensor]:
    """Returns the median time of ``repeats`` in seconds, and the answer."""
    for _ in range(_WARM_UPS):
        answer = ask()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        ask()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken), answer


def _report(folder: Path, name: str, logits: torch.Tensor, **seconds: float) -> dict[str, float]:
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    np.save(folder / f"{name}.npy", logits.numpy())
    return {**seconds, "peak_bytes": peak_bytes, "threads": torch.get_num_threads()}


def main(argv: list[str]) -> None:
    """Runs one step and prints its figures as JSON."""
    step, folder = argv[0], Path(argv[1])
    if step == "prepare":
        print(json.dumps(prepare(folder, *argv[2:])))
        return
    count, repeats, threads = (int(value) for value in argv[2:])
    if threads:
        torch.set_num_threads(threads)
    with torch.inference_mode():
        print(json.dumps({"ours": ours, "transformers": transformers}[step](folder, count, repeats)))


if __name__ == "__main__":
    main(sys.argv[1:])
