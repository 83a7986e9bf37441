# SPDX-License-Identifier: Apache-2.0
"""What found objects relate to, in the overlay."""

from __future__ import annotations

import numpy as np
import pytest

from clip_seg_ros.pipeline.lettering import Style
from clip_seg_ros.pipeline.overlay import PALETTE, draw
from clip_seg_ros.pipeline.tie_drawing import QUIET, write_ties
from clip_seg_ros.pipeline.ties import Tie, Ties
from clip_seg_ros.types import ObjectRegion

GREY = np.full((480, 640, 3), 128, np.uint8)


def square(name: str, id: int, left: int, top: int, side: int = 80, size=(480, 640)) -> ObjectRegion:
    mask = np.zeros(size, np.bool_)
    mask[top : top + side, left : left + side] = True
    return ObjectRegion.of_mask(name, id, 0.9, mask)


CUP, BOX = square("cup left of the box", 1, 100, 200), square("box", 2, 450, 200)
TIES = Ties((Tie(CUP, BOX, "left of", 0.23),))


def pixels(picture: np.ndarray, color: tuple[int, int, int]) -> int:
    """How many pixels have about a colour: thin lines and letters have soft borders."""
    return int((np.abs(picture.astype(int) - color).max(axis=2) < 60).sum())


def test_an_anchor_has_a_thin_grey_outline_and_no_filling():
    picture = draw(GREY, [CUP], ties=TIES)
    assert pixels(picture[196:204, 460:520], QUIET) > 50, "its upper edge"
    assert (picture[210:230, 460:520] == 128).all(), "its inside, above the line to its middle"
    assert not (draw(GREY, [CUP])[:, 440:] != 128).any(), "without ties there is nothing of it"


def test_a_line_in_the_colour_of_the_object_leads_to_its_anchor():
    picture = draw(GREY, [CUP], ties=TIES)
    assert pixels(picture[235:245, 190:230], PALETTE[0]) > 20
    assert pixels(picture[235:245, 400:445], PALETTE[0]) > 20


@pytest.mark.parametrize(("name", "where"), [("relation", np.s_[225:255, 280:360]), ("name", np.s_[285:305, 460:520])])
def test_the_relation_stands_on_the_line_and_the_name_at_the_anchor(name, where):
    picture = draw(GREY, [CUP], ties=TIES)
    assert pixels(picture[where], QUIET) > 5, name
    assert (picture[where].min(axis=2) < 80).any(), "on a dark strip"


def test_what_would_cover_something_is_not_written():
    canvas = GREY.copy()
    write_ties(canvas, TIES, [(0, 0, 640, 480)], [CUP], Style.of(canvas.shape))
    assert (canvas == 128).all()


def test_words_without_the_distance_take_less_room():
    written = []
    for taken in ([], [(0, 0, 282, 480), (352, 0, 640, 480)]):  # room for "left of" between the two
        canvas = GREY.copy()
        write_ties(canvas, TIES, taken, [CUP], Style.of(canvas.shape))
        columns = np.nonzero((canvas[220:260, 200:440] != 128).any(axis=(0, 2)))[0]
        written.append(columns.max() - columns.min())
    assert 0 < written[1] < written[0]


@pytest.mark.parametrize("size", [(4, 4), (40, 60), (1080, 1920)])
def test_any_size_of_image_is_drawn(size):
    side = max(1, size[0] // 4)
    cup, box = square("cup", 1, 0, 0, side, size), square("box", 2, size[1] - side, size[0] - side, side, size)
    picture = draw(np.zeros((*size, 3), np.uint8), [cup], ties=Ties((Tie(cup, box, "left of", 1.2),)))
    assert picture.shape == (*size, 3)


def test_indices_follow_the_things_and_not_their_looks():
    bowl, other = square("bowl", 3, 0, 0), square("cup left of the box", 4, 0, 400)
    ties = Ties(
        (Tie(CUP, BOX, "left of"), Tie(BOX, bowl, "behind"), Tie(other, BOX, "left of"), Tie(other, bowl, "near"))
    )
    assert ties.anchors == (BOX, bowl)
    assert [ties.indices(region) for region in (CUP, BOX, bowl, other)] == [[0], [1], [], [0, 1]]


@pytest.mark.parametrize(
    ("gap_m", "label"),
    [(None, "on"), (0.231, "on, 23 cm"), (0.0, "on, 1 cm"), (0.999, "on, 1.0 m"), (2.34, "on, 2.3 m")],
)
def test_a_label_says_the_distance_as_people_do(gap_m, label):
    assert Tie(CUP, BOX, "on", gap_m).label == label
