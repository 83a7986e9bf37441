# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from clip_seg_ros.models.checkpoints import save_safetensors, update_sum
from clip_seg_ros.runtime import export as module
from clip_seg_ros.runtime.agreement import NONE
from clip_seg_ros.runtime.engine import EngineUnavailable
from clip_seg_ros.runtime.optional_packages import optional_package
from clip_seg_ros.tools.cli import main
from clip_seg_ros.zoo.build import MODEL_KINDS
from small_models import CONFIGS

try:
    optional_package("openvino", "export")
except EngineUnavailable as error:
    pytest.skip(str(error), allow_module_level=True)
ALONE = """
import os, socket, sys

def refuse(*args, **kwargs):
    raise AssertionError("a connection was opened")

socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refuse
from clip_seg_ros.tools.cli import main

code = main(sys.argv[1:])
assert sys.modules["openvino_telemetry"] is None
assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
sys.exit(code)
"""


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weight file of a small student; the user's cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config, path = CONFIGS["student"](), tmp_path / "student.safetensors"
    save_safetensors(path, MODEL_KINDS["student"]("student", config).state_dict(), config, half=False)
    update_sum(path)
    return path


def export(*arguments: object) -> int:
    return main(["export", *map(str, arguments)])


def test_it_exports_to_the_cache_of_the_engines(weights: Path, capsys: pytest.CaptureFixture) -> None:
    assert export(weights) == 0

    (folder,) = (weights.parent / "cache" / "clip_seg_ros" / "engines").iterdir()
    assert folder.name.startswith("student-64x64-openvino-")
    said = capsys.readouterr().out
    assert "On 3 images: mean mask IoU 1.000" in said
    assert str(folder) in said


def test_it_compares_on_images_of_ones_own(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for index, size in enumerate([(48, 64), (100, 30)]):
        rgb = np.random.default_rng(index).integers(0, 255, (*size, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "images" / f"{index}.png"), rgb)
    (tmp_path / "images" / "notes.txt").touch()
    assert export(weights, "--calibration", tmp_path / "images", "--out", tmp_path / "exported") == 0

    about = json.loads((tmp_path / "exported" / "metadata.json").read_text())
    assert about["agreement"]["images"] == 2
    assert about["agreement"]["prompts"] == ["red", "green", "cup"]


def test_what_does_not_agree_is_not_kept(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(module, "compare", lambda *args: NONE)
    assert export(weights, "--out", tmp_path / "exported") == 1
    assert "is not kept" in capsys.readouterr().err
    assert not (tmp_path / "exported").exists()

    assert export(weights, "--out", tmp_path / "exported", "--keep-anyway") == 0
    assert "THE ANSWERS DO NOT AGREE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--calibration", "no/such/folder"], "there is no folder no/such/folder"),
        (["--calibration", "."], "there is no .jpg or .png in"),
        (["--image-size", "0x5"], '--image-size must be WIDTHxHEIGHT in pixels, such as 640x480, got "0x5"'),
        (["--prompts", "cup"], "student has a list of classes, which are all compared: leave out --prompts"),
        (
            ["--format", "onnx", "--precision", "bfloat16"],
            "onnx is exported in float32, float16, int8, not in bfloat16",
        ),
        (["--precision", "bfloat16"], "an export in bfloat16 is for other programs, and needs --out DIR: the engines"),
        (["--format", "onnx", "--precision", "float16"], "an export in float16 is for other programs, and needs --out"),
    ],
)
def test_arguments_that_do_not_fit(
    weights: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert export(weights, *arguments) == 2
    assert message in capsys.readouterr().err


def test_a_file_that_is_no_image(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_text("no")

    assert export(weights, "--calibration", tmp_path / "images") == 2
    assert "a.jpg in" in capsys.readouterr().err


def test_an_unknown_model(weights: Path, capsys: pytest.CaptureFixture) -> None:
    assert export("no-such-model") == 2
    assert 'there is no model "no-such-model"' in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["openvino", "float32"], ["openvino", "int8"], ["onnx", "float32"]], ids=lambda pair: "-".join(pair)
)
def test_nothing_is_reported_over_the_network(arguments: list[str], weights: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    # In continuous integration these packages are silent by themselves.
    environment = {key: value for key, value in os.environ.items() if key not in ("CI", "ORT_DISABLE_TELEMETRY")}
    file_format, precision = arguments
    options = ["--format", file_format, "--precision", precision, "--keep-anyway", "--out", str(tmp_path / "exported")]
    result = subprocess.run(
        [sys.executable, "-c", ALONE, "export", str(weights), *options],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment | {"HOME": str(tmp_path / "home")},
    )

    assert result.returncode == 0, result.stderr
    assert list((tmp_path / "home").rglob("*")) == [], "an identifier of the user was kept"
