# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil

import pytest

from clip_seg_ros import resources
from clip_seg_ros.data import tabletop
from clip_seg_ros.evaluation import suite
from clip_seg_ros.evaluation.suites.embedded_suite import PARTS
from clip_seg_ros.sim.renderer import SceneRenderer
from clip_seg_ros.tools import evaluate
from clip_seg_ros.tools.cli import main


@pytest.fixture
def small_world(monkeypatch):
    """Four held-out scenes, two of them unseen, as small pictures."""
    monkeypatch.setattr(tabletop, "TEST_SEEDS", range(10_023, 10_027))
    monkeypatch.setattr(suite, "SceneRenderer", lambda: SceneRenderer(160, 120))


@pytest.fixture
def weights(tmp_path):
    """A copy of the embedded CLIPSeg alone."""
    folder = tmp_path / "weights"
    folder.mkdir()
    for name in ("SHA256SUMS", "clip_pocket.safetensors", "clipseg_pocket.safetensors"):
        shutil.copy(resources.weights_dir() / name, folder)
    return folder


def said_in_one_line(capsys):
    error = capsys.readouterr().err.strip()
    assert error.startswith("clip-seg evaluate: ")
    assert "\n" not in error
    assert "Traceback" not in error
    return error


def test_the_suite_prints_and_writes_its_figures_and_pictures(tmp_path, small_world, weights, capsys):
    figures, pictures = tmp_path / "figures.json", tmp_path / "pictures" / "of today"
    arguments = ["--suite", "embedded", "--parts", "examples", "phrases", "--weights", str(weights)]
    assert main(["evaluate", *arguments, "--scenes", "2", "--json", str(figures), "--pictures", str(pictures)]) == 0
    written = json.loads(figures.read_text(), parse_constant=pytest.fail)
    values = {item["name"]: item["value"] for item in written}
    assert values["embedded.clipseg.scenes"] == values["embedded.clipseg.example.count"] == 2
    assert values["embedded.clipseg.named_usual_scenes.count"] > 0
    assert values["embedded.clipseg.named_unseen_scenes.count"] > 0, "half of the scenes are unseen ones"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "embedded.clipseg"
    printed = [[f"{lines[0]}.{name}", value] for name, value in (line.split()[:2] for line in lines[1:])]
    assert printed == sorted([item["name"], str(item["value"])] for item in written)
    assert [path.name for path in pictures.iterdir()] == ["clipseg.jpg"]
    assert (pictures / "clipseg.jpg").read_bytes()[:2] == b"\xff\xd8"


def test_all_parts_whose_weights_are_there_are_run_and_the_others_named(tmp_path, small_world, weights, capsys):
    (weights / "clipseg_pocket.safetensors").unlink()
    figures = tmp_path / "figures.json"
    assert main(["evaluate", "--weights", str(weights), "--scenes", "1", "--json", str(figures)]) == 0
    said = capsys.readouterr().out
    left_out = [line.split()[2].rstrip(",") for line in said.splitlines() if line.startswith("left out: ")]
    assert left_out == [part for part in PARTS if part != "maskclip"]
    assert "the weights of cris-pocket and clipseg-pocket are not all there" in said
    names = {item["name"] for item in json.loads(figures.read_text(), parse_constant=pytest.fail)}
    assert "embedded.maskclip.resnet.plain.miou" in names
    assert not any("clipseg" in name for name in names)


def test_all_held_out_scenes_are_examined_by_default(tmp_path, small_world, weights):
    figures = tmp_path / "figures.json"
    assert main(["evaluate", "--weights", str(weights), "--parts", "phrases", "--json", str(figures)]) == 0
    values = {item["name"]: item["value"] for item in json.loads(figures.read_text())}
    assert values["embedded.clipseg.scenes"] == 4


def test_a_higher_threshold_answers_less(tmp_path, small_world, weights):
    answered = []
    for threshold in ("0.1", "1"):
        figures = tmp_path / f"{threshold}.json"
        arguments = ["--weights", str(weights), "--parts", "phrases", "--scenes", "1", "--json", str(figures)]
        assert main(["evaluate", *arguments, "--threshold", threshold]) == 0
        answered.append({item["name"]: item["value"] for item in json.loads(figures.read_text())})
    assert answered[0]["embedded.clipseg.named.mean_iou"] > 0.1
    assert answered[1]["embedded.clipseg.named.mean_iou"] == 0


@pytest.mark.parametrize("damage", ["gone", "short", "tampered", "a folder"])
def test_bad_weights_are_said_in_one_line(weights, capsys, damage):
    victim = weights / "clipseg_pocket.safetensors"
    content = victim.read_bytes()
    victim.unlink()
    if damage == "a folder":
        victim.mkdir()
    elif damage != "gone":
        victim.write_bytes(content[:1000] if damage == "short" else content[:-1] + bytes([content[-1] ^ 1]))
    assert main(["evaluate", "--weights", str(weights), "--scenes", "1", "--parts", "phrases"]) == 1
    assert "clipseg_pocket.safetensors" in said_in_one_line(capsys)


@pytest.mark.parametrize("part", [part for part in PARTS if part not in ("phrases", "examples", "maskclip")])
def test_a_part_whose_weights_are_missing_is_refused_when_asked_for(weights, capsys, part):
    assert main(["evaluate", "--weights", str(weights), "--scenes", "1", "--parts", part]) == 1
    assert ".safetensors" in said_in_one_line(capsys)


def test_a_folder_without_weights_is_said_in_one_line(tmp_path, capsys, monkeypatch):
    assert main(["evaluate", "--weights", str(tmp_path), "--scenes", "1"]) == 1
    assert f"{tmp_path} holds the weights of no embedded model" in said_in_one_line(capsys)
    monkeypatch.setenv("CLIP_SEG_WEIGHTS_DIR", str(tmp_path / "none"))
    for parts in ([], ["--parts", "phrases"], ["--parts", "maskclip"]):
        assert main(["evaluate", "--scenes", "1", *parts]) == 1
        assert "CLIP_SEG_WEIGHTS_DIR names it" in said_in_one_line(capsys)


def test_sequences_are_measured_too(tmp_path, weights, capsys, monkeypatch):
    asked = []

    def run_sequences(predictor, count, frames, progress):
        asked.append((predictor.spec.name, count, frames, list(progress([1]))))
        return [suite.Figure("sequences.steady.flicker", 0.5, "share")]

    monkeypatch.setattr(evaluate, "run_sequences", run_sequences)
    arguments = ["--suite", "sequences", "--weights", str(weights), "--json", str(tmp_path / "figures.json")]
    assert main(["evaluate", *arguments, "--frames", "7"]) == 0
    assert asked == [("clipseg-pocket", 20, 7, [1])]
    assert capsys.readouterr().out.splitlines() == ["sequences.steady", f"  {'flicker':<40} {0.5:>9}  share"]
    assert json.loads((tmp_path / "figures.json").read_text())[0]["value"] == 0.5


def test_the_memory_is_measured_too(tmp_path, weights, monkeypatch):
    asked = []

    def run_recollection(predictor, separator, count, progress):
        asked.append((predictor.spec.name, separator, count, list(progress([1]))))
        return [suite.Figure("memory.recalled", 0.5, "share")]

    monkeypatch.setattr(evaluate, "run_recollection", run_recollection)
    monkeypatch.setattr(evaluate.Separator, "load", lambda folder: folder)
    arguments = ["--suite", "memory", "--weights", str(weights), "--json", str(tmp_path / "figures.json")]
    assert main(["evaluate", *arguments, "--sequences", "3"]) == 0
    assert asked == [("clipseg-pocket", weights, 3, [1])]
    assert json.loads((tmp_path / "figures.json").read_text())[0]["value"] == 0.5


def test_an_unknown_device_is_said_in_one_line(weights, capsys):
    arguments = ["--weights", str(weights), "--scenes", "1", "--parts", "phrases", "--device", "abacus"]
    assert main(["evaluate", *arguments]) == 1
    assert 'unknown device "abacus"' in said_in_one_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scenes", "1001"], "--scenes must lie in 1..1000, got 1001"),
        (["--scenes", "0"], "--scenes must lie in 1..1000, got 0"),
        (["--threshold", "1.5"], "--threshold must lie in 0..1, got 1.5"),
        (["--json", "none/figures.json"], "name a file in a folder that exists"),
        (["--json", "."], "name a file in a folder that exists"),
        (["--pictures", "a_file"], "a_file is a file: --pictures names a folder"),
        (["--model", "cris-pocket"], "--model needs a data set: give --data"),
        (["--model", "cris-pocket", "--parts", "phrases", "examples"], "--model needs a data set: give --data"),
        (["--templates", "clipseg"], "--templates is for --parts phrases, or for --data"),
        (["--refine-edges"], "--refine-edges is for --parts phrases alone"),
        (["--suite", "edges", "--refine-edges"], "--refine-edges is for the other suite, not for --suite edges"),
        (["--data", "folder:x", "--refine-edges"], "--refine-edges measures held-out scenes: leave --data out"),
        (["--frames", "10"], "--frames is for the other suite, not for --suite embedded"),
        (["--suite", "sequences", "--parts", "phrases"], "--parts is for the other suite, not for --suite sequences"),
        (["--suite", "sequences", "--sequences", "0"], "--sequences must be at least 1, got 0"),
        (["--suite", "edges", "--parts", "phrases"], "--parts is for the other suite, not for --suite edges"),
        (["--suite", "clicks", "--parts", "phrases"], "--parts is for the other suite, not for --suite clicks"),
        (["--suite", "memory", "--frames", "9"], "--frames is for the other suite, not for --suite memory"),
        (["--suite", "edges", "--frames", "9"], "--frames is for the other suite, not for --suite edges"),
        (["--suite", "relations", "--parts", "phrases"], "--parts is for the other suite, not for --suite relations"),
        (["--data", "folder:x", "--parts", "phrases"], "--parts measures held-out scenes: leave --data out"),
        (["--data", "folder:x", "--scenes", "3"], "--scenes measures held-out scenes: leave --data out"),
    ],
)
def test_wrong_arguments_are_said_in_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").touch()
    assert main(["evaluate", *arguments]) == 2
    assert message in said_in_one_line(capsys)


def test_an_unknown_part_is_a_wrong_call(capsys):
    with pytest.raises(SystemExit) as end:
        main(["evaluate", "--parts", "phrases", "dances"])
    assert end.value.code == 2
    assert "invalid choice: 'dances'" in capsys.readouterr().err


def test_figures_stand_sorted_under_headings():
    figures = [suite.Figure(name, 1.0, "IoU") for name in ("b.x.two", "a.y.one", "b.x.one.more", "b.w.one")]
    lines = evaluate.figure_table(figures).splitlines()
    assert [line.split()[0] for line in lines if line] == ["a.y", "one", "b.w", "one", "b.x", "one.more", "two"]
    assert lines.count("") == 2
