# SPDX-License-Identifier: Apache-2.0
"""DenseCLIP's converter: what it reads off the shapes, what it may be told, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.denseclip.model import DenseCLIPConfig
from clip_seg_ros.models.spec import CLIP_MEAN, CLIP_STD, InputSpec, SlidingWindow
from clip_seg_ros.zoo.build import build_from_config
from clip_seg_ros.zoo.formats import convert
from nearness import assert_near

GOLDEN = Path(__file__).parents[2] / "data" / "golden"
SHARED = {"class_names": tuple("abcdef"), "text_head_width": 8, "vision_head_width": 8}
OPTIONS: dict[str, dict[str, Any]] = {"rn": SHARED, "vit": {**SHARED, "blocks": (1, 2, 3, 5)}}


def published(tower: str) -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / f"denseclip_{tower}_fpn.safetensors")


@pytest.fixture(params=OPTIONS)
def tower(request: pytest.FixtureRequest) -> str:
    return request.param


def test_sizes_are_read_off_the_shapes(tower: str) -> None:
    config = convert(published(tower), "file", OPTIONS[tower]).config
    assert DenseCLIPConfig.from_dict(config["denseclip"]) == DenseCLIPConfig(
        class_names=tuple("abcdef"),
        input_spec=InputSpec(64, "short_side", 1, CLIP_MEAN, CLIP_STD, 2048, SlidingWindow(64, 42)),
        context_width=24,
        context_layers=2,
        pyramid_channels=16,
        head_channels=12,
        blocks=(1, 2, 3, 5) if tower == "vit" else (3, 5, 7, 11),
    )
    assert config["embed_dim"] == 40
    assert config["quick_gelu"]
    assert config["text"] == {"context_length": 13, "vocab_size": 128, "width": 32, "heads": 4, "layers": 2}
    # Longer than a name may be: too long a name must be seen, not cut.
    assert config["tokenizer"] == {"kind": "ids", "vocab_size": 128, "context_length": 77}
    layers, width = (6, 32) if tower == "vit" else ((1, 2, 1, 1), 8)
    assert (config["vision"]["layers"], config["vision"]["width"]) == (layers, width)


def test_what_leaves_no_trace_can_be_told() -> None:
    """Each option changes the answer, and none of them a shape."""
    tensors, pixels = published("vit"), torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    names = ["126 5 127"] * 6

    @torch.inference_mode()
    def answer(**changed: Any) -> torch.Tensor:
        converted = convert(tensors, "file", {**OPTIONS["vit"], **changed})
        model = build_from_config("told", converted.config, converted.tensors, "file").eval()
        return model.decode(model.encode_image(pixels), model.encode_text(names))

    plain = answer()
    assert_near(answer(context_heads=4), plain)
    told = {"context_heads": 2, "blocks": (0, 2, 3, 5), "text_head_width": 16, "vision_head_width": 16}
    for name, value in told.items():
        assert (answer(**{name: value}) - plain).abs().max() > 1e-4, name


def test_every_fault_is_named(tower: str) -> None:
    tensors = published(tower)
    removed, renamed, misshaped = "gamma", "neck.lateral_convs.1.conv.bias", "context_decoder.out_proj.1.weight"
    wrong = tensors[misshaped][:-1]
    damaged = {key: value for key, value in tensors.items() if key not in (removed, renamed)}
    damaged |= {"neck.old": tensors[renamed], misshaped: wrong}
    with pytest.raises(WeightsError) as caught:
        convert(damaged, "file.pth", OPTIONS[tower])
    message = str(caught.value)
    assert message.startswith("file.pth (DenseCLIP")
    assert "is not whole" in message
    assert f"{removed} is missing" in message
    assert f"{renamed} is missing" in message
    assert "neck.old is unexpected" in message
    assert f"{misshaped} is (39, 24) and should be (40, 24)" in message


@pytest.mark.parametrize(
    ("tower", "key"),
    [
        ("rn", "contexts"),
        ("rn", "backbone.attnpool.positional_embedding"),
        ("rn", "text_encoder.token_embedding.weight"),
        ("rn", "decode_head.conv_seg.weight"),
        ("rn", "neck.fpn_convs.0.conv.weight"),
        ("vit", "backbone.conv1.weight"),
        ("vit", "backbone.positional_embedding"),
        ("vit", "backbone.fpn1.4.weight"),
    ],
)
def test_shapes_that_tell_no_size_are_refused_by_name(tower: str, key: str) -> None:
    tensors = published(tower)
    with pytest.raises(WeightsError, match=f"{key} is missing"):
        convert({name: value for name, value in tensors.items() if name != key}, "file", OPTIONS[tower])
    with pytest.raises(WeightsError, match=f"{key} is .* and should "):
        convert({**tensors, key: tensors[key][None]}, "file", OPTIONS[tower])


def test_classes_must_be_named() -> None:
    options = {key: value for key, value in SHARED.items() if key != "class_names"}
    with pytest.raises(WeightsError, match="trained on 6 classes, but 150 names are given"):
        convert(published("rn"), "file", options)
    with pytest.raises(WeightsError, match="trained on 6 classes, but 2 names are given"):
        convert(published("rn"), "file", {**SHARED, "class_names": ("a", "b")})


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(ValueError, match="takes no word_length; it takes antialias, blocks, class_names"):
        convert(published("rn"), "file", {**SHARED, "word_length": 5})
