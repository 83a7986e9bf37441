# SPDX-License-Identifier: Apache-2.0
"""Files with each full-size published layout convert, load strictly and run; damaged ones are refused by name."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch

from clip_seg_ros.models.base import PromptableSegmenter
from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.clip.tokenizer import ClipTokenizer
from clip_seg_ros.models.conversion.reading import read_tensors
from clip_seg_ros.resources import class_list
from clip_seg_ros.tools.cli import main
from clip_seg_ros.zoo.build import build_from_config
from clip_seg_ros.zoo.formats import convert
from published_layouts import published

LAYOUTS = Path(__file__).parents[2] / "data" / "layouts"

PHRASES = ("the red cup", "a bowl")
CONTEXT = {"class_names": class_list("pascal_context59")}
# layout -> (layout of the CLIP beside it, other options, side of the image, a key to remove, to rename, to mis-shape)
CASES = {
    "clipseg_hf_rd64": (
        None,
        {},
        64,
        "clip.visual_projection.weight",
        "decoder.layers.2.self_attn.k_proj.bias",
        "clip.text_model.encoder.layers.11.mlp.fc1.weight",
    ),
    "clipseg_hf_rd64_refined": (
        None,
        {},
        64,
        "decoder.transposed_convolution.4.bias",
        "decoder.reduces.1.weight",
        "clip.vision_model.encoder.layers.5.self_attn.q_proj.weight",
    ),
    "clipseg_rd64": ("openai_clip_vit_b16", {}, 64, "film_add.bias", "blocks.1.norm2.weight", "reduces.0.weight"),
    "clipseg_rd64_refined": (
        "openai_clip_vit_b16",
        {},
        64,
        "trans_conv.2.bias",
        "blocks.0.linear2.bias",
        "film_mul.bias",
    ),
    "clipseg_rd16": ("open_clip_vit_b16", {}, 64, "trans_conv.bias", "reduces.2.bias", "blocks.2.linear1.bias"),
    "cris_r50": (
        None,
        {},
        64,
        "neck.norm_layer.0.running_var",
        "proj.vis.4.bias",
        "decoder.layers.2.ffn.3.weight",
    ),
    "cris_r101": (
        None,
        {"word_length": 22},
        64,
        "backbone.visual.attnpool.connect.0.weight",
        "backbone.visual.layer3.22.bn3.weight",
        "proj.txt.weight",
    ),
    "denseclip_rn50_fpn_ade20k": (
        None,
        {},
        64,
        "gamma",
        "decode_head.scale_heads.3.4.bn.weight",
        "neck.lateral_convs.3.conv.weight",
    ),
    "denseclip_rn101_fpn_ade20k": (
        None,
        {},
        64,
        "backbone.attnpool.c_proj.bias",
        "context_decoder.out_proj.0.weight",
        "text_encoder.ln_final.bias",
    ),
    "denseclip_vit_b_fpn_ade20k": (
        None,
        {},
        64,
        "backbone.fpn1.2.running_mean",
        "backbone.fpn3.weight",
        "text_encoder.transformer.resblocks.4.ln_1.weight",
    ),
    "openai_clip_vit_b16": (
        None,
        {},
        64,
        "visual.ln_post.bias",
        "transformer.resblocks.3.ln_2.weight",
        "visual.proj",
    ),
    "openai_clip_rn50": (
        None,
        {},
        64,
        "visual.attnpool.c_proj.bias",
        "visual.layer4.2.bn3.weight",
        "visual.conv2.weight",
    ),
    "openai_clip_rn101": (None, {}, 64, "ln_final.weight", "visual.layer3.22.bn1.bias", "visual.bn3.running_mean"),
    "open_clip_vit_b16": (
        None,
        {"quick_gelu": False, "variant": "naclip"},
        64,
        "visual.class_embedding",
        "ln_final.bias",
        "visual.transformer.resblocks.0.mlp.c_fc.bias",
    ),
    "open_clip_rn50": (None, {}, 64, "visual.bn1.bias", "visual.conv3.weight", "visual.layer1.0.downsample.0.weight"),
    "maskclip_vit16_segmentor_context59": (
        None,
        CONTEXT,
        64,
        "backbone.cls_token",
        "backbone.layers.7.ffn.layers.1.bias",
        "decode_head.proj.weight",
    ),
    "maskclip_rn50_segmentor_context59": (
        None,
        CONTEXT,
        64,
        "backbone.stem.4.bias",
        "backbone.layer2.0.downsample.1.weight",
        "decode_head.v_proj.weight",
    ),
    "maskclip_vit16_clip_weights": (
        "openai_clip_vit_b16",
        {},
        64,
        "clip/ln1.bias",
        "clip/layers.0.ln2.weight",
        "proj/weight",
    ),
    "maskclip_rn50_clip_weights": (
        "openai_clip_rn50",
        {},
        64,
        "v_proj/bias",
        "clip/layer3.5.bn2.weight",
        "clip/stem.0.weight",
    ),
    "maskclip_vit16_clip_backbone": (
        "openai_clip_vit_b16",
        {},
        64,
        "backbone.ln0.weight",
        "backbone.layers.11.attn.attn.in_proj_bias",
        "backbone.pos_embed",
    ),
    "maskclip_rn50_clip_backbone": (
        "openai_clip_rn50",
        {},
        64,
        "backbone.stem.7.bias",
        "backbone.layer4.0.conv1.weight",
        "backbone.layer1.0.bn1.running_var",
    ),
    "talk2dino_vitb": (
        None,
        {"background_cleaning": True},
        56,
        "model.blocks.3.ls1.gamma",
        "proj.hidden_layers.0.bias",
        "clip_model.transformer.resblocks.3.ln_2.weight",
    ),
    "talk2dino_vitb_projection": (
        "openai_clip_vit_b16",
        {},
        56,
        "hidden_layers.0.weight",
        "linear_layer.bias",
        "linear_layer.weight",
    ),
}
TOWERS = {"talk2dino_vitb_projection": "dinov2_vitb14_reg4"}


def options_of(name: str, empty: bool) -> dict:
    clip, options, *_ = CASES[name]
    beside = {} if clip is None else {"clip": published(clip, empty)}
    if name in TOWERS:
        beside["dino"] = published(TOWERS[name], empty)
    return {**options, **beside}


@pytest.mark.parametrize("name", CASES)
@torch.inference_mode()
def test_converts_loads_and_runs(name: str) -> None:
    side = CASES[name][2]
    converted = convert(published(name), name, options_of(name, empty=False))
    if "maskclip" in converted.config:
        # One template in the place of 85, which take most of the time and are the same for every layout.
        converted.config["maskclip"]["templates"] = ("a photo of a {}.",)
    model: PromptableSegmenter = build_from_config(name, converted.config, converted.tensors, name).eval()
    prompts = PHRASES if model.class_names is None else model.class_names
    logits = model.decode(model.encode_image(torch.randn(1, 3, side, side)), model.encode_text(prompts))
    assert logits.shape[:2] == (1, len(prompts))
    assert logits.isfinite().all()
    assert logits.std() > 0


@pytest.mark.parametrize("name", CASES)
def test_every_fault_is_named(name: str) -> None:
    removed, renamed, misshaped = CASES[name][3:]
    # A fault of shape needs no numbers.
    tensors = published(name, empty=True)
    del tensors[removed]
    tensors[f"{renamed}x"] = tensors.pop(renamed)
    whole = tensors[misshaped]
    tensors[misshaped] = torch.empty([*whole.shape[:-1], whole.shape[-1] + 1], device="meta")
    with pytest.raises(WeightsError) as caught:
        convert(tensors, name, options_of(name, empty=True))
    message = str(caught.value)
    assert message.startswith(f"{name} (")
    assert "is not whole" in message
    assert f"{removed} is missing" in message
    assert f"{renamed} is missing" in message
    assert f"{renamed}x is unexpected" in message
    # The axes of length 1 of a 1x1 convolution do not matter where it is a matrix here.
    right = (tuple(whole.shape), tuple(side for side in whole.shape if side != 1))
    found = f"{misshaped} is {tuple(tensors[misshaped].shape)} and should be"
    assert any(f"{found} {shape}" in message for shape in right)
    # And nothing else is wrong.
    assert message.count(";") == 3


@pytest.mark.parametrize("name", ["cris_r50", "cris_r101"])
def test_cris_as_it_lies_in_its_file(tmp_path: Path, name: str) -> None:
    whole = published(name)
    # All of them are pieces of one noise, which the file holds once: 100 MB and not 600.
    weights = {f"module.{key}": value for key, value in whole.items()}
    content = {"epoch": 50, "best_iou": 0.7, "prec": {"Pr@50": 0.8}, "state_dict": weights, "optimizer": {"state": {}}}
    torch.save(content, tmp_path / "best_model.pth")
    found = read_tensors(tmp_path / "best_model.pth")
    assert found.keys() == whole.keys()
    converted, direct = convert(found, name), convert(whole, name)
    assert converted.config == direct.config
    assert all(value.equal(direct.tensors[key]) for key, value in converted.tensors.items())


def test_maskclip_for_a_list_of_classes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    nested: dict = {}
    for key, value in published("maskclip_vit16_clip_weights").items():
        group, _, name = key.partition("/")
        nested.setdefault(group, {})[name] = value
    torch.save(nested, tmp_path / "ViT16_clip_weights.pth")
    torch.save(torch.nn.functional.normalize(torch.randn(59, 512), dim=1), tmp_path / "context_ViT16_clip_text.pth")
    command = ["weights", "verify", str(tmp_path / "ViT16_clip_weights.pth"), "--classes", "pascal_context59"]
    assert main([*command, "--text-embeddings", str(tmp_path / "context_ViT16_clip_text.pth")]) == 0
    assert (
        "is a whole MaskCLIP of its authors: MaskCLIP, 86.2 million parameters, 59 classes" in capsys.readouterr().out
    )


def test_ade20k_is_named_as_in_training() -> None:
    names, tokens = (
        json.loads(gzip.decompress((LAYOUTS / f"denseclip_ade20k_class_{what}.json.gz").read_bytes()))
        for what in ("names", "tokens_len5")
    )
    assert class_list("ade20k") == tuple(name.strip() for name in names)
    assert ClipTokenizer(5)(class_list("ade20k")).tolist() == tokens
