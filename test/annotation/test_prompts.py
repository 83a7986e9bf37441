# SPDX-License-Identifier: Apache-2.0
"""What to find comes from a file or a command line, with thresholds and what to leave out."""

from __future__ import annotations

import pytest

from clip_seg_ros.annotation.job import Phrase
from clip_seg_ros.annotation.prompts import read_prompts
from clip_seg_ros.data.samples import DataError

WANTED = ((Phrase("red cup"), Phrase("box", 0.6)), ("white box",))


def test_a_file(tmp_path):
    file = tmp_path / "things"
    file.write_text("# what lies on the table\n\nThe red  cup\nbox = 0.6 # a sure one\nnot the white box\n")
    assert read_prompts([str(file)]) == WANTED


def test_a_command_line():
    assert read_prompts(["red cup", "box=0.6", "not white box"]) == WANTED


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("cup\nbox = high", "line 2, 'box = high': 'high' is no threshold"),
        ("box = 1.5", "a threshold lies in 0..1, got 1.5"),
        ("= 0.5", "a phrase is missing"),
        ("cup\nthe cup", "line 2: 'cup' is there twice"),
        ("# nothing", "no phrase to find"),
        ("not cup", "no phrase to find"),
        ("cup left of the box = 0.6", 'those found for "cup", "box": leave its threshold out, or .* as in "cup = 0.6"'),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path, lines, words):
    file = tmp_path / "things"
    file.write_text(lines)
    with pytest.raises(DataError, match=words):
        read_prompts([str(file)])


def test_a_file_that_is_not_there_is_no_phrase():
    with pytest.raises(DataError, match="there is no file things"):
        read_prompts(["things.txt"])
