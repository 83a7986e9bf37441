# SPDX-License-Identifier: Apache-2.0
"""The recipes that come with the package, and their defaults, against the authors' configurations.

``test/data/authors_recipes.json`` holds values of these configurations under the authors' names, with the repository,
the commit and the files.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from clip_seg_ros import resources
from clip_seg_ros.models.clip.convert import clip_config
from clip_seg_ros.models.clip.tokenizer import tokenizer_config
from clip_seg_ros.models.conversion.mapping import shapes_of
from clip_seg_ros.resources import class_list
from clip_seg_ros.training.methods import TrainConfig
from clip_seg_ros.training.optimizer import Schedule
from clip_seg_ros.training.recipes.architecture import (
    CLIPSegArchitecture,
    CRISArchitecture,
    DenseCLIPArchitecture,
    InstancesArchitecture,
)
from clip_seg_ros.training.recipes.clipseg import CLIPSegSettings
from clip_seg_ros.training.recipes.cris import CRISRecipe, CRISSettings
from clip_seg_ros.training.recipes.denseclip import DenseCLIPRecipe, DenseCLIPSettings
from clip_seg_ros.training.recipes.denseclip_instances import DenseCLIPInstancesSettings
from clip_seg_ros.training.recipes.sampling import EpochSampler
from clip_seg_ros.training.runner import Stage
from clip_seg_ros.zoo.build import MODEL_KINDS
from clip_seg_ros.zoo.formats import convert
from clip_seg_ros.zoo.plain_clip import PlainClip
from clip_seg_ros.zoo.public_weights import open_clip_tag
from published_layouts import published

AUTHORS = json.loads((Path(__file__).parents[2] / "data" / "authors_recipes.json").read_text())
CLIPSEG = AUTHORS["clipseg"]["rd64-uni"]
CRIS = AUTHORS["cris"]["refcoco/cris_r50"]
DENSECLIP = AUTHORS["denseclip"]["denseclip_fpn_res50_512x512_80k"]
DETECTOR = AUTHORS["denseclip"]["mask_rcnn_denseclip_r50_fpn_1x_coco"]
DENSECLIP_VIT = AUTHORS["denseclip"]["denseclip_fpn_vit-b_640x640_80k"]


def read(name: str) -> TrainConfig:
    config = TrainConfig.from_mapping(yaml.safe_load((resources.config_dir() / name).read_text()))
    assert open_clip_tag(config.model).endswith("/openai"), "it begins with OpenAI's CLIP"
    return config


def full_size(layout: str) -> PlainClip:
    """A CLIP as OpenAI published it, without its numbers."""
    tensors = published(layout, empty=True)
    config = clip_config(tensors, layout)
    return PlainClip(config, tokenizer_config(config.text.vocab_size, 77), tensors, layout)


def rates(stage: Stage, step: int) -> float:
    """The learning rate of parameters without a factor."""
    schedule = stage.schedule
    share = schedule.share(step, stage.steps)
    return stage.warmup.share(step) * (schedule.least + (stage.learning_rate - schedule.least) * share)


def shapes(config: dict[str, Any]) -> dict[str, torch.Size]:
    return shapes_of(lambda: MODEL_KINDS[config["kind"]]("", config))


# CLIPSeg


def test_clipseg_is_trained_as_by_its_authors() -> None:
    config = read("train_clipseg_phrasecut.yaml")
    settings = config.settings()
    assert settings == CLIPSegSettings(), "the defaults are the same"
    assert (settings.steps, settings.batch) == (CLIPSEG["max_iterations"], CLIPSEG["batch_size"])
    assert settings.text_weight == (CLIPSEG["mix_text_min"], CLIPSEG["mix_text_max"])
    assert settings.negative_probability == CLIPSEG["negative_prob"]
    assert (settings.precision == "float16") == CLIPSEG["amp"]
    assert (settings.betas, settings.weight_decay, settings.decay) == ((0.9, 0.999), 0.01, "all"), "PyTorch's AdamW"
    assert (settings.clip_norm, settings.warmup.steps, config.validation) == (None, 0, CLIPSEG["val_interval"])
    schedule = Schedule("cosine", floor=settings.floor)
    for step in (0, 5_000, CLIPSEG["T_max"] - 1):
        cosine = math.cos(math.pi * step / CLIPSEG["T_max"])
        expected = CLIPSEG["eta_min"] + (CLIPSEG["lr"] - CLIPSEG["eta_min"]) * (1 + cosine) / 2
        assert settings.learning_rate * schedule.share(step, settings.steps) == pytest.approx(expected)


def test_clipseg_on_openais_clip_has_the_authors_sizes() -> None:
    config = read("train_clipseg_phrasecut.yaml")
    clip = full_size("openai_clip_vit_b16")
    own = config.read_architecture().on_clip(clip)["clipseg"]
    assert own == CLIPSegArchitecture().on_clip(clip)["clipseg"], "the defaults are the same"
    for ours, theirs in (("extract_layers", "extract_layers"), ("reduce_dim", "reduce_dim"), ("n_heads", "n_heads")):
        assert own[ours] == (tuple(CLIPSEG[theirs]) if isinstance(CLIPSEG[theirs], list) else CLIPSEG[theirs])
    assert own["complex_trans_conv"] == CLIPSEG["complex_trans_conv"]
    assert own["input_spec"]["size"] == CLIPSEG["image_size"]
    assert open_clip_tag(config.model).startswith(CLIPSEG["version"].replace("/", "-"))
    theirs = convert(published("clipseg_rd64", True), "", {"clip": published("openai_clip_vit_b16", True)})
    assert shapes(CLIPSegArchitecture().on_clip(clip)) == shapes(theirs.config)


# CRIS


def cris_stage(settings: CRISSettings) -> Stage:
    small = CRISRecipe.__new__(CRISRecipe)
    torch.nn.Module.__init__(small)
    small.settings, small._new_words, small._validation, small._load = settings, False, None, print
    return CRISRecipe.stages(small)[-1]


def test_cris_is_trained_as_by_its_authors() -> None:
    config = read("train_cris_refcoco.yaml")
    settings = config.settings()
    epoch = EpochSampler(CRIS["train_refs"], CRIS["batch_size"], 0, CRIS["drop_last"]).batches(1)
    assert (settings.steps, settings.batch) == (CRIS["epochs"] * epoch, CRIS["batch_size"])
    assert settings.milestones == tuple(epoch * milestone for milestone in CRIS["milestones"])
    assert settings.clip_factor_from == epoch * CRIS["factor_from_epoch"]
    assert config.validation.every == epoch * CRIS["validated_every_epochs"]
    assert (settings.precision == "float16") == CRIS["grad_scaler"]
    assert settings.sync_batch_norm == CRIS["sync_bn"]
    assert (settings.weight_decay, settings.betas) == (CRIS["weight_decay"], (0.9, 0.999)), "PyTorch's Adam"
    assert (settings.clip_norm is None, settings.warmup.steps) == (not CRIS["max_norm"], 0)
    (ours, defaults) = (cris_stage(settings), cris_stage(CRISSettings()))
    for stage in (ours, defaults):
        before, after = CRIS["milestones"][0] * epoch - 1, CRIS["milestones"][0] * epoch
        assert rates(stage, 0) == rates(stage, before) == CRIS["base_lr"]
        assert rates(stage, after) == pytest.approx(CRIS["base_lr"] * CRIS["lr_decay"])
        factors = dict(stage.rate_factors)
        assert factors["model.clip."] == factors["model.connect."] == CRIS["lr_multi"]
        assert {factors[name] for name in factors if CRIS["full_rate_in_backbone"] in name} == {1.0}
    assert (defaults.steps, defaults.factors_from) == (ours.steps, ours.factors_from)


@pytest.mark.parametrize(
    ("name", "steps"), [("refcoco+/cris_r50", 660), ("refcocog_u/cris_r50", 659), ("refcocog_g/cris_r50", 700)]
)
def test_the_recipe_of_cris_tells_the_epochs_of_the_other_data_sets(name: str, steps: int) -> None:
    assert EpochSampler(AUTHORS["cris"][name]["train_refs"], CRIS["batch_size"], 0, True).batches(1) == steps
    told = (resources.config_dir() / "train_cris_refcoco.yaml").read_text()
    assert f" {steps}" in told
    assert (AUTHORS["cris"][name]["word_len"] == 22) == name.startswith("refcocog")
    assert "word_length: 22" in told


@pytest.mark.parametrize("tower", ["r50", "r101"])
def test_cris_on_openais_clip_has_the_authors_sizes(tower: str) -> None:
    theirs = {**CRIS, **AUTHORS["cris"][f"refcoco/cris_{tower}"]}
    clip = full_size(f"openai_clip_{tower.replace('r', 'rn')}")
    given = read("train_cris_refcoco.yaml").read_architecture().on_clip(clip)
    config = CRISArchitecture().on_clip(clip)
    assert config == given, "the defaults are the same"
    own = config["cris"]
    assert own["fpn_out"] == tuple(theirs["fpn_out"])
    assert (own["n_layers"], own["n_heads"]) == (theirs["num_layers"], theirs["num_head"])
    assert (own["feed_forward"], own["dropout"]) == (theirs["dim_ffn"], theirs["dropout"])
    assert own["input_spec"]["size"] == theirs["input_size"]
    assert config["tokenizer"]["context_length"] == theirs["word_len"]
    assert clip.config.embed_dim == theirs["word_dim"]
    assert CRISArchitecture(word_length=22).on_clip(clip)["tokenizer"]["context_length"] == 22
    assert shapes(config) == shapes(convert(published(f"cris_{tower}", True), "").config)


# DenseCLIP


def test_denseclip_is_trained_as_by_its_authors() -> None:
    config = read("train_denseclip_ade20k.yaml")
    settings = config.settings()
    assert settings == DenseCLIPSettings(), "the defaults are the same"
    assert settings.steps == DENSECLIP["max_iters"]
    assert settings.batch == DENSECLIP["samples_per_gpu"] * DENSECLIP["gpus"]
    assert settings.image_factor == DENSECLIP["lr_mult"]["backbone"]
    assert (settings.decay, DENSECLIP["no_decay_in"]) == ("without_norms", "norm")
    assert settings.identity_weight == DENSECLIP["identity_loss_weight"]
    assert settings.sync_batch_norm == (DENSECLIP["norm"] == "SyncBN")
    assert (settings.clip_norm, settings.betas) == (DENSECLIP["grad_clip"], (0.9, 0.999))
    small = DenseCLIPRecipe.__new__(DenseCLIPRecipe)
    torch.nn.Module.__init__(small)
    small.settings, small._validation, small._load = settings, None, print
    (stage,) = DenseCLIPRecipe.stages(small)
    assert stage.weight_decay == DENSECLIP["weight_decay"]
    least, steps, ramp = DENSECLIP["min_lr"], DENSECLIP["max_iters"], DENSECLIP["warmup_iters"]
    for step in (0, 1, 750, ramp - 1, ramp, 40_000, steps - 1):
        expected = (DENSECLIP["lr"] - least) * (1 - step / steps) ** DENSECLIP["power"] + least
        if step < ramp:
            expected *= 1 - (1 - step / ramp) * (1 - DENSECLIP["warmup_ratio"])
        assert rates(stage, step) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("layout", "tower", "theirs"),
    [
        ("denseclip_rn50_fpn_ade20k", "rn50", DENSECLIP),
        ("denseclip_rn101_fpn_ade20k", "rn101", DENSECLIP),
        ("denseclip_vit_b_fpn_ade20k", "vit_b16", {**DENSECLIP, **DENSECLIP_VIT}),
    ],
)
def test_denseclip_on_openais_clip_has_the_authors_sizes(layout: str, tower: str, theirs: dict[str, Any]) -> None:
    clip = full_size(f"openai_clip_{tower}")
    config = DenseCLIPArchitecture().on_clip(clip, class_list("ade20k"))
    own, spec = config["denseclip"], config["denseclip"]["input_spec"]
    size = theirs["input_resolution"]
    assert (spec["size"], config["vision"]["image_size"]) == (size, size)
    assert [spec["long_side_limit"], spec["size"]] == theirs["img_scale"]
    assert spec["window"] == {"crop": size, "stride": theirs["stride"]}
    assert own["name_length"] == theirs["context_length"]
    assert config["text"]["context_length"] == own["name_length"] + own["n_contexts"] == theirs["text_context_length"]
    assert (own["context_width"], own["context_heads"]) == (theirs["transformer_width"], theirs["transformer_heads"])
    assert (own["context_layers"], own["dropout"]) == (theirs["transformer_layers"], theirs["dropout"])
    assert (own["pyramid_channels"], own["head_channels"]) == (theirs["out_channels"], theirs["channels"])
    if "out_indices" in theirs:
        assert (own["blocks"], own["drop_path"]) == (tuple(theirs["out_indices"]), theirs["drop_path_rate"])
    assert shapes(config) == shapes(convert(published(layout, True), "").config)


# DenseCLIP's detectors


def test_detectors_are_trained_as_by_their_authors() -> None:
    config = read("train_denseclip_instances_coco.yaml")
    settings = config.settings()
    assert settings == DenseCLIPInstancesSettings(), "the defaults are the same"
    batch = DETECTOR["samples_per_gpu"] * DETECTOR["gpus"]
    epoch = EpochSampler(117_266, batch, 0).batches(1)  # the images of COCO's training split that show an object
    assert (settings.batch, settings.steps) == (batch, DETECTOR["epochs"] * epoch)
    assert settings.milestones == tuple(epoch * milestone for milestone in DETECTOR["step"])
    assert (settings.learning_rate, settings.weight_decay) == (DETECTOR["lr"], DETECTOR["weight_decay"])
    assert (settings.clip_norm, settings.image_factor) == (DETECTOR["max_norm"], DETECTOR["backbone_lr_mult"])
    assert (settings.decay, DETECTOR["no_decay_in"]) == ("without_norms", "norm")
    warmup = settings.warmup
    assert (warmup.kind, warmup.steps, warmup.ratio) == tuple(
        DETECTOR[name] for name in ("warmup", "warmup_iters", "warmup_ratio")
    )
    assert settings.views.mirrored == DETECTOR["flip_ratio"]


def test_a_detector_on_openais_clip_has_the_authors_sizes() -> None:
    names = class_list("voc20")
    found = InstancesArchitecture().on_clip(full_size("openai_clip_rn50"), names)
    own = found["denseclip"]
    spec = own["input_spec"]
    assert [spec["long_side_limit"], spec["size"]] == DETECTOR["img_scale"]
    assert found["vision"]["image_size"] == DETECTOR["input_resolution"]
    assert own["name_length"] == DETECTOR["context_length"]
    assert found["text"]["context_length"] == DETECTOR["text_context_length"]
    assert own["pyramid_channels"] == DETECTOR["out_channels"]
    assert (own["box_channels"], own["mask_channels"], own["anchor_px"]) == (1024, 256, 32)
