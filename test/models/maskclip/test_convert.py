# SPDX-License-Identifier: Apache-2.0
"""Whole CLIPs and the three kinds of files of MaskCLIP's authors become the same model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.spec import CLIP_MEAN, IMAGENET_MEAN
from clip_seg_ros.zoo.build import build_from_config
from clip_seg_ros.zoo.formats import convert

GOLDEN = Path(__file__).parents[2] / "data" / "golden"
HEADS = {"vision_head_width": 12, "text_head_width": 8}
CLASSES = ("cup", "bowl", "box")
KINDS = ("clip_weights", "backbone", "segmentor")
Tensors = dict[str, torch.Tensor]


@pytest.fixture(params=["vit", "rn"])
def clip(request: pytest.FixtureRequest) -> Tensors:
    """The tensors of a whole small CLIP in OpenAI's layout."""
    return load_file(GOLDEN / f"maskclip_{request.param}.safetensors")


def rows_for(clip: Tensors) -> torch.Tensor:
    return torch.randn(len(CLASSES), clip["text_projection"].shape[1], generator=torch.Generator().manual_seed(0))


def authors_file(clip: Tensors, kind: str) -> Tensors:
    """What the authors' program makes of a CLIP: (image tower, projections) under the names of one of its files."""
    image, projections = {}, {}
    for key in [key for key in clip if key.startswith("visual.")]:
        name, value = key.removeprefix("visual."), clip[key]
        if name == "proj":
            projections["proj.weight"] = value.T.contiguous()
        elif name.startswith("attnpool."):
            if name != "attnpool.positional_embedding":
                projections[name.removeprefix("attnpool.")] = value
        elif "visual.proj" in clip:
            image |= vit_tensor(name, value)
        else:
            image[resnet_name(name)] = value
    if kind == "clip_weights":
        nested = {f"clip/{key}": value for key, value in image.items()}
        return nested | {key.replace(".", "/"): value for key, value in projections.items()}
    tensors = {f"backbone.{key}": value for key, value in image.items()}
    if kind == "segmentor":
        tensors["decode_head.text_embeddings"] = rows_for(clip)
        for key, value in projections.items():
            tensors[f"decode_head.{key}"] = value[:, :, None, None] if key.endswith("weight") else value
    return tensors


def vit_tensor(name: str, value: torch.Tensor) -> Tensors:
    if name == "class_embedding":
        return {"cls_token": value[None, None]}
    if name == "positional_embedding":
        return {"pos_embed": value[None]}
    plain = {"conv1": "patch_embed.projection", "ln_pre": "ln0", "ln_post": "ln1"}
    block = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(ln_1|ln_2|attn|mlp\.c_fc|mlp\.c_proj)\.(.*)", name)
    if block is None:
        part, rest = name.split(".")
        return {f"{plain[part]}.{rest}": value}
    parts = {"ln_1": "ln1", "ln_2": "ln2", "attn": "attn.attn", "mlp.c_fc": "ffn.layers.0.0"}
    return {f"layers.{block[1]}.{parts.get(block[2], 'ffn.layers.1')}.{block[3]}": value}


def resnet_name(name: str) -> str:
    stem = ("conv1", "bn1", None, "conv2", "bn2", None, "conv3", "bn3")
    part, rest = name.split(".", 1)
    if part in stem:
        return f"stem.{stem.index(part)}.{rest}"
    return name.replace("downsample.1", "downsample.2").replace("downsample.0", "downsample.1")


@pytest.mark.parametrize("kind", KINDS)
def test_the_authors_files_equal_their_source(clip: Tensors, kind: str) -> None:
    file = authors_file(clip, kind)
    source = convert(clip, "clip", HEADS).tensors
    opened = convert(file, "file", {**HEADS, "clip": clip})
    assert opened.tensors.keys() == source.keys()
    assert all(torch.equal(opened.tensors[key], source[key]) for key in source)
    model = build_from_config("opened", opened.config, opened.tensors, "file")
    assert model.open_vocabulary
    assert model.encode_templates(torch.tensor([[[126, 5, 127, 0]]])).pooled.isfinite().all()


@pytest.mark.parametrize("kind", ["clip_weights", "segmentor"])
def test_the_authors_files_with_a_list_of_classes(clip: Tensors, kind: str) -> None:
    rows = rows_for(clip)
    options = {**HEADS, "class_names": CLASSES} | ({} if kind == "segmentor" else {"text_embeddings": rows})
    converted = convert(authors_file(clip, kind), "file", options)
    assert torch.equal(converted.tensors["text_embeddings"], rows)
    assert not any(key.startswith("text.") for key in converted.tensors)
    model = build_from_config("closed", converted.config, converted.tensors, "file").eval()
    assert model.class_names == CLASSES
    assert model.background_prompts == ()
    assert torch.equal(model.encode_text(("box", "cup")).pooled, rows[[2, 0]])


@pytest.mark.parametrize("kind", KINDS)
def test_faults_have_the_names_of_the_file(clip: Tensors, kind: str) -> None:
    file = authors_file(clip, kind)
    vit = "visual.proj" in clip

    def key_of(ending: str) -> str:
        return next(key for key in file if key.endswith(ending))

    removed = key_of("layers.1.attn.attn.in_proj_bias" if vit else "layer2.0.downsample.2.bias")
    misshaped = key_of("layers.0.ffn.layers.1.bias" if vit else "layer4.0.bn2.running_var")
    renamed = key_of("ln0.weight" if vit else "stem.4.bias")
    del file[removed]
    file[f"{renamed}_old"] = file.pop(renamed)
    file[misshaped] = file[misshaped][1:]
    with pytest.raises(WeightsError) as caught:
        convert(file, "file.pth", {**HEADS, "clip": clip})
    message = str(caught.value)
    assert f"{removed} is missing" in message
    assert f"{renamed} is missing" in message
    assert f"{renamed}_old is unexpected" in message
    size = len(file[misshaped])
    assert f"{misshaped} is ({size},) and should be ({size + 1},)" in message
    assert message.count(" is missing") == 2
    assert message.count(" unexpected") == 1
    assert message.count("should be") == 1


def test_faults_of_projections_have_the_names_of_the_file(clip: Tensors) -> None:
    file = authors_file(clip, "clip_weights")
    if "proj/weight" in file:
        file["proj/weight"] = file["proj/weight"][:, :-1]
        fault = r"is not whole: proj/weight is \(40, 47\) and should be \(40, 48\)$"
    else:
        del file["v_proj/bias"]
        fault = r"is not whole: v_proj/bias is missing$"
    with pytest.raises(WeightsError, match=fault):
        convert(file, "file.pth", {**HEADS, "clip": clip})


def test_faults_of_the_clip_beside_are_named(clip: Tensors) -> None:
    damaged = dict(clip)
    del damaged["ln_final.bias"]
    with pytest.raises(WeightsError, match=r"is not whole: ln_final\.bias is missing$"):
        convert(authors_file(clip, "segmentor"), "file.pth", {**HEADS, "clip": damaged})


@pytest.mark.parametrize("kind", ["clip_weights", "backbone"])
def test_the_image_side_alone_asks_for_words(clip: Tensors, kind: str) -> None:
    what = "without text embeddings" + (" and the projection onto them" if kind == "backbone" else "")
    with pytest.raises(WeightsError, match=rf"image side alone, {what}, .*--clip FILE"):
        convert(authors_file(clip, kind), "file.pth", HEADS)


def test_a_backbone_with_embeddings_still_lacks_its_projection(clip: Tensors) -> None:
    options = {**HEADS, "text_embeddings": rows_for(clip), "class_names": CLASSES}
    with pytest.raises(WeightsError, match=r"decode_head\.(c_)?proj\.weight is missing"):
        convert(authors_file(clip, "backbone"), "file.pth", options)


@pytest.mark.parametrize(
    ("names", "message"), [(None, "3 classes without their names"), (("cup",), "3 classes, but 1 names")]
)
def test_classes_must_be_named(clip: Tensors, names: tuple[str, ...] | None, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        convert(authors_file(clip, "segmentor"), "file.pth", {**HEADS} | ({"class_names": names} if names else {}))


def test_bookkeeping_of_openai_is_left_out(clip: Tensors) -> None:
    scalars = {name: torch.tensor(7) for name in ("input_resolution", "context_length", "vocab_size")}
    assert convert({**clip, **scalars}, "clip", HEADS).tensors.keys() == convert(clip, "clip", HEADS).tensors.keys()
    opened = convert(authors_file(clip, "segmentor"), "file", {**HEADS, "clip": {**clip, **scalars}})
    assert not scalars.keys() & opened.tensors.keys()


def test_options(clip: Tensors) -> None:
    plain = convert(clip, "clip", HEADS).config
    assert plain["clip"]["quick_gelu"]
    assert not plain["maskclip"]["official_tower"]
    assert plain["maskclip"]["input_spec"]["mean"] == CLIP_MEAN
    assert plain["maskclip"]["input_spec"]["antialias"], "as CLIP saw its images"
    told = convert(
        clip,
        "clip",
        {
            **HEADS,
            "quick_gelu": False,
            "official_tower": True,
            "antialias": False,
            "key_smoothing": 1.0,
            "prompt_denoising": 0.5,
            "pamr_iterations": 3,
        },
    ).config
    assert not told["clip"]["quick_gelu"]
    assert told["maskclip"]["official_tower"]
    own = told["maskclip"]
    assert own["input_spec"]["mean"] == IMAGENET_MEAN
    assert not own["input_spec"]["antialias"], "as MaskCLIP's authors resize"
    assert (own["key_smoothing"], own["prompt_denoising"], own["pamr_iterations"]) == (1.0, 0.5, 3)
    # The authors' own files are read as their program reads them.
    assert convert(authors_file(clip, "segmentor"), "file", {**HEADS, "class_names": CLASSES}).config["maskclip"][
        "official_tower"
    ]
    with pytest.raises(ValueError, match="takes no colour"):
        convert(clip, "clip", {"colour": "red"})
