# SPDX-License-Identifier: Apache-2.0
"""`clip-seg train` from one plain CLIP: every method for data sets, on small data in the published layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from clip_seg_ros.models.checkpoints import load_safetensors
from clip_seg_ros.resources import class_list
from clip_seg_ros.tools.cli import main
from clip_seg_ros.training.curve import CURVE_NAME, read_curve
from clip_seg_ros.training.methods import TrainConfig, build_recipe
from plain_clips import RESNET, VIT, plain_tensors, write_imagenet_vit, write_state
from published_data import write_phrasecut, write_refcoco
from recipes import recipe_of, train, write_voc

STEPS = {"steps": 2, "batch": 2, "precision": "float32"}
PREFIX = {"clipseg": "clip.", "cris": "clip.", "denseclip": "text_encoder."}


pytestmark = pytest.mark.usefixtures("settings_as_they_were")


def values_of(method: str, model: str | Path, root: Path) -> dict[str, Any]:
    data = {"clipseg": write_phrasecut, "cris": write_refcoco, "denseclip": write_voc}[method](root / "data")
    return {"method": method, "model": str(model), "name": f"my-{method}", "data": data, "recipe": dict(STEPS)}


def evaluate(folder: Path, values: dict[str, Any], **changes: str) -> int:
    data = {**values["data"], **changes}
    options = "".join(f":{name}={value}" for name, value in data.items() if name not in ("kind", "root"))
    call = ["evaluate", "--data", f"{data['kind']}:{data['root']}{options}", "--model", values["name"]]
    return main([*call, "--weights", str(folder / "out"), "--device", "cpu", "--limit", "1"])


@pytest.mark.parametrize("method", ["clipseg", "cris", "denseclip"])
def test_one_plain_clip_trains_every_method(tmp_path: Path, clip_file: Path, method: str, capsys) -> None:
    values = values_of(method, clip_file, tmp_path)
    assert train(tmp_path, values) == 0, capsys.readouterr().err
    said = capsys.readouterr().out.splitlines()
    new = {
        "clipseg": "decoder",
        "cris": "connect, neck, decoder, proj",
        "denseclip": "contexts, gamma, context_decoder, neck, decode_head",
    }
    begun = said.index(f"my-{method} begins with {clip_file}")
    assert said[begun + 1 : begun + 3] == ["  taken: image tower, text tower", f"  new:   {new[method]}"]
    assert sum("begins with" in line for line in said) == 1
    tensors, config = load_safetensors(tmp_path / "out" / f"my-{method}.safetensors")
    assert config["kind"] == method
    words = tensors[f"{PREFIX[method]}token_embedding.weight"]
    expected = plain_tensors(RESNET)["token_embedding.weight"]
    torch.testing.assert_close(words, expected, atol=0.02 * float(expected.abs().max()), rtol=0)
    if method == "denseclip":
        names = ["background", *class_list("voc20")]
        assert config["denseclip"]["class_names"] == names
    assert evaluate(tmp_path, values) == 0, capsys.readouterr().err


@pytest.mark.parametrize("method", ["clipseg", "denseclip"])
def test_a_plain_vit_does_it_too(tmp_path: Path, method: str, capsys) -> None:
    values = values_of(method, write_state(tmp_path / "ViT.pth", VIT), tmp_path)
    assert train(tmp_path, values) == 0, capsys.readouterr().err
    assert "  taken: image tower, text tower" in capsys.readouterr().out
    _, config = load_safetensors(tmp_path / "out" / f"my-{method}.safetensors")
    if method == "clipseg":
        assert config["clipseg"]["extract_layers"] == [0, 2]
    else:
        assert config["denseclip"]["blocks"] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("architecture", "recipe", "begun"),
    [
        ({"block": "linear"}, {"text_weight": [1.0, 1.0], "templates": ["{}"]}, "taken: image tower, text tower"),
        ({"extract_layers": [1], "reduce_dim": 16}, {"fresh_clip": True}, "new:   image tower, text tower, decoder"),
        ({"image_tower": "imagenet.pth"}, {"text_weight": [0.0, 0.0]}, "taken: image tower, text tower"),
    ],
    ids=["CLIP-Deconv", "no pre-training", "ViTSeg"],
)
def test_clipsegs_baselines_and_ablations_train(
    tmp_path: Path, monkeypatch, capsys, architecture: dict, recipe: dict, begun: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_imagenet_vit(Path("imagenet.pth"), 64, blocks=3)
    values = values_of("clipseg", write_state(tmp_path / "ViT.pth", VIT), tmp_path)
    values["architecture"] = architecture
    values["recipe"].update(recipe)
    assert train(tmp_path, values) == 0, capsys.readouterr().err
    assert begun in capsys.readouterr().out
    assert evaluate(tmp_path, values) == 0, capsys.readouterr().err


@pytest.mark.parametrize("method", ["clipseg", "cris", "denseclip"])
def test_the_embedded_clip_trains_every_method(tmp_path: Path, method: str, capsys) -> None:
    values = values_of(method, "clip-pocket", tmp_path)
    values["recipe"]["steps"] = 1
    values["architecture"] = {"input_px": 64}
    assert train(tmp_path, values) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "clip_pocket.safetensors\n  taken: image tower, text tower\n" in said
    assert "clip-pocket does not know these words and learns them" in said


def test_the_best_weights_on_other_samples_are_kept(tmp_path: Path, clip_file: Path, capsys) -> None:
    values = values_of("cris", clip_file, tmp_path)
    values["architecture"] = {"word_length": 9}
    values["recipe"]["steps"] = 3
    values["validation"] = {"data": {**values["data"], "split": "val"}, "every": 2}
    assert train(tmp_path, values) == 0, capsys.readouterr().err
    assert "at step 2; the best is" in capsys.readouterr().out
    points = read_curve(tmp_path / "work" / "log" / CURVE_NAME)
    assert [point["step"] for point in points if "score" in point] == [1, 2]
    assert load_safetensors(tmp_path / "out" / "my-cris.safetensors")[1]["tokenizer"]["context_length"] == 9
    assert evaluate(tmp_path, values, split="val") == 0, capsys.readouterr().err


def test_a_new_cris_may_begin_calmly(tmp_path: Path, clip_file: Path) -> None:
    values = values_of("cris", clip_file, tmp_path)
    values["recipe"]["calm_start"] = True
    model = build_recipe(TrainConfig.from_mapping(values), None, torch.device("cpu")).model
    plain = plain_tensors(RESNET)["text_projection"]
    torch.testing.assert_close(model.clip.text_projection.detach(), 0.1 * plain, atol=1e-3 * float(plain.max()), rtol=0)
    assert model.proj.txt.bias[-1] == -3
    own = recipe_of("cris", tmp_path / "own")
    own["recipe"]["calm_start"] = True
    model = build_recipe(TrainConfig.from_mapping(own), None, torch.device("cpu")).model
    before, _ = load_safetensors(Path(own["model"]))
    assert torch.equal(model.proj.txt.bias, before["proj.txt.bias"]), "a trained projector is left alone"


def test_what_does_not_fit_is_said(tmp_path: Path, clip_file: Path, capsys) -> None:
    vit = write_state(tmp_path / "ViT.pth", VIT)
    cris = values_of("cris", clip_file, tmp_path / "cris")
    denseclip = values_of("denseclip", clip_file, tmp_path / "denseclip")
    other = {"data": {**cris["data"], "split": "val"}, "every": 1}
    faults = (
        ({**cris, "model": str(vit)}, "CRIS needs a ResNet as its image tower"),
        ({**cris, "architecture": {"fpn_out": [8, 16, 32]}}, "the decoder's width must be that of the words, 64"),
        ({**cris, "architecture": {"word_length": 99}}, "99 words does not fit a text tower of"),
        ({**denseclip, "architecture": {"name_length": 77}}, "leave no room for contexts in CLIP's texts of 77"),
        ({**denseclip, "validation": other}, "denseclip learns classes, and the data set refcoco has phrases"),
    )
    for values, words in faults:
        assert train(tmp_path, values) == 1, words
        error = capsys.readouterr().err.strip()
        assert words in error
        assert "Traceback" not in error
