# SPDX-License-Identifier: Apache-2.0
"""MaskCLIP against tensors recorded from the authors' implementation (see test/data/golden)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from clip_seg_ros.models.base import TextFeatures
from clip_seg_ros.models.maskclip.model import MaskCLIP
from clip_seg_ros.zoo.build import build_from_config
from clip_seg_ros.zoo.formats import convert
from nearness import assert_near

# recording -> (inputs, options of the conversion)
CASES = {
    "maskclip_vit": (("image64", "image50x70"), {"vision_head_width": 12, "text_head_width": 8}),
    "maskclip_rn": (("image128", "image100x140"), {"text_head_width": 8}),
}
REFINEMENTS = {
    "base": {},
    "ks1.0": {"key_smoothing": 1.0},
    "ks0.9": {"key_smoothing": 0.9},
    "pd0.5": {"prompt_denoising": 0.5},
    "ks1.0_pd0.5": {"key_smoothing": 1.0, "prompt_denoising": 0.5},
}


def model_of(recording, options: dict) -> MaskCLIP:
    converted = convert(recording.weights(), recording.name, {"official_tower": True, **options})
    return build_from_config(recording.name, converted.config, converted.tensors, recording.name).eval()


@pytest.fixture(params=[(name, image) for name, (images, _) in CASES.items() for image in images], ids="-".join)
def recorded(request: pytest.FixtureRequest, golden: Callable) -> tuple:
    """(what was recorded, the name of an input, the model with the recorded weights)"""
    name, image = request.param
    recording = golden(name, relative=1e-5)
    if f"in.{image}" in recording.left_out:
        pytest.skip(f"{image} of {name} is left out of the recordings that come with the tests")
    return recording, image, model_of(recording, CASES[name][1])


@torch.no_grad()
def test_every_stage(recorded: tuple) -> None:
    recording, image, model = recorded
    model.config = replace(model.config, key_smoothing=1.0)  # otherwise there are no keys
    pixels, case = recording[f"in.{image}"], f"out.{image}"
    visual, seen = model.visual, {}
    vit = recording.name == "maskclip_vit"
    watched = {"v_dense": visual.ln_post} if vit else {"out0": visual.layer1, "out3": visual.layer4}
    hooks = [
        module.register_forward_hook(lambda _m, _i, output, key=key: seen.__setitem__(key, output))
        for key, module in watched.items()
    ]
    features = model.encode_image(pixels)
    for hook in hooks:
        hook.remove()
    for key, value in seen.items():
        value = value.transpose(1, 2).unflatten(2, features.dense.shape[2:]) if vit else value
        recording.check(value, f"{case}.backbone.{key}")
    recording.check(features.keys, f"{case}.backbone.k_NLC" if vit else f"{case}.k_NLC")
    projected = recording[f"{case}.dense_feat_projected"]
    assert_near(features.dense, projected / projected.norm(dim=1, keepdim=True))
    if vit:
        grid = features.dense.shape[2:]
        padded = F.pad(pixels, (0, 16 * grid[1] - pixels.shape[3], 0, 16 * grid[0] - pixels.shape[2]))
        from clip_seg_ros.models.clip.vision_taps import ViTTaps

        depth = len(visual.transformer.resblocks)
        tokens = visual.ln_post(ViTTaps(visual, [depth - 1])(padded).taps[0][:, 1:])
        recording.check(tokens.transpose(1, 2).unflatten(2, grid), f"{case}.backbone.x_final_norm")


@torch.no_grad()
def test_text(recorded: tuple) -> None:
    recording, _, model = recorded
    recording.check(model.encode_templates(recording["in.tokens_KTL"]).pooled, "out.text_embeddings")


@pytest.mark.parametrize("refinement", REFINEMENTS)
@torch.no_grad()
def test_logits(recorded: tuple, refinement: str) -> None:
    recording, image, model = recorded
    model.config = replace(model.config, **REFINEMENTS[refinement])
    logits = model.decode(model.encode_image(recording[f"in.{image}"]), TextFeatures(recording["out.text_embeddings"]))
    smoothed = refinement.startswith("ks")
    recording.check(logits, f"out.{image}.logits_{refinement}", 1e-4 if smoothed else 1e-5)


@torch.no_grad()
def test_inference(recorded: tuple) -> None:
    recording, image, model = recorded
    pixels = recording[f"in.{image}"]
    logits = model.decode(model.encode_image(pixels), TextFeatures(recording["out.text_embeddings"]))
    resized = F.interpolate(logits, size=pixels.shape[2:], mode="bilinear", align_corners=False)
    recording.check(resized, f"out.{image}.encode_decode_base_input_size")
    key = f"out.{image}.inference_probs_rescaled_to_45x61"
    if key in recording.tensors:
        model.config = replace(model.config, logit_scale=1.0)  # theirs takes the softmax of bare cosines
        rescaled = F.interpolate(resized, size=(45, 61), mode="bilinear", align_corners=False)
        recording.check(model.probabilities(rescaled), key)


@torch.no_grad()
def test_attention_pool(recorded: tuple) -> None:
    recording, image, model = recorded
    key = f"out.{image}.logits_attn_pooling_heads4"
    if key not in recording.tensors:
        pytest.skip("an option of ResNets")
    model.config = replace(model.config, attention_pool_heads=4)
    recording.check(
        model.decode(model.encode_image(recording[f"in.{image}"]), TextFeatures(recording["out.text_embeddings"])), key
    )


@pytest.mark.parametrize("name", CASES)
def test_converted_files_equal_their_source(golden: Callable, name: str) -> None:
    recording = golden(name, relative=0.0)
    published = recording.weights(f"{name}_converted")
    options = CASES[name][1]
    source = convert(recording.weights(), name, {"official_tower": True, **options}).tensors
    names = tuple(f"class {index}" for index in range(8))
    closed = convert(published, name, {**options, "class_names": names}).tensors
    assert torch.equal(closed.pop("text_embeddings"), published["decode_head.text_embeddings"])
    assert closed.keys() == {key for key in source if key.startswith("visual.")}
    assert all(torch.equal(closed[key], source[key]) for key in closed)
    opened = convert(published, name, {**options, "clip": recording.weights()}).tensors
    assert opened.keys() == source.keys()
    assert all(torch.equal(opened[key], source[key]) for key in source)
