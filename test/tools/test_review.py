# SPDX-License-Identifier: Apache-2.0
"""``clip-seg review`` writes the data set with what was decided, and serves its page."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from clip_seg_ros.annotation.decisions import Decision
from clip_seg_ros.annotation.results import AnnotatedFrame, AnnotatedObject
from clip_seg_ros.annotation.review import Review
from clip_seg_ros.tools.cli import main
from clip_seg_ros.types import ObjectRegion
from reviewed_run import write_shards

SIZE = (24, 32)


def thing(prompt: str, row: int) -> AnnotatedObject:
    mask = np.zeros(SIZE, bool)
    mask[row : row + 6, 4:12] = True
    return AnnotatedObject.of(ObjectRegion.of_mask(prompt, 1, 0.9, mask), 0, 0.5, 0.75)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two images, of which somebody decided about three objects."""
    found = (thing("red cup", 2), thing("blue box", 12))
    pictures = (f"images/table/{index:06d}.jpg" for index in range(2))
    frames = [AnnotatedFrame("table", "", at, at, str(at), picture, SIZE, found) for at, picture in enumerate(pictures)]
    write_shards(tmp_path, frames, ("red cup", "blue box"))
    review = Review(tmp_path)
    review.decide(Decision("accept", "anna", "table", 0, 0))
    review.decide(Decision("reject", "anna", "table", 0, 1))
    review.decide(Decision("rename", "anna", "table", 1, 1, name="crate"))
    review.close()
    return tmp_path


def test_the_coco_file_says_what_is_a_persons_and_what_is_a_guess(run: Path, capsys: pytest.CaptureFixture) -> None:
    shards = {path: path.read_bytes() for path in (run / "shards").rglob("*.json*")}
    assert main(["review", str(run), "--write", "--formats", "coco"]) == 0
    coco = json.loads((run / "annotations" / "instances_default.json").read_text())
    names = {each["id"]: each["name"] for each in coco["categories"]}
    found = [(each["image_id"], names[each["category_id"]], each["decided"]) for each in coco["annotations"]]

    assert found == [(1, "red cup", "accepted"), (2, "red cup", "guessed"), (2, "crate", "corrected")]
    assert "coco is written" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in (run / "shards").rglob("*.json*")} == shards


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["--write"], 1, "has no written formats yet"),
        (["--write", "--formats", "cocoa"], 2, "there is no format 'cocoa'"),
        (["--formats", "coco"], 2, "--formats is for --write"),
    ],
)
def test_what_cannot_be_written_is_said(
    run: Path, capsys: pytest.CaptureFixture, arguments: list[str], code: int, why: str
) -> None:
    assert main(["review", str(run), *arguments]) == code
    assert why in capsys.readouterr().err


def test_damaged_decisions_are_said_when_the_data_set_is_written(run: Path, capsys: pytest.CaptureFixture) -> None:
    with (run / "decisions.jsonl").open("a") as file:
        file.write('{"kind":"rej')
    assert main(["review", str(run), "--write", "--formats", "coco"]) == 0
    assert "has a damaged line" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["review", str(tmp_path), "--no-browser", "--port", "0"]) == 1
    assert "holds no run of clip-seg annotate" in capsys.readouterr().err


def test_the_page_is_served_until_it_is_ended(run: Path) -> None:
    command = [sys.executable, "-m", "clip_seg_ros.tools.cli", "review", str(run), "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            address = next(word for word in line.split() if word.startswith("http://127.0.0.1:"))
            with urllib.request.urlopen(address) as answer:
                page = answer.read().decode()
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 130

    assert "<title>Review</title>" in page
