# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.conversion.reading import read_tensors
from clip_seg_ros.models.cris.convert import published_name
from clip_seg_ros.zoo.build import build_from_config
from clip_seg_ros.zoo.formats import convert

OPTIONS = {"n_heads": 4, "text_head_width": 8}


@pytest.fixture
def tensors(golden: Callable) -> dict[str, torch.Tensor]:
    return golden("cris_rn", relative=0.0).weights()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_training_record_is_read_with_and_without_its_prefix(
    tensors: dict[str, torch.Tensor], prefix: str, tmp_path: Path
) -> None:
    path = tmp_path / "best_model.pth"
    state = {prefix + key: value for key, value in tensors.items()}
    torch.save({"epoch": 50, "best_iou": 0.69, "state_dict": state, "optimizer": {"state": {}}}, path)
    converted = convert(read_tensors(path), path.name, OPTIONS)
    assert {published_name(key) for key in converted.tensors} == set(tensors)
    assert all(torch.equal(value, tensors[published_name(key)]) for key, value in converted.tensors.items())


def test_the_size_is_read_off_the_weights(tensors: dict[str, torch.Tensor]) -> None:
    config = convert(tensors, "file", OPTIONS).config
    assert config["kind"] == "cris"
    assert config["clip"]["vision"]["layers"] == (2, 1, 1, 1)
    assert config["clip"]["quick_gelu"]
    assert config["clip"]["text"]["heads"] == 4
    cris = config["cris"]
    assert (cris["fpn_out"], cris["n_layers"], cris["feed_forward"]) == ((24, 32, 48), 2, 64)
    assert cris["input_spec"]["size"] == 416
    assert cris["input_spec"]["resize"] == "letterbox"


@pytest.mark.parametrize(("options", "words"), [({}, 17), ({"word_length": 22}, 22)])
def test_word_length_is_told_and_the_table_stays_whole(
    tensors: dict[str, torch.Tensor], options: dict[str, int], words: int
) -> None:
    converted = convert(tensors, "file", {**OPTIONS, **options})
    model = build_from_config("cris", converted.config, converted.tensors, "file").eval()
    text = model.encode_text(["126 5 127"])
    assert text.tokens.shape == (1, words, 32)
    assert text.padding_mask.sum() == words - 3
    assert len(model.clip.positional_embedding) == 77
    assert (model.threshold, model.competition, model.open_vocabulary) == (0.35, "sigmoid", True)


def test_heads_are_told(tensors: dict[str, torch.Tensor]) -> None:
    eight = convert(tensors, "file", {"text_head_width": 8, "vision_head_width": 32}).config
    assert eight["cris"]["n_heads"] == 8
    assert eight["clip"]["vision"]["head_width"] == 32


@pytest.mark.parametrize(
    "key", ["neck.f2_v_proj.0.weight", "backbone.text_projection", "decoder.layers.0.ffn.0.weight"]
)
def test_a_tensor_that_tells_the_size_is_named_when_it_is_missing(tensors: dict[str, torch.Tensor], key: str) -> None:
    del tensors[key]
    with pytest.raises(WeightsError, match=f"{key} is missing"):
        convert(tensors, "file", OPTIONS)


def test_a_missing_layer_is_named(tensors: dict[str, torch.Tensor]) -> None:
    tensors = {key: value for key, value in tensors.items() if not key.startswith("decoder.layers.0.norm")}
    with pytest.raises(WeightsError) as caught:
        convert(tensors, "file", OPTIONS)
    missing = [f"decoder.layers.0.norm{index}.{part}" for index in (1, 2, 3) for part in ("weight", "bias")]
    assert all(f"{key} is missing" in str(caught.value) for key in missing)
