# SPDX-License-Identifier: Apache-2.0
"""Talk2DINO against tensors recorded from the authors' implementation (see test/data/golden)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from clip_seg_ros.models.base import TextFeatures
from clip_seg_ros.models.talk2dino.model import Talk2DINO
from clip_seg_ros.zoo.build import build_from_config
from clip_seg_ros.zoo.formats import convert

HEADS = {"dino_head_width": 8, "text_head_width": 8}
IMAGES = ("image0", "image1")
TEXTS = 3e-5
"""The limit for texts, whose sharp attention enlarges the errors of rounding."""


@pytest.fixture
def recording(golden: Callable):
    return golden("talk2dino", relative=1e-5)


def model_of(recording, **options) -> Talk2DINO:
    converted = convert(recording.weights(), recording.name, {**HEADS, **options})
    return build_from_config(recording.name, converted.config, converted.tensors, recording.name).eval()


@torch.no_grad()
def test_texts(recording) -> None:
    model = model_of(recording)
    recording.check(model.encode_templates(recording["in.tokens_KTL"]).pooled, "out.text_embeddings", TEXTS)
    recording.check(model.encode_token_ids(recording["in.tokens_KTL"]).pooled, "out.text_embeddings", TEXTS)


@pytest.mark.parametrize("image", IMAGES)
@torch.no_grad()
def test_image_tower(recording, image: str) -> None:
    dense, attention = model_of(recording).dino(recording[f"in.{image}"], with_attention=True)
    recording.check(dense, f"out.{image}.dense")
    recording.check(attention, f"out.{image}.attention")


@pytest.mark.parametrize("image", IMAGES)
@torch.no_grad()
def test_logits(recording, image: str) -> None:
    model, text = model_of(recording), TextFeatures(recording["out.text_embeddings"])
    logits = model.decode(model.encode_image(recording[f"in.{image}"]), text)
    recording.check(logits, f"out.{image}.cosines")
    recording.check(model.probabilities(logits), f"out.{image}.probabilities")


@torch.no_grad()
def test_background_cleaning(recording) -> None:
    model, text = model_of(recording, background_cleaning=True), TextFeatures(recording["out.text_embeddings"])
    # Both images at once, each cleaned by its own range.
    logits = model.decode(model.encode_image(torch.cat([recording[f"in.{image}"] for image in IMAGES])), text)
    for found, image in zip(model.probabilities(logits).split(1), IMAGES, strict=True):
        recording.check(found, f"out.{image}.cleaned")


@torch.no_grad()
def test_whole_answer(recording) -> None:
    model = model_of(recording)
    features = model.encode_image(recording["in.image0"])
    probabilities = model.probabilities(model.decode(features, model.encode_templates(recording["in.tokens_KTL"])))
    # The authors resize with aligned corners.
    resized = F.interpolate(probabilities, size=(24, 24), mode="bilinear", align_corners=True)
    recording.check(resized, "out.image0.probabilities_resized")
