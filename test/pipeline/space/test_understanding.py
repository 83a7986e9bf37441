# SPDX-License-Identifier: Apache-2.0
"""What a model is asked for, and which of its objects phrases with places, order or number mean."""

from __future__ import annotations

import numpy as np
import pytest

from clip_seg_ros.commands.parser import parse_command
from clip_seg_ros.pipeline.cell_maps import CellMaps
from clip_seg_ros.pipeline.preprocess import Geometry
from clip_seg_ros.pipeline.space.localization import measure
from clip_seg_ros.pipeline.space.understanding import FAINT, Asking, Understood, needs_space, understand
from clip_seg_ros.types import CameraFrame, ObjectRegion

SIZE = (240, 320)
FRAME = CameraFrame(np.zeros((*SIZE, 3), np.uint8), 0, "")
PLACES = {"cup": (20, 120, 260), "box": (190,), "red cup": (120,)}
"""The left edges of what a model finds of each name, squares of 30 pixels."""


def asking_of(text: str, **how: bool) -> Asking:
    command = parse_command(text)
    return Asking.of(command.prompts, command.references, command.negatives, **how)


def regions_of(names: tuple[str, ...]) -> list[ObjectRegion]:
    found = []
    for name in names:
        for left in PLACES.get(name.removesuffix("s"), ()):
            mask = np.zeros(SIZE, bool)
            mask[100:130, left : left + 30] = True
            found.append(ObjectRegion.of_mask(name, len(found) + 1, 0.9 - 0.01 * len(found), mask))
    return found


def understood(text: str, **how: bool) -> Understood:
    asking = asking_of(text, **how)
    values = np.stack([np.full((24, 32), 0.1 * (row + 1), np.float32) for row in range(len(asking.names))])
    maps = CellMaps(asking.names, values, Geometry(SIZE, (24, 32)))
    return understand(asking, [measure(region, FRAME) for region in regions_of(asking.names)], maps, FRAME)


def lefts(found: Understood) -> list[tuple[str, int]]:
    return [(each.region.prompt, each.region.box_px[0]) for each in found.measured]


@pytest.mark.parametrize(
    ("text", "names", "negatives"),
    [
        ("find the cup", ("cup",), ()),
        ("find the cups, not the red one", ("cups",), ("red cups",)),
        ("find the cup left of the box", ("cup", "box"), ()),
        ("find the cup and the leftmost box", ("cup", "box"), ()),
        ("find two cups", ("cups",), ()),
        ("how many cups are there?", ("cups",), ()),
    ],
)
def test_a_model_is_asked_for_names(text, names, negatives) -> None:
    asking = asking_of(text)
    assert (asking.names, asking.negatives) == (names, negatives)


def test_a_model_that_understands_is_asked_for_whole_phrases() -> None:
    asking = asking_of("find the cup left of the box", by_model=True)
    assert asking.names == ("cup left of the box",)
    assert asking.is_plain
    both = asking_of("find the cup left of the box", is_whole_asked=True)
    assert both.names == ("cup", "box", "cup left of the box")


def test_what_is_left_out_by_its_place_is_no_negative_of_the_model() -> None:
    asking = asking_of("find the cups, not the leftmost one, and the box")
    assert asking.negatives == ()
    assert lefts(understood("find the cups, not the leftmost one, and the box")) == [
        ("cups", 120),
        ("cups", 260),
        ("box", 190),
    ]


def test_only_what_is_meant_is_found_under_the_phrase_as_typed() -> None:
    found = understood("find the cup right of the box")
    assert lefts(found) == [("cup right of the box", 260)]
    assert found.maps.prompts == ("cup right of the box",)
    assert found.maps.best_score() == pytest.approx(0.1), "the probabilities are those of cups"
    assert list(found.sentences) == ["cup right of the box"]


def test_numbers_are_counted_and_doubts_are_told() -> None:
    assert understood("how many cups are there?").sentences == {"cups": "3 cups"}
    doubt = understood("find the two cups left of the box")
    assert lefts(doubt) == [("cups left of the box", 20), ("cups left of the box", 120)]
    many = understood("find two cups")
    assert len(many.measured) == 3
    assert "3 cups fit" in many.sentences["cups"]


def test_objects_are_tied_to_what_they_relate_to() -> None:
    found = understood("find the cup right of the box and the leftmost cup")
    (tie,) = found.ties.ties
    by_phrase = {each.region.prompt: each.region for each in found.measured}
    assert tie.region is by_phrase["cup right of the box"]
    assert (tie.anchor.prompt, tie.words, tie.gap_m) == ("box", "right of", None)
    assert found.ties.indices(by_phrase["leftmost cup"]) == []
    assert found.ties.anchors == (tie.anchor,)


def test_an_anchor_is_tied_to_what_it_relates_to_itself() -> None:
    found = understood("find the cup left of the box right of the red cup")
    ties = [(tie.region.prompt, tie.words, tie.anchor.prompt) for tie in found.ties.ties]
    phrase = "cup left of the box right of the red cup"
    assert ties == [(phrase, "left of", "box"), ("box", "right of", "red cup"), (phrase, "left of", "box")], (
        "2 cups fit"
    )
    assert [anchor.prompt for anchor in found.ties.anchors] == ["box", "red cup"]


@pytest.mark.parametrize(
    ("text", "is_needed"),
    [
        ("find the cup on my left", True),
        ("find the cup next to the box in front of me", True),
        ("find the nearest cup", True),
        ("find the cup nearest to the box", False),
        ("find the leftmost cup", False),
    ],
)
def test_what_a_person_says_of_themselves_is_noticed(text, is_needed) -> None:
    assert asking_of(text).needs_speaker == is_needed


def test_a_model_that_is_asked_for_everything_ties_nothing() -> None:
    assert understood("find the cup right of the box", by_model=True).ties.ties == ()


def test_what_nothing_fits_is_explained() -> None:
    found = understood("find the cup left of the bowl")
    assert lefts(found) == []
    assert "no bowl" in found.sentences["cup left of the bowl"]


def test_faint_objects_are_asked_for_where_space_decides_all() -> None:
    placed, mixed, plain = (asking_of(text) for text in ("the leftmost cup", "leftmost cup and the box", "the cup"))
    assert [each.threshold(None, 0.5) for each in (placed, mixed, plain)] == [FAINT, None, None]
    assert placed.threshold(None, 0.2) == 0.2, "the model's own is lower"
    assert placed.threshold(0.6, 0.5) == 0.6, "the user's counts"


def test_a_phrase_that_is_a_name_stays_as_it_is() -> None:
    found = understood('find "salt and pepper" and the cup')
    assert lefts(found) == [("cup", 20), ("cup", 120), ("cup", 260)]
    assert found.sentences == {}
    assert not any(map(needs_space, asking_of('find "cup on the shelf"').references))
