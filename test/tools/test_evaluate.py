import json
import shutil

import pytest

from clip_seg_ros import resources
from clip_seg_ros.data import tabletop
from clip_seg_ros.tools.cli import main


@pytest.fixture
def small_world(monkeypatch):
    monkeypatch.setattr(tabletop, "TEST_SEEDS", range(10_000, 10_003))


def test_evaluate_measures_weights(tmp_path, small_world, capsys):
    figures, pictures = tmp_path / "figures.json", tmp_path / "pictures"
    pictures.mkdir()
    arguments = ["--scenes", "2", "--json", str(figures), "--pictures", str(pictures)]
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
