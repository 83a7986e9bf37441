# SPDX-License-Identifier: Apache-2.0
"""CRIS against tensors recorded from the authors' implementation (see test/data/golden)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clip_seg_ros.models.cris.convert import published_name
from clip_seg_ros.training.losses import shrink_mask, text_to_pixel_loss
from clip_seg_ros.zoo.build import build_from_config
from clip_seg_ros.zoo.formats import convert

OPTIONS = {"n_heads": 4, "text_head_width": 8}


@pytest.fixture
def recorded(golden: Callable) -> tuple:
    """(what was recorded, the model with the recorded weights)"""
    recording = golden("cris_rn", relative=3e-5)
    converted = convert(recording.weights(), "golden", OPTIONS)
    return recording, build_from_config("golden", converted.config, converted.tensors, "golden").eval()


def watch(modules: dict[str, nn.Module]) -> tuple[dict[str, torch.Tensor], list]:
    """Keeps the output of every module, by its name."""
    seen: dict[str, torch.Tensor] = {}

    def record(key: str) -> Callable:
        return lambda _module, _inputs, output: seen.__setitem__(key, output)

    return seen, [module.register_forward_hook(record(key)) for key, module in modules.items()]


@torch.no_grad()
def test_text(recorded: tuple) -> None:
    recording, model = recorded
    text = model.encode_text([" ".join(map(str, row.tolist())) for row in recording["in.tokens"]])
    recording.check(text.tokens, "out.text.word_features")
    recording.check(text.pooled, "out.text.state")
    assert torch.equal(text.padding_mask, recording["out.pad_mask"].bool())


@pytest.mark.parametrize("size", ["96", "64x128"])
@torch.no_grad()
def test_every_stage(recorded: tuple, size: str) -> None:
    recording, model = recorded
    visual, neck, layers = model.clip.visual, model.neck, model.decoder.layers
    seen, _hooks = watch(
        {
            "visual.layer1": visual.layer1,
            "visual.layer4_before_attnpool": visual.layer4,
            "visual.attnpool_residual_connect": model.connect,
            "visual.C345.0": visual.layer2,
            "visual.C345.1": visual.layer3,
            "neck.txt_proj": neck.txt_proj,
            "neck.f1_v_proj": neck.f1_v_proj,
            "neck.f5": neck.norm_layer,
            "neck.f4": neck.f2_cat,
            "neck.f3": neck.f3_cat,
            "neck.fq5_before_upsample": neck.f4_proj5,
            "neck.fq4": neck.f4_proj4,
            "neck.fq3": neck.f4_proj3,
            "neck.aggr": neck.aggr,
            "neck.coordconv0": neck.coordconv[0],
            "neck.fq": neck.coordconv,
            "decoder.layer0.self_attn_after_norm_LND": layers[0].self_attn_norm,
            "decoder.layer0.cross_attn_after_norm_LND": layers[0].cross_attn_norm,
            "decoder.layer0_out_LND": layers[0],
            "decoder.layer1_out_LND": layers[1],
            "decoder.out": model.decoder,
            "proj.vis": model.proj.vis[3],
            "proj.txt_kernel_and_bias": model.proj.txt,
        }
    )
    logits = model(recording[f"in.image{size}"], recording["in.tokens"])
    case = f"out.img{size}"
    recording.check(logits[:, None], f"{case}.logits")
    # Not a module's output: what goes into the neck's first convolution.
    c5 = F.relu(model._attention_pool(seen["visual.layer4_before_attnpool"]) + seen["visual.attnpool_residual_connect"])
    recording.check(c5, f"{case}.visual.C345.2")
    # The last of these convolutions is part of the sentence's kernel.
    seen["proj.vis"] = model.proj.vis[4](seen["proj.vis"])
    checked = {f"{case}.logits", f"{case}.visual.C345.2"}
    for key, value in seen.items():
        name = f"{case}.{key.removesuffix('_LND')}"
        if name in recording.tensors:
            value = value.transpose(0, 1) if key.endswith("_LND") else value
            recording.check(value.flatten(2) if key == "decoder.out" else value, name)
            checked.add(name)
    assert checked == {key for key in recording.tensors if key.startswith(f"{case}.")}


@torch.no_grad()
def test_position_codes(recorded: tuple) -> None:
    recording, model = recorded
    recording.check(model.decoder.grid_position(3, 6), "out.decoder.vis_pos_3x6")
    recording.check(model.decoder.word_position, "out.decoder.txt_pos")


@torch.no_grad()
def test_every_sentence_on_every_image(recorded: tuple) -> None:
    recording, model = recorded
    text = model.encode_text([" ".join(map(str, row.tolist())) for row in recording["in.tokens"]])
    logits = model.decode(model.encode_image(recording["in.image96"]), text)
    recording.check(logits[[0, 1], [0, 1]][:, None], "out.img96.logits")


def test_loss_and_gradients(recorded: tuple) -> None:
    recording, model = recorded
    mask = recording["in.train_mask"][:, 0]
    recording.check(shrink_mask(mask, (24, 24))[:, None], "out.train_bn_eval.mask_resized")
    loss = text_to_pixel_loss(model(recording["in.image96"], recording["in.tokens"]), mask)
    loss.backward()
    recording.check(loss, "out.train_bn_eval.loss")
    prefix = "out.train_bn_eval.grad_norm."
    norms = {published_name(name): p.grad.norm() for name, p in model.named_parameters() if p.grad is not None}
    recording.check_norms(norms, prefix, relative=1e-4)


def test_training_with_batch_statistics(recorded: tuple) -> None:
    recording, model = recorded
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    case = "out.train_bn_batchstats_nodropout"
    logits = model(recording["in.image96"], recording["in.tokens"])
    recording.check(logits[:, None], f"{case}.logits", relative=5e-4)
    loss = text_to_pixel_loss(logits, recording["in.train_mask"][:, 0])
    recording.check(loss, f"{case}.loss", relative=5e-4)
    norm = model.neck.aggr[1]
    recording.check(norm.running_mean, f"{case}.running_mean_after.neck.aggr.1", relative=5e-4)
    recording.check(norm.running_var, f"{case}.running_var_after.neck.aggr.1", relative=5e-4)
