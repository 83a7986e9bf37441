# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from clip_seg_ros.zoo import caution
from clip_seg_ros.zoo.embedded import EMBEDDED_MODELS

EMBEDDED = SimpleNamespace(name="clipseg-pocket", for_real_pictures="clipseg-rd64-refined")
OTHER = SimpleNamespace(name="mine", for_real_pictures=None)


@pytest.mark.parametrize(
    ("words", "then"),
    [
        (caution.in_commands, "`use clipseg-rd64-refined`"),
        (caution.in_programs, 'Predictor.from_name("clipseg-rd64-refined")'),
        (caution.in_options, "`--model clipseg-rd64-refined`"),
    ],
)
def test_what_to_know_and_to_type(words, then) -> None:
    said = words(EMBEDDED)
    assert "clipseg-pocket know the simulated table alone" in said
    assert "confidently wrong" in said
    assert said.index("`clip-seg weights download clipseg-rd64-refined`") < said.index(then)
    assert words(OTHER) == ""


def test_the_corner_is_short() -> None:
    assert caution.in_corner(EMBEDDED) == "simulated-table weights: not for real pictures"
    assert caution.in_corner(OTHER) == ""


def test_predictor_warns_once_in_a_process() -> None:
    name = next(iter(EMBEDDED_MODELS))
    program = (
        "import warnings; from clip_seg_ros.pipeline.predictor import Predictor\n"
        f"warnings.simplefilter('always')\nfor _ in range(2): Predictor.from_name({name!r}, 'cpu', engine='eager')\n"
        "Predictor.from_name('maskclip', 'cpu', engine='eager')\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stderr.count("EmbeddedWeightsWarning") == 1
    assert "<string>:3: EmbeddedWeightsWarning" in result.stderr, "it names the line that asked for these weights"
    assert 'Predictor.from_name("clipseg-rd64-refined")' in result.stderr
