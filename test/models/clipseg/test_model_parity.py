# SPDX-License-Identifier: Apache-2.0
"""CLIPSeg against tensors recorded from the authors' implementation and Hugging Face's (see test/data/golden)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from clip_seg_ros.models.base import TextFeatures
from clip_seg_ros.models.clip.positions import resize_position_table
from clip_seg_ros.models.clip.vision_taps import ViTTaps
from clip_seg_ros.models.clipseg.model import CLIPSeg
from clip_seg_ros.zoo.build import build_from_config
from clip_seg_ros.zoo.formats import convert

OPTIONS = {"extract_layers": (1, 2, 4), "n_heads": 4, "vision_head_width": 12, "text_head_width": 8}


def prompts_of(recording) -> list[str]:
    return [" ".join(map(str, row.tolist())) for row in recording["in.tokens"]]


def model_of(recording) -> CLIPSeg:
    converted = convert(recording.weights(), recording.name, OPTIONS)
    return build_from_config(recording.name, converted.config, converted.tensors, recording.name).eval()


@pytest.fixture(scope="module", params=["clipseg_simple", "clipseg_refined"])
def recorded(request: pytest.FixtureRequest, golden: Callable) -> tuple:
    """(what was recorded, the model with the recorded weights)"""
    recording = golden(request.param, relative=2e-5)
    return recording, model_of(recording)


@torch.no_grad()
def test_conditionals(recorded: tuple) -> None:
    recording, model = recorded
    text = model.encode_text(prompts_of(recording)).pooled
    recording.check(text, "out.cond.text")
    image64 = model.encode_image_prompt(recording["in.cond_image64"])
    recording.check(image64, "out.cond.image64")
    if "in.cond_image96" not in recording.left_out:
        recording.check(model.encode_image_prompt(recording["in.cond_image96"]), "out.cond.image96")
    recording.check(model.mix_prompts(text, image64, 0.5), "out.cond.mixed_text0.5_image64_0.5")


@torch.no_grad()
def test_position_table(recorded: tuple) -> None:
    recording, model = recorded
    table = model.clip.visual.positional_embedding
    recording.check(resize_position_table(table, (4, 4), (6, 6)), "out.pos_embed.rescaled_6x6")


@pytest.mark.parametrize("size", [64, 96])
@torch.no_grad()
def test_every_stage(recorded: tuple, size: int) -> None:
    recording, model = recorded
    if f"in.image{size}" in recording.left_out:
        pytest.skip(f"size {size} of {recording.name} is left out of the recordings that come with the tests")
    pixels, case = recording[f"in.image{size}"], f"out.text{size}"
    seen = {}

    def record(key: str) -> Callable:
        return lambda _module, _inputs, output: seen.__setitem__(key, output)

    decoder = model.decoder
    hooks = [reduce.register_forward_hook(record(f"reduce{i}_LND")) for i, reduce in enumerate(decoder.reduces)]
    hooks += [block.register_forward_hook(record(f"block{i}_LND")) for i, block in enumerate(decoder.blocks)]
    hooks += [getattr(decoder, film).register_forward_hook(record(film)) for film in ("film_mul", "film_add")]
    try:
        features = model.encode_image(pixels)
        logits = decoder(features.taps, features.grid_size, recording["out.cond.text"])
    finally:
        for hook in hooks:
            hook.remove()

    for layer, tap in zip((1, 2, 4), features.taps, strict=True):
        recording.check(tap, f"{case}.activation.layer{layer}_LND")
    for key, value in seen.items():
        recording.check(value.squeeze(1) if key.startswith("film") else value, f"{case}.decoder.{key}")
    recording.check(logits[:, None], f"{case}.logits")
    recording.check(model.encode_image_prompt(pixels), f"{case}.visual_q")
    first_block = ViTTaps(model.clip.visual, [0])(pixels).taps[0]
    recording.check(first_block, f"{case}.activation.first_layer0_LND")


@pytest.mark.parametrize(
    ("case", "size", "conditional"),
    [("image64", 64, "image64"), ("image96", 96, "image96"), ("mixed64", 64, "mixed_text0.5_image64_0.5")],
)
@torch.no_grad()
def test_image_and_mixed_prompts(recorded: tuple, case: str, size: int, conditional: str) -> None:
    recording, model = recorded
    if f"out.{case}.logits" in recording.left_out:
        pytest.skip(f"{case} of {recording.name} is left out of the recordings that come with the tests")
    prompts = TextFeatures(pooled=recording[f"out.cond.{conditional}"])
    logits = model.decode(model.encode_image(recording[f"in.image{size}"]), prompts)
    # Every prompt was asked about every image; the recording pairs them.
    recording.check(logits[[0, 1], [0, 1]][:, None], f"out.{case}.logits")


def test_loss_and_gradients(recorded: tuple) -> None:
    recording, model = recorded
    with torch.no_grad():
        features = model.encode_image(recording["in.image64"])
    model.decoder.zero_grad()
    logits = model.decoder(features.taps, features.grid_size, recording["out.cond.mixed_text0.5_image64_0.5"])
    loss = F.binary_cross_entropy_with_logits(logits[:, None], recording["in.train_mask"])
    loss.backward()
    recording.check(loss, "out.train.bce_loss")
    norms = {name: parameter.grad.norm() for name, parameter in model.decoder.named_parameters()}
    recording.check_norms(norms, "out.train.grad_norm.", relative=1e-4)


@pytest.mark.parametrize("name", ["clipseg_simple_hf", "clipseg_refined_hf"])
@torch.no_grad()
def test_hugging_face(golden: Callable, name: str) -> None:
    recording = golden(name, relative=2e-5)
    model = model_of(recording)
    text = model.encode_text(prompts_of(recording)).pooled
    for key in [key for key in recording.tensors if key.endswith("logits_squeezed_BHW")]:
        case = key.split(".")[1]
        kind, size = case[:-2], case[-2:]
        pooled = text if kind == "text" else model.encode_image_prompt(recording[f"in.cond_image{size}"])
        recording.check(pooled, f"out.{case}.conditional_embeddings")
        logits = model.decode(model.encode_image(recording[f"in.image{size}"]), TextFeatures(pooled))
        # Every prompt was asked about every image; the recording pairs them.
        recording.check(logits[[0, 1], [0, 1]], key)
