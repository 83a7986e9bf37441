import json
import shutil

import pytest
import torch
import yaml

from clip_seg_ros import resources
from clip_seg_ros.data import tabletop
from clip_seg_ros.tools.cli import main

TINY_RECIPE = {
    "width": 8,
    "layers": [1, 1, 1, 1],
    "embed_dim": 32,
    "text_width": 32,
    "text_layers": 1,
    "crops": {"steps": 2, "batch": 8, "learning_rate": 1.0e-3},
    "joint": {"steps": 2, "batch": 2, "learning_rate": 1.0e-3, "phrases": 2, "crops": 4, "scene_px": [64, 64]},
    "decoder": {"steps": 2, "batch": 2, "learning_rate": 1.0e-3, "phrases": 2, "scene_px": [64, 64]},
}
TINY = {"method": "clipseg-pocket", "scenes": 6, "seed": 3, "recipe": TINY_RECIPE}


@pytest.fixture
def small_world(monkeypatch):
    threads = torch.get_num_threads()
    monkeypatch.setattr(tabletop, "SHARD_SCENES", 6)
    monkeypatch.setattr(tabletop, "TEST_SEEDS", range(10_000, 10_003))
    yield
    torch.set_num_threads(threads)


def test_train_writes_weights_that_evaluate_measures(tmp_path, small_world, capsys):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(TINY))
    out, work = str(tmp_path / "out"), str(tmp_path / "work")
    arguments = ["train", str(recipe), "--out", out, "--work", work, "--device", "cpu", "--threads", "1"]
    assert main(arguments) == 0
    record = json.loads((tmp_path / "out" / "clipseg-pocket.json").read_text())
    assert record["config"]["recipe"] == TINY_RECIPE and record["seconds"].keys() == {"crops", "scenes", "decoder"}

    first = (tmp_path / "out" / "clip_pocket.safetensors").read_bytes()
    assert main(arguments) == 0, "a finished run only writes again"
    assert (tmp_path / "out" / "clip_pocket.safetensors").read_bytes() == first

    figures, pictures = tmp_path / "figures.json", tmp_path / "pictures"
    pictures.mkdir()
    arguments = ["--weights", out, "--scenes", "2", "--json", str(figures), "--pictures", str(pictures)]
    assert main(["evaluate", "--parts", "phrases", *arguments]) == 0
    values = {item["name"]: item["value"] for item in json.loads(figures.read_text())}
    assert values["embedded.clipseg.scenes"] == 2
    assert "embedded.clipseg.named.mean_iou" in capsys.readouterr().out
    assert (pictures / "clipseg.jpg").stat().st_size > 10_000


@pytest.mark.parametrize("damage", ["gone", "short", "tampered"])
def test_bad_weights_are_said_in_one_line(tmp_path, capsys, damage):
    folder = tmp_path / "weights"
    shutil.copytree(resources.weights_dir(), folder)
    victim = folder / "clipseg_pocket.safetensors"
    content = victim.read_bytes()
    victim.unlink()
    if damage != "gone":
        victim.write_bytes(content[:1000] if damage == "short" else content[:-1] + bytes([content[-1] ^ 1]))
    assert main(["evaluate", "--weights", str(folder), "--scenes", "1", "--parts", "phrases"]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("clip-seg evaluate: ") and "clipseg_pocket.safetensors" in error
    assert "\n" not in error and "Traceback" not in error


def test_wrong_arguments_are_said_in_one_line(tmp_path, capsys):
    assert main(["evaluate", "--scenes", "1001"]) == 2
    assert "--scenes must lie in 1..1000, got 1001" in capsys.readouterr().err
    assert main(["evaluate", "--json", str(tmp_path / "none" / "f.json")]) == 2
    assert "name a file in a folder that exists" in capsys.readouterr().err
    assert main(["train", str(tmp_path / "none.yaml"), "--out", str(tmp_path), "--work", str(tmp_path)]) == 2
    assert "none.yaml" in capsys.readouterr().err
    broken = tmp_path / "broken.yaml"
    broken.write_text(yaml.safe_dump({**TINY, "recipe": {**TINY_RECIPE, "widht": 3}}))
    assert main(["train", str(broken), "--out", str(tmp_path), "--work", str(tmp_path)]) == 2
    assert "widht" in capsys.readouterr().err
