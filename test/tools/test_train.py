"""`clip-seg train` with every method, on tiny models: what it writes can be used, and what is wrong is said."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from clip_seg_ros.data import tabletop
from clip_seg_ros.models.backbone import ClipConfig, TextConfig, VisionConfig
from clip_seg_ros.models.base import InputSpec
from clip_seg_ros.models.checkpoints import load_safetensors, save_safetensors, update_sum
from clip_seg_ros.models.clipseg import CLIPSegConfig
from clip_seg_ros.models.cris import CRISConfig
from clip_seg_ros.models.denseclip import DenseCLIPConfig
from clip_seg_ros.models.factory import MODEL_KINDS, build_from_file, build_segmenter
from clip_seg_ros.models.tokenizer import CompactTokenizer
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.resources import class_list
from clip_seg_ros.tools.cli import main
from clip_seg_ros.training import pocket
from clip_seg_ros.training.methods import TrainConfig, build_recipe

STEP = {"steps": 2, "batch": 2, "learning_rate": 1.0e-3}
WINDOW = {**STEP, "phrases": 2, "scene_px": [64, 64]}
CLIPSEG_POCKET = {
    "method": "clipseg-pocket",
    "scenes": 6,
    "seed": 3,
    "recipe": {
        "width": 8,
        "layers": [1, 1, 1, 1],
        "embed_dim": 32,
        "text_width": 32,
        "text_layers": 1,
        "input_px": 64,
        "crops": {**STEP, "batch": 8},
        "joint": {**WINDOW, "crops": 4},
        "decoder": WINDOW,
    },
}
CRIS_POCKET = {
    "method": "cris-pocket",
    "scenes": 6,
    "recipe": {
        "train": {**STEP, "first_steps": 1, "dice_weight": 1.0, "contrast_weight": 5.0, "clip_factor": 1.0},
        "phrases": 2,
        "scene_px": [64, 64],
        "first_scene_px": [64, 64],
        "fpn_out": [16, 32, 32],
        "feed_forward": 32,
        "input_px": 64,
    },
}
DENSECLIP_POCKET = {
    "method": "denseclip-pocket",
    "scenes": 6,
    "recipe": {"train": STEP, "scene_px": [64, 64], "input_px": 64},
}
VIT_POCKET = {
    "method": "clip-vit-pocket",
    "scenes": 6,
    "recipe": {
        **STEP,
        "crops": 4,
        "width": 32,
        "layers": 2,
        "head_width": 16,
        "scene_px": 64,
        "crop_px": 32,
    },
}
WORDS = ("red", "green", "square", "disc", "the", "a", "photo", "of", ".")


@pytest.fixture(scope="module", autouse=True)
def small_world():
    """Six scenes a shard, and the process's settings as they were."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tabletop, "SHARD_SCENES", 6)
        patch.setattr(pocket, "_STATISTICS_BATCHES", 2)
        yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def train(folder: Path, values: Any) -> int:
    """Runs the command with everything in ``folder``; the weights come into ``folder``/out."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values))
    places = ["--out", str(folder / "out"), "--work", str(folder / "work"), "--device", "cpu", "--threads", "1"]
    return main(["train", str(recipe), *places])


@pytest.fixture(scope="module")
def embedded(small_world, tmp_path_factory) -> Path:
    """The folder of a run of clipseg-pocket: scenes, and a small CLIP to begin with."""
    folder = tmp_path_factory.mktemp("embedded")
    assert train(folder, CLIPSEG_POCKET) == 0
    return folder


def test_the_embedded_weights_load_and_are_written_again_alike(embedded: Path, capsys) -> None:
    out = embedded / "out"
    model = build_segmenter("clipseg-pocket", out)
    assert model.input_spec.size == 64
    record = json.loads((out / "clipseg-pocket.json").read_text())
    assert record["config"]["recipe"] == CLIPSEG_POCKET["recipe"] and record["config"]["seed"] == 3
    assert record["seconds"].keys() == {"crops", "scenes", "decoder"} and record["processes"] == 1
    first = (out / "clip_pocket.safetensors").read_bytes()
    assert train(embedded, CLIPSEG_POCKET) == 0, "a finished run only writes again"
    assert (out / "clip_pocket.safetensors").read_bytes() == first
    assert f"weights written to {out / 'clip_pocket.safetensors'}" in capsys.readouterr().out
    assert train(embedded, {**CLIPSEG_POCKET, "seed": 4}) == 1, "the state is of another run"
    assert "belongs to a run with seed 3, not 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "file", "model"),
    [
        (CRIS_POCKET, "cris_pocket", "cris-pocket"),
        (DENSECLIP_POCKET, "denseclip_pocket", "denseclip-pocket"),
        (VIT_POCKET, "clip_vit_pocket", "maskclip-vit-pocket"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_other_embedded_models_begin_with_its_clip(
    embedded: Path, tmp_path: Path, values: dict, file: str, model: str
) -> None:
    shutil.copytree(embedded / "work" / "scenes", tmp_path / "work" / "scenes")
    assert train(tmp_path, {**values, "start": str(embedded / "out")}) == 0
    built = build_segmenter(model, tmp_path / "out")
    assert (tmp_path / "out" / f"{values['method']}.json").is_file()
    tensors, _ = load_safetensors(tmp_path / "out" / f"{file}.safetensors")
    start, _ = load_safetensors(embedded / "out" / "clip_pocket.safetensors")
    prefix = {"cris_pocket": "clip.", "denseclip_pocket": "text_encoder.", "clip_vit_pocket": ""}[file]
    same = torch.allclose(tensors[f"{prefix}ln_final.weight"], start["ln_final.weight"], atol=1e-6)
    assert same == (file != "cris_pocket"), "only CRIS trains the text tower"
    prompts = list(getattr(built, "class_names", None) or ["the red cup"])
    with torch.inference_mode():
        logits = built.decode(built.encode_image(torch.rand(1, 3, 64, 64)), built.encode_text(prompts))
    assert logits.shape[:2] == (1, len(prompts)) and logits.isfinite().all()


# Data sets. The models are as small as their shapes allow.


def shapes(kind: str) -> dict[str, Any]:
    """The configuration of a weight file."""
    tokenizer = {"kind": "compact", "known_words": list(WORDS), "context_length": 12}
    vocabulary = CompactTokenizer(WORDS, 12).vocab_size
    spec = InputSpec(64, "squash", 32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    vision = VisionConfig((1, 1, 1, 1), 8, 64, head_width=32, output_stride=16 if kind == "clipseg" else 32)
    text = TextConfig(12, vocabulary, 16, 2, 1)
    clip = ClipConfig(24, vision, text).to_dict()
    if kind == "clipseg":
        own = CLIPSegConfig(24, (2, 3, 4), (64, 128, 256), 8, 0, spec, reduce_dim=16, n_heads=2, feed_forward=32)
        return {"kind": kind, "clip": clip, kind: own.to_dict(), "tokenizer": tokenizer}
    if kind == "cris":
        own = CRISConfig((12, 16, 24), spec, n_layers=1, n_heads=2, feed_forward=32)
        return {"kind": kind, "clip": clip, kind: own.to_dict(), "tokenizer": tokenizer}
    # The longest name of VOC has few known pieces, but many.
    own = DenseCLIPConfig(
        ("red", "green"),
        spec,
        9,
        3,
        context_width=8,
        context_heads=2,
        context_layers=1,
        pyramid_channels=8,
        head_channels=8,
    )
    towers = {name: clip[name] for name in ("embed_dim", "quick_gelu", "vision", "text")}
    return {"kind": kind, **towers, kind: own.to_dict(), "tokenizer": tokenizer}


def write_start(folder: Path, kind: str) -> Path:
    """A weight file to begin with."""
    config, path = shapes(kind), folder / f"start_{kind}.safetensors"
    torch.manual_seed(0)
    model = MODEL_KINDS[kind]("start", config)
    for name, parameter in model.named_parameters():
        if name.endswith("bn3.weight"):  # open_clip starts residual branches at zero
            torch.nn.init.constant_(parameter, 0.5)
    save_safetensors(path, model.state_dict(), config, half=False)
    update_sum(path)
    return path


def write_phrases(root: Path) -> dict[str, str]:
    """A data set of one's own: a red square and a green disc in each of four pictures."""
    rows = []
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(4):
        bgr = np.full((48, 80, 3), 90, np.uint8)
        masks = {}
        for phrase, left, color in (("the red square", 6, (0, 0, 230)), ("a green disc", 44, (0, 200, 0))):
            masks[phrase] = np.zeros((48, 80), np.uint8)
            masks[phrase][8 + number : 32 + number, left : left + 24] = 255
            bgr[masks[phrase] > 0] = color
        cv2.imwrite(str(root / "images" / f"{number}.jpg"), bgr)
        for phrase, mask in masks.items():
            name = f"{number}_{phrase.split()[-1]}.png"
            cv2.imwrite(str(root / "masks" / name), mask)
            rows.append((f"images/{number}.jpg", f"masks/{name}", phrase))
    with (root / "phrases.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "mask", "phrase"), *rows])
    return {"kind": "folder", "root": str(root)}


def write_voc(root: Path) -> dict[str, str]:
    """VOCdevkit/VOC2012 with four pictures: palette PNG, 0 = background, 255 = edges of objects."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    names = [f"2007_00000{number}" for number in range(4)]
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("".join(f"{name}\n" for name in names))
    for number, name in enumerate(names):
        labels = np.zeros((60, 80), np.uint8)
        labels[10:40, 10:50] = 255
        labels[12:38, 12:48] = 1 + 5 * number
        cv2.imwrite(str(root / "JPEGImages" / f"{name}.jpg"), np.repeat((labels * 9)[..., None], 3, axis=-1))
        image = Image.fromarray(labels, "P")
        image.putpalette([value for index in range(256) for value in (255 - index, index * 7 % 256, 128)])
        image.save(root / "SegmentationClass" / f"{name}.png")
    return {"kind": "voc", "root": str(root), "split": "train"}


def recipe_of(kind: str, folder: Path) -> dict[str, Any]:
    data = write_voc(folder / "voc") if kind == "denseclip" else write_phrases(folder / "phrases")
    own = {"steps": 2, "batch": 2, "precision": "float32", "learning_rate": 0.1}
    start = str(write_start(folder, kind))
    return {"method": kind, "model": start, "name": f"my-{kind}", "data": data, "recipe": own}


def trained_part(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Biases and the like: what files hold in full precision, without BatchNorm's statistics."""
    return {
        name: value
        for name, value in tensors.items()
        if value.ndim == 1 and "running_" not in name and "head" not in name
    }


@pytest.mark.parametrize("kind", ["clipseg", "cris", "denseclip"])
def test_a_data_set_trains_a_model(tmp_path: Path, kind: str, capsys) -> None:
    values = recipe_of(kind, tmp_path)
    assert train(tmp_path, values) == 0, capsys.readouterr().err
    path = tmp_path / "out" / f"my-{kind}.safetensors"
    assert build_from_file(path).name == f"my-{kind}"
    assert json.loads((tmp_path / "out" / f"my-{kind}.json").read_text())["config"]["data"] == values["data"]
    model = build_segmenter(f"my-{kind}", tmp_path / "out")
    tensors, _ = load_safetensors(path)
    before, _ = load_safetensors(Path(values["model"]))
    after = trained_part(tensors)
    changed = {name for name, value in trained_part(before).items() if not torch.equal(after[name], value)}
    towers = {name for name in changed if name.startswith(("clip.", "backbone.", "text_encoder."))}
    if kind == "clipseg":
        assert not towers and changed, "CLIP is held still"
    if kind == "cris":
        assert any(name.startswith("clip.visual.") for name in towers) and "clip.ln_final.bias" in towers
    if kind == "denseclip":
        assert model.class_names == ("background", *class_list("voc20"))
        assert not any(name.startswith("text_encoder.") for name in changed)
        assert any(name.startswith("backbone.") for name in towers)


@pytest.mark.parametrize("kind", ["clipseg", "cris", "denseclip"])
def test_all_of_a_model_lies_on_the_device(tmp_path: Path, kind: str) -> None:
    """Buffers too: what normalises pictures is one."""
    recipe = build_recipe(TrainConfig.from_mapping(recipe_of(kind, tmp_path)), None, torch.device("meta"))
    tensors = (*recipe.module.parameters(), *recipe.module.buffers())
    assert {tensor.device.type for tensor in tensors} == {"meta"}


# What is wrong.


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"method": "maskclip"}, "there is no method 'maskclip'; the methods are clipseg-pocket, "),
        ({"method": "cris-pocket", "recipe": {"train": STEP}}, "say how many with scenes"),
        ({"method": "clipseg-pocket", "scenes": 6, "widht": 3}, "widht"),
        ({**CLIPSEG_POCKET, "recipe": {**CLIPSEG_POCKET["recipe"], "widht": 3}}, "widht"),
        ({**CRIS_POCKET, "recipe": {"train": {**STEP, "stpes": 3}}}, "stpes"),
        ({**CRIS_POCKET, "recipe": {}}, "recipe lacks train"),
        ({**DENSECLIP_POCKET, "recipe": {"train": {**STEP, "dice_weight": 1.0}}}, "dice_weight"),
        ({**VIT_POCKET, "recipe": {"heads": 2}}, "heads"),
        ({"method": "cris", "name": "mine", "data": {"kind": "voc"}}, "cris learns from a data set: model is missing"),
        ({"method": "cris", "name": "mine", "model": "x"}, "cris learns from a data set: data is missing"),
        ({"method": "cris", "model": "x", "data": {"kind": "voc"}}, "name is missing"),
        ({"method": "cris", "name": "a/b", "model": "x", "data": {"kind": "voc"}}, "not 'a/b'"),
        ({"method": "clipseg", "name": "a", "model": "x", "data": {"kind": "voc"}, "recipe": {"batch": 0}}, "at least"),
        (["clipseg"], "names a method"),
        ({"scenes": 3}, "method"),
    ],
)
def test_a_wrong_recipe_is_said_and_nothing_begins(tmp_path: Path, values: Any, words: str, capsys) -> None:
    assert train(tmp_path, values) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("clip-seg train: the recipe ") and "cannot be used" in error and words in error
    assert "\n" not in error and not (tmp_path / "work").exists()


def test_a_file_that_is_no_recipe_is_said(tmp_path: Path, capsys) -> None:
    places = ["--out", str(tmp_path), "--work", str(tmp_path)]
    assert main(["train", str(tmp_path / "none.yaml"), *places]) == 2
    assert "none.yaml" in capsys.readouterr().err
    (tmp_path / "broken.yaml").write_text("method: [")
    assert main(["train", str(tmp_path / "broken.yaml"), *places]) == 2
    assert "broken.yaml cannot be used" in capsys.readouterr().err


def test_wrong_data_and_weights_are_said(tmp_path: Path, capsys) -> None:
    cris = recipe_of("cris", tmp_path / "cris")
    denseclip = recipe_of("denseclip", tmp_path / "denseclip")
    clipseg = recipe_of("clipseg", tmp_path / "clipseg")
    faults = (
        ({**cris, "data": {"kind": "folder", "root": str(tmp_path / "none")}}, "there is no folder"),
        ({**cris, "data": {"kind": "folders"}}, "there is no kind of data set 'folders'"),
        ({**cris, "data": denseclip["data"]}, "cris learns phrases, and the data set voc has classes"),
        ({**clipseg, "data": denseclip["data"]}, "clipseg learns phrases, and the data set voc has classes"),
        ({**denseclip, "data": cris["data"]}, "denseclip learns classes, and the data set folder has phrases"),
        ({**cris, "model": str(tmp_path / "none.safetensors")}, "there is no file"),
        ({**cris, "model": "no-such-model"}, 'there is no model "no-such-model"'),
        ({**cris, "model": denseclip["model"]}, "holds denseclip: cris cannot begin with it"),
        ({**denseclip, "model": clipseg["model"]}, "holds clipseg: denseclip cannot begin with it"),
        ({**clipseg, "model": cris["model"]}, "holds cris: clipseg cannot begin with it"),
    )
    for values, words in faults:
        assert train(tmp_path, values) == 1, words
        error = capsys.readouterr().err.strip()
        assert error.startswith("clip-seg train: ") and words in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_weights_to_begin_with_must_be_there(embedded: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(embedded / "work" / "scenes", tmp_path / "work" / "scenes")
    assert train(tmp_path, {**CRIS_POCKET, "start": str(tmp_path / "none")}) == 1
    assert "none/clip_pocket.safetensors does not exist" in capsys.readouterr().err


def test_ctrl_c_while_scenes_are_rendered_is_one_line(tmp_path: Path, monkeypatch, capsys) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> Any:
        yield 0
        raise KeyboardInterrupt

    monkeypatch.setattr(tabletop, "render_training_scenes", interrupted)
    assert train(tmp_path, CLIPSEG_POCKET) == 130
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith("clip-seg train: stopped; the same command goes on with what is in ")
    assert "0/6" in said, "the bar is there at once"


@pytest.mark.parametrize("kind", ["clipseg", "cris"])
def test_embedded_weights_learn_words_that_they_lack(tmp_path: Path, kind: str, capsys) -> None:
    """The weights that come out know the new words and the old, in `evaluate` and by name."""
    data = write_phrases(tmp_path / "data")
    table = tmp_path / "data" / "phrases.csv"
    table.write_text(table.read_text().replace("green disc", "green gizmo"))
    own = {"steps": 1, "batch": 2, "precision": "float32"} | ({"size_px": 64} if kind == "clipseg" else {})
    values = {"method": kind, "model": f"{kind}-pocket", "name": "mine", "data": data, "recipe": own}
    assert train(tmp_path, values) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "does not know these words" in said and "  gizmo, in 4 phrases" in said and "  square, in 4 phrases" in said
    weights = tmp_path / "out"
    predictor = Predictor.from_name("mine", "cpu", weights)
    assert predictor.model.unknown_words("the green gizmo and a dragon") == ("and", "dragon")
    start = build_segmenter(f"{kind}-pocket")
    assert start.unknown_words("the green gizmo") == ("gizmo",)
    with torch.no_grad():
        old, new = (model.encode_text(["the red cup"]).pooled for model in (start, predictor.model))
    torch.testing.assert_close(new, old, atol=0.02 * float(old.abs().max()), rtol=0)
    call = [
        "evaluate",
        "--data",
        f"folder:{data['root']}",
        "--model",
        "mine",
        "--weights",
        str(weights),
        "--limit",
        "2",
    ]
    assert main([*call, "--device", "cpu"]) == 0, capsys.readouterr().err
