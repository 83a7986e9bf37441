# SPDX-License-Identifier: Apache-2.0
"""The programs of docs/engines.md, which need neither PyTorch nor this package."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from clip_seg_ros import resources
from clip_seg_ros.models.clip.tokenizer import ClipTokenizer
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.runtime.engine import EngineUnavailable
from clip_seg_ros.runtime.optional_packages import optional_package
from clip_seg_ros.tools.cli import main
from clip_seg_ros.zoo.factory import build_segmenter

PAGE = Path(__file__).parents[1] / "docs" / "engines.md"
PROGRAM, CLIP = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)[:2]
ALONE = """
import sys
sys.modules.update(dict.fromkeys(("torch", "clip_seg_ros", "open_clip")))
"""
PROMPTS = ("red cup", "blue box")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        for package in ("onnxruntime", "onnx", "onnxscript"):
            optional_package(package, "export")
    except EngineUnavailable as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("exported") / "clipseg"
    assert main(["export", "clipseg-pocket", "--format", "onnx", "--out", str(folder)]) == 0
    return folder


def test_the_program_finds_what_the_model_finds(exported: Path) -> None:
    image = resources.config_dir() / "samples" / "table_0.jpg"
    command = [sys.executable, "-c", ALONE + PROGRAM, str(exported), str(image), *PROMPTS]
    result = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert result.returncode == 0, result.stderr
    shares = [float(share) for share in re.findall(r": ([0-9.]+) of the image", result.stdout)]

    predictor = Predictor.from_model(build_segmenter("clipseg-pocket"), "cpu")
    rgb = cv2.imread(str(image))[..., ::-1]
    maps = predictor.predict(rgb.copy(), PROMPTS).values > predictor.spec.threshold
    assert shares == pytest.approx(maps.mean(axis=(1, 2)), rel=0.1, abs=0.002)
    assert max(shares) > 0.005, "there is something to find in the image"


@pytest.mark.parametrize(
    "phrase", ["a red cup", "The  Cup, left of the blue box!", "it's 42 mm", "naïve café", "supercalifragilistic"]
)
def test_the_tokenizer_of_the_page_is_that_of_clip(phrase: str, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    space: dict = {}
    exec(CLIP, space)
    ours = ClipTokenizer()
    rules = ours.write(tmp_path)
    ids = [rules["start"], *space["clip_tokenizer"](str(tmp_path)).encode(phrase).ids, rules["end"]]

    expected = ours([phrase])[0].tolist()
    assert ids + [rules["padding"]] * (rules["context_length"] - len(ids)) == expected
