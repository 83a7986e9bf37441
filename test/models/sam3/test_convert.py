# SPDX-License-Identifier: Apache-2.0
"""Folders and files of SAM 3, for images and for videos, become the same model; others are refused with advice."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.clip.tokenizer import ClipTokenizer
from clip_seg_ros.models.conversion.reading import read_tensors
from clip_seg_ros.models.sam3.model import SAM3
from clip_seg_ros.models.sam3.network import require_transformers
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.tools.cli import main
from clip_seg_ros.zoo.formats import convert
from published_layouts import published


def test_a_folder_is_converted_and_served(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("CLIP_SEG_CACHE_DIR", str(tmp_path))
    assert main(["weights", "convert", str(folder), "--name", "my-sam3"]) == 0
    assert "my-sam3 was converted from" in capsys.readouterr().out
    predictor = Predictor.from_name("my-sam3", device="cpu")
    assert predictor.spec.finds_objects
    assert predictor.spec.class_names is None
    assert main(["weights", "verify", str(folder)]) == 0
    assert "is a whole SAM 3 of the Hugging Face hub: SAM3, " in capsys.readouterr().out


def test_the_file_of_meta_holds_a_tracker_besides(folder: Path, config: dict[str, Any], tmp_path: Path) -> None:
    tensors = read_tensors(folder)
    video = {f"detector_model.{key}": value for key, value in tensors.items()}
    video |= {"tracker_model.mask_decoder.iou_token.weight": torch.zeros(1, 4), "tracker_neck.weight": torch.zeros(2)}
    names = sorted(video)
    for number, part in enumerate((names[::2], names[1::2])):
        save_file({name: video[name] for name in part}, tmp_path / f"model-0000{number}-of-00002.safetensors")
    of_video = {"model_type": "sam3_video", "detector_config": config}
    found = convert(read_tensors(tmp_path), "video", {"config": of_video})
    expected = convert(tensors, "images", {"config": config})
    assert found.config == expected.config
    assert all(torch.equal(found.tensors[key], expected.tensors[key]) for key in expected.tensors)


def test_meta_s_sizes_are_known_without_a_configuration(transformers: Any) -> None:
    converted = convert(published("sam3_hub", empty=True), "sam3", {})
    assert converted.config["sam3"]["input_spec"]["size"] == 1008
    assert converted.config["tokenizer"] == {"kind": "clip", "vocab_size": 49408, "context_length": 32}
    assert sum(value.numel() for value in converted.tensors.values()) == pytest.approx(840e6, rel=0.01)


def test_what_is_missing_is_named(folder: Path, config: dict[str, Any]) -> None:
    tensors = read_tensors(folder)
    del tensors["detr_decoder.query_embed.weight"]
    with pytest.raises(WeightsError, match=r"detr_decoder\.query_embed\.weight is missing"):
        convert(tensors, "tiny", {"config": config})


def test_another_configuration_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match='the configuration is that of a "clip", and not of SAM 3'):
        convert(read_tensors(folder), "tiny", {"config": {"model_type": "clip"}})


def test_a_damaged_configuration_is_named(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    assert main(["weights", "convert", str(tmp_path), "--out", str(tmp_path / "other.safetensors")]) == 1
    assert f"{tmp_path / 'config.json'} cannot be read" in capsys.readouterr().err


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"holds no \.safetensors file"):
        read_tensors(tmp_path)


def test_unknown_maps_are_refused(make: Callable[..., SAM3]) -> None:
    with pytest.raises(ValueError, match='phrase_map must be objects or semantic, got "depth"'):
        make(phrase_map="depth")


def test_configuration_survives_json(make: Callable[..., SAM3]) -> None:
    model = make(phrase_map="semantic")
    values = json.loads(json.dumps(model.config.to_dict()))
    again = SAM3.from_config("again", {"sam3": values, "tokenizer": {"kind": "clip", "context_length": 32}})
    assert json.loads(json.dumps(again.config.to_dict())) == values
    assert {key: value.shape for key, value in again.state_dict().items()} == {
        key: value.shape for key, value in model.state_dict().items()
    }
    assert isinstance(again.tokenizer, ClipTokenizer)


def test_an_old_transformers_is_refused(transformers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["transformers"], "__version__", "5.9.2")
    with pytest.raises(WeightsError, match=r"transformers 5\.9\.2 is too old for SAM 3: .*pip install"):
        require_transformers()


def test_without_transformers_it_says_how_to_get_it(
    folder: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)  # Python's sign for a module that cannot be imported
    with pytest.raises(WeightsError, match=r"SAM 3 needs transformers, .*pip install clip_seg_ros\[sam3\]"):
        convert(read_tensors(folder), "tiny", {"config": config})
