# SPDX-License-Identifier: Apache-2.0
"""The whole file of the hub, and the projection beside its towers in two layouts, become the same model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.spec import IMAGENET_MEAN
from clip_seg_ros.models.talk2dino.dino import DinoConfig
from clip_seg_ros.models.talk2dino.model import TEMPLATES
from clip_seg_ros.zoo.build import build_from_config
from clip_seg_ros.zoo.formats import convert, recognise

GOLDEN = Path(__file__).parents[2] / "data" / "golden" / "talk2dino.safetensors"
HEADS = {"dino_head_width": 8, "text_head_width": 8}
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def whole() -> Tensors:
    """The tensors of a small model under the authors' names."""
    return load_file(GOLDEN)


def part(whole: Tensors, prefix: str) -> Tensors:
    return {key.removeprefix(prefix): value for key, value in whole.items() if key.startswith(prefix)}


def as_timm_publishes_it(hub: Tensors) -> Tensors:
    from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

    options = {"embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 0, "init_values": 1.0}
    model = VisionTransformer(20, 4, reg_tokens=4, no_embed_class=True, **options)
    return checkpoint_filter_fn(dict(hub), model)


def test_whole_file(whole: Tensors) -> None:
    whole |= {
        "pamr.aff_m.kernel": torch.zeros(8, 1, 3, 3),
        "clip_model.visual.proj": torch.zeros(16, 20),
        "clip_model.input_resolution": torch.tensor(224),
    }
    assert recognise(whole, "file").title == "Talk2DINO"
    converted = convert(whole, "file", HEADS)
    own = converted.config["talk2dino"]
    assert DinoConfig(**own["dino"]) == DinoConfig(layers=2, width=16, heads=2, image_size=20, patch_size=4)
    assert own["input_spec"]["mean"] == IMAGENET_MEAN
    assert own["input_spec"]["multiple"] == 4
    assert own["background_cleaning"] is None
    model = build_from_config("small", converted.config, converted.tensors, "file")
    assert model.config.templates == TEMPLATES


@pytest.mark.parametrize("of_tower", [dict, as_timm_publishes_it], ids=["torch.hub", "timm"])
def test_projection_with_its_towers(whole: Tensors, of_tower) -> None:
    projection = part(whole, "proj.")
    assert recognise(projection, "file").title == "projection of Talk2DINO"
    towers = {"clip": part(whole, "clip_model."), "dino": of_tower(part(whole, "model."))}
    found = convert(projection, "file", {**HEADS, **towers})
    expected = convert(whole, "whole", HEADS)
    assert found.config == expected.config
    assert found.tensors.keys() == expected.tensors.keys()
    assert all(torch.equal(found.tensors[key], expected.tensors[key]) for key in expected.tensors)


def test_projection_of_the_first_files(whole: Tensors) -> None:
    old = {key.replace("hidden_layers.0.", "linear_layer2."): value for key, value in whole.items()}
    assert old.keys() != whole.keys()
    found, expected = convert(old, "old", HEADS).tensors, convert(whole, "new", HEADS).tensors
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_projection_alone_is_refused_with_advice(whole: Tensors) -> None:
    with pytest.raises(WeightsError, match=r"the projection alone: add .*--clip FILE.*--dino FILE"):
        convert(part(whole, "proj."), "file", {"clip": part(whole, "clip_model.")})


def test_a_tower_without_registers_is_refused(whole: Tensors) -> None:
    del whole["model.register_tokens"]
    with pytest.raises(WeightsError, match="holds no DINOv2 with registers"):
        convert(whole, "file", HEADS)


@pytest.mark.parametrize(("chosen", "weight"), [(True, 0.2), (False, None), (0.5, 0.5)])
def test_background_cleaning(whole: Tensors, chosen: bool | float, weight: float | None) -> None:
    own = convert(whole, "file", {**HEADS, "background_cleaning": chosen}).config["talk2dino"]
    assert own["background_cleaning"] == weight


@pytest.mark.parametrize("chosen", ["yes", -1.0])
def test_wrong_background_cleaning(whole: Tensors, chosen: str | float) -> None:
    with pytest.raises(ValueError, match="background_cleaning must be"):
        convert(whole, "file", {**HEADS, "background_cleaning": chosen})
