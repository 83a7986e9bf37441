# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import pytest

from clip_seg_ros.models.spec import InputSpec, ModelSpec
from clip_seg_ros.pipeline.prompts import checked_prompts

OPEN = ModelSpec("open", InputSpec(64, "squash", 32, (0, 0, 0), (1, 1, 1)), "sigmoid")
FIXED = replace(OPEN, name="fixed", class_names=("cup", "box"))


def test_good_prompts_come_back_as_a_tuple() -> None:
    assert checked_prompts(["red cup", "box"], OPEN) == ("red cup", "box")
    assert checked_prompts(["box"], FIXED) == ("box",)


@pytest.mark.parametrize(
    ("prompts", "spec", "message"),
    [
        ("cup", OPEN, r'write \["cup"\]'),
        ([], OPEN, "ask about at least one phrase"),
        (["cup", " "], OPEN, "a prompt must be a phrase, got ' '"),
        ([3], OPEN, "a prompt must be a phrase, got 3"),
        (["plate"], FIXED, '"plate" is not one of the 2 classes of fixed: cup, box'),
    ],
)
def test_bad_prompts_are_refused_in_words(prompts, spec, message) -> None:
    with pytest.raises(ValueError, match=message):
        checked_prompts(prompts, spec)
