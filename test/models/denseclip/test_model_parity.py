# SPDX-License-Identifier: Apache-2.0
"""DenseCLIP against tensors recorded from the authors' implementation (see test/data/golden)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from clip_seg_ros.models.base import TextFeatures
from clip_seg_ros.models.denseclip.convert import published_name
from clip_seg_ros.models.spec import SlidingWindow
from clip_seg_ros.pipeline.sliding import merge_windows, window_boxes
from clip_seg_ros.training.losses import dense_cross_entropy, identity_loss, pixel_accuracy
from clip_seg_ros.zoo.build import build_from_config
from clip_seg_ros.zoo.formats import convert

SHARED = {"class_names": tuple("abcdef"), "text_head_width": 8, "vision_head_width": 8}
OPTIONS = {"denseclip_rn_fpn": SHARED, "denseclip_vit_fpn": {**SHARED, "blocks": (1, 2, 3, 5)}}


@pytest.fixture(params=OPTIONS)
def recorded(request: pytest.FixtureRequest, golden: Callable) -> tuple:
    """(what was recorded, the model with the recorded weights, the texts of the classes)"""
    recording = golden(request.param, relative=2e-5)
    converted = convert(recording.weights(), request.param, OPTIONS[request.param])
    model = build_from_config(request.param, converted.config, converted.tensors, request.param).eval()
    names = [" ".join(map(str, row.tolist())).removesuffix(" 0").removesuffix(" 0") for row in recording["in.tokens"]]
    return recording, model, model.encode_text(names)


@torch.no_grad()
def test_every_stage(recorded: tuple) -> None:
    recording, model, text = recorded
    case, decoder = "out.img64", model.context_decoder
    seen: dict[str, torch.Tensor] = {}
    watched = {
        "context_decoder.memory": decoder.memory_proj,
        "context_decoder.text_proj": decoder.text_proj,
        "context_decoder.layer0": decoder.decoder[0],
        "context_decoder_text_diff": decoder,
    }
    hooks = [
        module.register_forward_hook(lambda _m, _i, output, key=key: seen.__setitem__(key, output))
        for key, module in watched.items()
    ]
    features = model.encode_image(recording["in.image64"])
    recording.check(text.pooled[None], f"{case}.text_encoder_out_1K")
    for index, tap in enumerate(features.maps):
        recording.check(tap, f"{case}.backbone.out{index}")
    recording.check(features.pooled, f"{case}.backbone.global_feat")
    recording.check(features.dense, f"{case}.backbone.visual_embeddings")
    recording.check(model.texts_in_context(features, text), f"{case}.text_embeddings_final")
    for hook in hooks:
        hook.remove()
    for key, value in seen.items():
        recording.check(value, f"{case}.{key}")
    logits, scores = model.decode_with_scores(features, text)
    recording.check(scores, f"{case}.score_map")
    stage = model.backbone.score_stage
    joined = torch.cat([features.maps[stage], scores], dim=1)
    recording.check(joined, f"{case}.x_orig_concat_index{stage}")
    maps = [joined if index == stage else tap for index, tap in enumerate(features.maps)]
    for index, level in enumerate(model.neck(maps)):
        recording.check(level, f"{case}.neck.out{index}")
    recording.check(logits, f"{case}.decode_head.logits")
    resized = F.interpolate(logits, size=(64, 64), mode="bilinear", align_corners=False)
    recording.check(resized, f"{case}.encode_decode_logits_input_size")


@torch.no_grad()
def test_another_size(recorded: tuple) -> None:
    recording, model, text = recorded
    case = "out.img96x128"
    features = model.encode_image(recording["in.image96x128"])
    recording.check(features.pooled, f"{case}.backbone.global_feat")
    recording.check(features.dense, f"{case}.backbone.visual_embeddings")
    recording.check(model.texts_in_context(features, text), f"{case}.text_embeddings_final")
    logits, scores = model.decode_with_scores(features, text)
    recording.check(scores, f"{case}.score_map")
    recording.check(logits, f"{case}.decode_head.logits")


@torch.no_grad()
def test_sliding_windows(recorded: tuple) -> None:
    recording, model, text = recorded
    pixels = recording["in.image96x128"]
    boxes = window_boxes((96, 128), SlidingWindow(64, 43))
    windows = torch.cat([pixels[:, :, top:bottom, left:right] for top, left, bottom, right in boxes])
    merged = merge_windows(model.decode(model.encode_image(windows), text), boxes, (96, 128))[None]
    recording.check(merged, "out.slide.logits_no_rescale_96x128")
    rescaled = F.interpolate(merged, size=(70, 90), mode="bilinear", align_corners=False)
    recording.check(model.probabilities(rescaled)[:, :3], "out.slide.probs_rescaled_to_70x90")


def test_losses_and_gradients(recorded: tuple) -> None:
    recording, model, _ = recorded
    # The authors freeze it by a learning rate of 0, so that its gradients are recorded too.
    model.text_encoder.requires_grad_(True)
    case, labels = "out.train_eval_mode", recording["in.gt"][:, 0].long()
    names = [" ".join(map(str, row[row != 0].tolist())) for row in recording["in.tokens"]]
    text: TextFeatures = model.encode_text(names)
    logits, scores = model.decode_with_scores(model.encode_image(recording["in.image64"]), text)
    decode, identity = dense_cross_entropy(logits, labels), identity_loss(scores, labels, model.config.tau)
    recording.check(decode, f"{case}.decode.loss_ce")
    recording.check(identity, f"{case}.aux_identity.loss_ce")
    recording.check(decode + identity, f"{case}.total")
    recording.check(100 * pixel_accuracy(logits, labels)[None], f"{case}.decode.acc_seg")
    recording.check(100 * pixel_accuracy(scores, labels)[None], f"{case}.aux_identity.acc_seg")
    (decode + identity).backward()
    norms = {published_name(key): p.grad.norm() for key, p in model.named_parameters() if p.grad is not None}
    prefix = f"{case}.grad_norm."
    assert len(norms) > 100
    recording.check_norms(norms, prefix, relative=1e-4)
