# SPDX-License-Identifier: Apache-2.0
"""``clip-seg evaluate --protocol alignment``, on rendered scenes in COCO's format."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from clip_seg_ros.tools.cli import main

KINDS = ("cup", "bowl", "ball")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One picture with three objects in stripes, of which one is large."""
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8))
    objects = []
    for number, side in enumerate((50, 12, 12)):
        left = (0, 55, 75)[number]
        outline = [left, 0, left + side, 0, left + side, side, left, side]
        objects.append({"image_id": 1, "category_id": number, "segmentation": [outline], "area": side * side})
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": objects,
        "categories": [{"id": number, "name": kind} for number, kind in enumerate(KINDS)],
    }
    (tmp_path / "mine.json").write_text(json.dumps(content))
    return tmp_path


def evaluate(*arguments: object) -> int:
    return main(["evaluate", "--device", "cpu", "--protocol", "alignment", *(str(one) for one in arguments)])


def test_figures_are_printed_and_written(root: Path, capsys: pytest.CaptureFixture) -> None:
    out = root / "r.json"
    assert evaluate("--data", f"coco:{root}:task=instances", "--json", out) == 0
    content = json.loads(out.read_text())
    figures = {figure["name"]: figure["value"] for figure in content["figures"]}
    assert figures["alignment.count"] == 1
    assert 0 < figures["alignment.unchanged"] < 1
    assert "alignment.crop_blurred_10" in figures
    assert content["run"]["model"] == "clipseg-pocket"
    assert "alignment.unchanged" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--data", "coco:{root}"], 2, "needs objects with masks: --data coco:ROOT:SPLIT:task=instances"),
        (["--data", "coco:{root}:task=instances", "--model", "maskclip-pocket"], 2, "maskclip-pocket is no CLIPSeg"),
        (
            ["--data", "coco:{root}:task=instances", "--corruption", "all"],
            2,
            "--corruption does not go with --protocol al",
        ),
        (["--data", "coco:{root}:task=instances", "--multi-scale"], 2, "--multi-scale does not go with --protocol al"),
        (["--data", "coco:{root}:task=instances", "--names", "data"], 2, "--names does not go with --protocol align"),
        (
            ["--data", "coco:{root}:task=instances", "--engine", "openvino"],
            2,
            "only --engine eager --precision float32",
        ),
        (["--data", "coco:{root}:task=instances:masks=false"], 1, "its objects are boxes alone"),
        (["--data", "coco:{root}/none:task=instances"], 1, "there is no folder"),
    ],
)
def test_wrong_calls_are_said(
    arguments: list[str], code: int, said: str, root: Path, capsys: pytest.CaptureFixture
) -> None:
    assert evaluate(*(argument.format(root=root) for argument in arguments)) == code
    assert said in capsys.readouterr().err
