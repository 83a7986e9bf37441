# SPDX-License-Identifier: Apache-2.0
"""What geometry and a model that understands phrases find together."""

from __future__ import annotations

import numpy as np
import pytest

from clip_seg_ros.commands.references import Reference, Relation
from clip_seg_ros.pipeline.space.agreeing import agree
from clip_seg_ros.pipeline.space.relations import Resolution, resolve
from clip_seg_ros.types import ObjectRegion

BOX_AT = 200


def square(name: str, id: int, left: int, score: float = 0.8, side: int = 30) -> ObjectRegion:
    mask = np.zeros((240, 320), np.bool_)
    top = 150 if name == "box" else 100
    mask[top : top + side, left : left + side] = True
    return ObjectRegion.of_mask(name, id, score, mask)


def left_of_box(*lefts: int) -> Resolution:
    """The cup left of the box, where cups stand at some places."""
    cups = [square("cup", number, left) for number, left in enumerate(lefts, start=1)]
    reference = Reference("cup", (Relation("left of", (Reference("box", count=1),)),), count=1)
    return resolve(reference, {"cup": cups, "box": [square("box", 50, BOX_AT)]})


def test_what_both_find_is_more_certain() -> None:
    together = agree(left_of_box(40, 250), [square("cup left of the box", 60, 42, score=0.5)])
    assert [(fit.region.id, fit.region.prompt) for fit in together.fits] == [(1, "cup")]
    assert together.fits[0].region.score == pytest.approx(0.9), "wrong only if both are: 1 - 0.2 x 0.5"
    assert together.sentence == "1 cup left of the box; the model agrees"


def test_of_several_that_fit_the_model_chooses() -> None:
    answer = left_of_box(40, 120)
    assert answer.state == "ambiguous"
    together = agree(answer, [square("cup left of the box", 60, 120)])
    assert [fit.region.id for fit in together.fits] == [2]
    assert together.sentence == "1 cup left of the box, of 2 that fit, that the model points at"
    elsewhere = agree(answer, [square("cup left of the box", 60, 250)])
    assert len(elsewhere.fits) == 2
    assert elsewhere.sentence == f"{answer.sentence}; the model alone points at another cup"
    both = [square("cup left of the box", number, left) for number, left in ((60, 40), (61, 120))]
    assert agree(answer, both).sentence == answer.sentence, "it does not help"


def test_geometry_decides_where_it_is_clear() -> None:
    answer = left_of_box(40, 250)
    together = agree(answer, [square("cup left of the box", 60, 250)])
    assert together.fits == answer.fits
    assert together.sentence == answer.sentence


def test_where_geometry_is_not_clear_both_are_told() -> None:
    answer = left_of_box(BOX_AT - 6, 250)  # 6 of 320 pixels, where 1 % counts and 3 % is clear
    together = agree(answer, [square("cup left of the box", 60, 250)])
    assert together.fits == answer.fits
    assert together.sentence.startswith("1 cup left of the box; the model points at another cup: ")


def test_a_model_alone_finds_nothing_but_is_told() -> None:
    answer = left_of_box(250)
    together = agree(answer, [square("cup left of the box", 60, 250)])
    assert together.fits == ()
    assert together.sentence == f"{answer.sentence}; the model alone points at one cup"
    assert agree(answer, []).sentence == answer.sentence
