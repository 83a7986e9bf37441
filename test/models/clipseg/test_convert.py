# SPDX-License-Identifier: Apache-2.0
"""Every layout that CLIPSeg is published in, at a small size."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.clip.backbone import ClipConfig, TextConfig, VisionConfig
from clip_seg_ros.models.clip.tokenizer import tokenizer_config
from clip_seg_ros.models.clipseg.model import CLIPSeg, CLIPSegConfig
from clip_seg_ros.models.spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from clip_seg_ros.zoo.build import build_from_config
from clip_seg_ros.zoo.formats import convert

# After the models, which make torchvision importable where it does not fit torch.
from transformers import CLIPSegConfig as TheirConfig  # isort: skip
from transformers import CLIPSegForImageSegmentation  # isort: skip

Tensors = dict[str, torch.Tensor]
OPTIONS = {"extract_layers": (0, 2, 3), "n_heads": 2, "vision_head_width": 12, "text_head_width": 8}


def model_config(refined: bool) -> dict:
    return {
        "kind": "clipseg",
        "clip": ClipConfig(
            embed_dim=20,
            vision=VisionConfig(layers=5, width=24, image_size=64, patch_size=16, head_width=12),
            text=TextConfig(context_length=9, vocab_size=30, width=16, heads=2, layers=2),
            quick_gelu=True,
        ).to_dict(),
        "clipseg": CLIPSegConfig(
            embed_dim=20,
            extract_layers=(0, 2, 3),
            tap_widths=(24, 24, 24),
            stride=16,
            prefix_tokens=1,
            input_spec=InputSpec(352, "squash", 16, IMAGENET_MEAN, IMAGENET_STD),
            reduce_dim=8,
            n_heads=2,
            feed_forward=32,
            complex_trans_conv=refined,
        ).to_dict(),
        "tokenizer": tokenizer_config(30, 9),
    }


@pytest.fixture(params=[False, True], ids=["simple", "refined"])
def model(request: pytest.FixtureRequest) -> CLIPSeg:
    torch.manual_seed(1)
    model = CLIPSeg.from_config("tiny", model_config(request.param))
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return model.eval()


def split(model: CLIPSeg) -> tuple[Tensors, Tensors]:
    """(the authors' decoder file, a CLIP in OpenAI's layout)"""
    clip = {key.removeprefix("clip."): value for key, value in model.state_dict().items() if key.startswith("clip.")}
    decoder = {
        key.removeprefix("decoder."): value for key, value in model.state_dict().items() if key.startswith("decoder.")
    }
    unused = {"reduce.weight": torch.zeros(8, 24), "reduce.bias": torch.zeros(8)}
    return {**decoder, **unused}, clip


def check_same(converted: Mapping[str, torch.Tensor], model: CLIPSeg) -> None:
    wanted = model.state_dict()
    assert converted.keys() == wanted.keys()
    assert all(torch.equal(converted[key], wanted[key]) for key in wanted)


def test_the_authors_decoder_with_openais_clip(model: CLIPSeg) -> None:
    decoder, clip = split(model)
    # OpenAI's archives are half precision and hold three numbers that are no weights.
    archive = {key: value.half() for key, value in clip.items()}
    archive |= {name: torch.tensor(1) for name in ("input_resolution", "context_length", "vocab_size")}
    converted = convert(decoder, "rd64-uni.pth", {**OPTIONS, "clip": archive})
    assert converted.config == model_config(model.decoder.config.complex_trans_conv)
    model.clip.half().float()
    check_same(converted.tensors, model)
    assert all(tensor.dtype == torch.float32 for tensor in converted.tensors.values())


def test_the_authors_whole_module(model: CLIPSeg) -> None:
    decoder, clip = split(model)
    whole = {**decoder, **{f"clip_model.{key}": value for key, value in clip.items()}}
    # The image tower is in it twice.
    whole |= {key.replace("visual", "model", 1): value for key, value in clip.items() if key.startswith("visual.")}
    converted = convert(whole, "module.pth", OPTIONS)
    assert converted.config == model_config(model.decoder.config.complex_trans_conv)
    check_same(converted.tensors, model)


def hugging_face(refined: bool = True) -> CLIPSegForImageSegmentation:
    config = TheirConfig(
        text_config={
            "vocab_size": 30,
            "hidden_size": 16,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 9,
            "eos_token_id": 29,
            "projection_dim": 20,
        },
        vision_config={
            "hidden_size": 24,
            "intermediate_size": 96,
            "num_hidden_layers": 5,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 16,
        },
        projection_dim=20,
        reduce_dim=8,
        extract_layers=[0, 2, 3],
        decoder_intermediate_size=32,
        decoder_num_attention_heads=2,
        use_complex_transposed_convolution=refined,
    )
    torch.manual_seed(0)
    return CLIPSegForImageSegmentation(config)


@pytest.mark.parametrize("refined", [False, True])
def test_hugging_face(refined: bool) -> None:
    tensors = hugging_face(refined).state_dict()
    converted = convert(tensors, "model.safetensors", OPTIONS)
    assert converted.config == model_config(refined)
    build_from_config("whole", converted.config, converted.tensors, "model.safetensors")
    # Older files hold buffers that are no weights.
    old = {**tensors, "clip.text_model.embeddings.position_ids": torch.arange(9)[None]}
    old["clip.vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    assert convert(old, "old.bin", OPTIONS).tensors.keys() == converted.tensors.keys()


def test_every_fault_of_a_hugging_face_file_is_named() -> None:
    tensors = hugging_face().state_dict()
    del tensors["decoder.film_add.bias"]
    key = "clip.vision_model.encoder.layers.1.self_attn.k_proj.weight"
    tensors["clip.vision_model.encoder.layers.1.self_attn.key.weight"] = tensors.pop(key)
    tensors["clip.visual_projection.weight"] = tensors["clip.visual_projection.weight"].T.contiguous()
    tensors["decoder.layers.2.mlp.fc2.weight"] = tensors["decoder.layers.2.mlp.fc2.weight"][:-1]
    with pytest.raises(WeightsError) as caught:
        convert(tensors, "model.safetensors", OPTIONS)
    message = str(caught.value)
    assert message.startswith("model.safetensors (Hugging Face CLIPSeg) is not whole: ")
    faults = message.split(": ", 1)[1].split("; ")
    assert sorted(faults) == [
        "clip.vision_model.encoder.layers.1.self_attn.k_proj.weight is missing",
        "clip.vision_model.encoder.layers.1.self_attn.key.weight is unexpected",
        "clip.visual_projection.weight is (24, 20) and should be (20, 24)",
        "decoder.film_add.bias is missing",
        "decoder.layers.2.mlp.fc2.weight is (7, 32) and should be (8, 32)",
    ]


def test_faults_of_a_clip_given_apart_are_named(model: CLIPSeg) -> None:
    decoder, clip = split(model)
    del clip["visual.ln_post.bias"]
    decoder["blocks.0.norm1.wieght"] = decoder.pop("blocks.0.norm1.weight")
    with pytest.raises(WeightsError) as caught:
        convert(decoder, "rd64-uni.pth", {**OPTIONS, "clip": clip})
    assert sorted(str(caught.value).split(": ", 1)[1].split("; ")) == [
        "blocks.0.norm1.weight is missing",
        "blocks.0.norm1.wieght is unexpected",
        "visual.ln_post.bias is missing",
    ]


def test_what_leaves_no_trace_can_be_told(model: CLIPSeg) -> None:
    decoder, clip = split(model)
    options = {"vision_head_width": 12, "text_head_width": 8, "clip": clip}
    # Without a word, the published blocks are tapped; this tower is not that deep.
    with pytest.raises(ValueError, match=r"within 0\.\.4, got \(3, 6, 9\)"):
        convert(decoder, "rd64-uni.pth", options)
    told = convert(decoder, "rd64-uni.pth", {**options, "extract_layers": (1, 2, 4), "cond_layer": 2, "n_heads": 8})
    values = told.config["clipseg"]
    assert (values["extract_layers"], values["cond_layer"], values["n_heads"]) == ((1, 2, 4), 2, 8)
    published = convert(decoder, "rd64-uni.pth", {**options, "extract_layers": (1, 2, 4)}).config["clipseg"]
    assert (published["cond_layer"], published["n_heads"]) == (0, 4)


def test_images_may_be_smoothed(model: CLIPSeg) -> None:
    tensors = {f"clip_model.{key}": value for key, value in model.clip.state_dict().items()}
    tensors.update(model.decoder.state_dict())
    told = convert(tensors, "rd64.pth", {**OPTIONS, "antialias": False}).config["clipseg"]
    assert not told["input_spec"]["antialias"]


def test_templates_belong_to_the_weights(model: CLIPSeg) -> None:
    tensors = {f"clip_model.{key}": value for key, value in model.clip.state_dict().items()}
    tensors.update(model.decoder.state_dict())
    assert convert(tensors, "rd64.pth", OPTIONS).config["clipseg"]["templates"] == ()
    told = convert(tensors, "rd64.pth", {**OPTIONS, "templates": ["a photo of a {}.", "{}"]}).config["clipseg"]
    assert told["templates"] == ("a photo of a {}.", "{}")
