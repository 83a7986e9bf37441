# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from clip_seg_ros.evaluation.wording import class_prompts, phrase_wording
from clip_seg_ros.resources import class_list

VOC = ("background", "aeroplane", "car", "diningtable", "tvmonitor")


@pytest.mark.parametrize(
    ("author", "prompts"),
    [
        ("data", VOC),
        ("maskclip", ("background", "airplane", "car", "dining table", "tv monitor")),
        ("clipseg", ("background", "airplane", "car", "diningtable", "tvmonitor")),
    ],
)
def test_classes_go_by_the_names_that_the_authors_ask(author, prompts: tuple[str, ...]) -> None:
    assert class_prompts(VOC, author) == prompts


def test_stuff_is_asked_in_english() -> None:
    names = ("wall-brick", "wall-other", "floor-wood", "desk-stuff", "playingfield")

    assert class_prompts(names, "maskclip") == ("brick wall", "wall", "wood floor", "desk", "playingfield")


def test_a_fixed_list_is_asked_by_the_names_that_it_has() -> None:
    assert class_prompts(("aeroplane", "tvmonitor"), "maskclip", known=("airplane", "tvmonitor")) == (
        "airplane",
        "tvmonitor",
    )


def test_pascal5i_is_asked_as_clipseg_does() -> None:
    wording = phrase_wording("pascal5i", "clipseg")

    assert wording("dining table") == "a photo of a diningtable."
    assert wording("car") == "a photo of a car."
    assert phrase_wording("phrasecut", "clipseg")("dining table") == "dining table"
    assert phrase_wording("pascal5i", "data")("dining table") == "dining table"
    assert phrase_wording("coco", "maskclip")("wall-brick") == "brick wall"
    assert phrase_wording("coco", "maskclip")("red cup") == "red cup"


@pytest.mark.parametrize("name", ["ade20k", "cityscapes19", "coco_stuff171", "pascal_context59", "voc20"])
def test_no_two_classes_of_a_list_are_asked_by_the_same_words(name: str) -> None:
    prompts = class_list(name, asked=True)

    assert class_prompts(class_list(name), "maskclip") == prompts
    assert len(set(prompts)) == len(class_list(name))
    assert not [prompt for prompt in prompts if "-" in prompt or "=" in prompt]
