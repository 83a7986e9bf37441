# SPDX-License-Identifier: Apache-2.0
"""Which objects references mean, on hand-made boxes in metres and on masks in the picture."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from clip_seg_ros.commands.references import Order, Reference, Relation, Superlative
from clip_seg_ros.pipeline.space.relations import Resolution, resolve
from clip_seg_ros.pipeline.space.solids import Person, SpaceFrame, solids_of
from clip_seg_ros.types import ObjectRegion, OrientedBox

SIZE = (480, 640)
LEVEL = SpaceFrame(up=(0.0, -1.0, 0.0))
CUP, BOX, BOWL, PLATE = (Reference(name, count=1) for name in ("cup", "box", "bowl", "plate"))
_ids = iter(range(1, 10**9))


def thing(name: str, x: float, z: float, size: float = 0.08, height: float = 0.1, foot: float = 0.0, score=0.9):
    """A thing ``x`` metres to the right and ``z`` away, whose foot is so much above a table 0.4 m below the camera."""
    middle = (x, 0.4 - foot - height / 2, z)
    # The box's first axis is the longest: upright or across.
    upright = height >= size
    sizes = (height, size, size) if upright else (size, size, height)
    half = np.sqrt(0.5)
    turn = (0.0, 0.0, half, half) if upright else (half, 0.0, 0.0, half)
    column, row = 320 + 250 * x / z, 240 + 250 * middle[1] / z
    wide, tall = 250 * size / z, 250 * height / z
    found = drawn(name, column - wide / 2, row - tall / 2, wide, tall, score)
    return replace(found, position_m=middle, box_m=OrientedBox(middle, sizes, turn))


def drawn(name: str, left: float, top: float, wide: float, tall: float, score: float = 0.9) -> ObjectRegion:
    """A thing without depth: a rectangle in the picture."""
    mask = np.zeros(SIZE, np.bool_)
    mask[max(0, round(top)) : round(top + tall), max(0, round(left)) : round(left + wide)] = True
    return ObjectRegion.of_mask(name, next(_ids) % 255 + 1, score, mask)


def told(reference: Reference, *regions: ObjectRegion, space: SpaceFrame = LEVEL) -> Resolution:
    return resolve(reference, {name: [r for r in regions if r.prompt == name] for name in reference.names()}, space)


def related(kind, *anchors: Reference, name: str = "cup", distance_m: float | None = None) -> Reference:
    return Reference(name, (Relation(kind, anchors, distance_m),), count=1)


BOX_THERE = thing("box", 0.0, 1.0)
PAIRS = {
    "left of": (thing("cup", -0.2, 1.0), thing("cup", 0.2, 1.0)),
    "right of": (thing("cup", 0.2, 1.0), thing("cup", -0.2, 1.0)),
    "in front of": (thing("cup", 0.05, 0.8), thing("cup", 0.05, 1.3)),
    "behind": (thing("cup", 0.05, 1.3), thing("cup", 0.05, 0.8)),
    "above": (thing("cup", 0.0, 1.0, foot=0.3), thing("cup", 0.3, 1.0, foot=0.3)),
    "on": (thing("cup", 0.0, 1.0, size=0.05, foot=0.1), thing("cup", 0.3, 1.0, size=0.05)),
    "next to": (thing("cup", 0.12, 1.0), thing("cup", 0.5, 1.0)),
    "near": (thing("cup", 0.25, 1.0), thing("cup", 0.9, 1.0)),
    "touching": (thing("cup", 0.082, 1.0), thing("cup", 0.16, 1.0)),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_a_relation_chooses_the_thing_for_which_it_holds_in_metres(kind) -> None:
    right, wrong = PAIRS[kind]

    answer = told(related(kind, BOX), wrong, right, BOX_THERE)

    assert answer.state == "found"
    assert answer.regions == (right,)
    assert answer.anchors == (BOX_THERE,)


@pytest.mark.parametrize("kind", PAIRS)
def test_a_relation_that_holds_for_nothing_finds_nothing(kind) -> None:
    answer = told(related(kind, BOX), PAIRS[kind][1], BOX_THERE)

    assert (answer.state, answer.regions) == ("not found", ())
    assert answer.sentence.startswith(f"1 cup, not {kind} the box; nearest miss: ")


def test_what_is_below_and_under_and_in() -> None:
    high, low = thing("box", 0.0, 1.0, foot=0.3), thing("cup", 0.0, 1.0)
    assert told(related("below", BOX), low, thing("cup", 0.5, 1.0), high).regions == (low,)
    book, apart = thing("book", 0.0, 1.0, size=0.2, height=0.03), thing("book", 0.5, 1.0, size=0.2, height=0.03)
    on_it = thing("cup", 0.02, 1.0, foot=0.03)
    assert told(related("under", CUP, name="book"), apart, book, on_it).regions == (book,)
    bowl, ball = thing("bowl", 0.0, 1.0, size=0.18, height=0.07), thing("ball", 0.0, 1.0, 0.06, 0.06, foot=0.01)
    assert told(related("in", BOWL, name="ball"), thing("ball", 0.3, 1.0, 0.06, 0.06), ball, bowl).regions == (ball,)


def test_between_two_names_and_between_two_of_one_name() -> None:
    middle, aside, beyond = thing("cup", 0.0, 1.0), thing("cup", 0.0, 1.5), thing("cup", 0.6, 1.0)
    left, right = thing("box", -0.3, 1.0), thing("bowl", 0.3, 1.0)
    assert told(related("between", BOX, BOWL), aside, middle, beyond, left, right).regions == (middle,)
    other = thing("box", 0.3, 1.0)
    assert told(related("between", Reference("box", count=2)), aside, middle, left, other).regions == (middle,)
    assert "only 1 box: the cup cannot be placed" == told(related("between", Reference("box")), middle, left).sentence


def test_within_counts_from_side_to_side() -> None:
    near, far = thing("cup", 0.4, 1.0), thing("cup", 0.8, 1.0)
    assert told(related("within", BOX, distance_m=0.35), far, near, BOX_THERE).regions == (near,)
    missed = told(related("within", BOX, distance_m=0.35), far, BOX_THERE)
    assert missed.sentence == "1 cup, not within 35 cm of the box; nearest miss: 37 cm"


def test_the_speakers_own_side() -> None:
    left, right = thing("cup", -0.2, 1.0), thing("cup", 0.2, 1.6)
    assert told(related("left of"), left, right).regions == (left,)
    assert told(related("right of"), left, right).regions == (right,)
    assert told(related("near"), left, right).state == "not found", "both are more than 1 m away"
    assert told(related("within", distance_m=1.2), left, right).regions == (left,)
    assert told(related("behind"), left, right).state == "not found"


def test_a_person_who_faces_the_camera_has_another_left() -> None:
    left, right = thing("cup", -0.2, 1.0), thing("cup", 0.2, 1.6)  # of the camera
    person = SpaceFrame(LEVEL.up, speaker=Person((0.0, 0.0, 2.0), ahead=(0.0, 0.0, -1.0), left=(1.0, 0.0, 0.0)))
    assert told(related("left of"), left, right, space=person).regions == (right,)
    assert told(related("right of"), left, right, space=person).regions == (left,)
    assert told(related("near"), left, right, space=person).regions == (right,)
    assert told(related("within", distance_m=0.6), left, right, space=person).regions == (right,)
    nearest = Reference("cup", superlative=Superlative("nearest"), count=1)
    assert told(nearest, left, right, space=person).regions == (right,)
    assert told(nearest, left, right).regions == (left,)


@pytest.mark.parametrize("in_picture", [False, True])
def test_a_person_of_whom_nothing_is_known_has_no_left(in_picture) -> None:
    cup = drawn("cup", 100, 100, 50, 50) if in_picture else thing("cup", -0.2, 1.0)
    answer = told(related("left of"), cup, space=SpaceFrame(LEVEL.up, speaker="unknown"))
    assert (answer.state, answer.sentence) == ("not found", "nothing tells where you are: the cup cannot be placed")
    nearest = Reference("cup", superlative=Superlative("nearest"), count=1)
    assert told(nearest, cup, space=SpaceFrame(LEVEL.up, speaker="unknown")).regions == (cup,), "to the camera, then"


@pytest.mark.parametrize(
    ("kind", "index"),
    [
        ("leftmost", 0),
        ("rightmost", 2),
        ("nearest", 1),
        ("farthest", 2),
        ("largest", 2),
        ("smallest", 1),
        ("tallest", 0),
        ("shortest", 1),
        ("highest", 1),
        ("lowest", 2),
    ],
)
def test_superlatives_in_metres(kind, index: int) -> None:
    cups = (
        thing("cup", -0.3, 1.0, size=0.08, height=0.3),
        thing("cup", 0.0, 0.8, size=0.05, height=0.06, foot=0.4),
        thing("cup", 0.3, 1.3, size=0.25, height=0.15),
    )

    assert told(Reference("cup", superlative=Superlative(kind), count=1), *cups).regions == (cups[index],)


def test_the_nearest_to_another_thing() -> None:
    near, far = thing("cup", 0.2, 1.0), thing("cup", -0.4, 1.0)
    nearest, farthest = (Reference("cup", superlative=Superlative(kind, (BOX,))) for kind in ("nearest", "farthest"))
    assert told(nearest, far, near, BOX_THERE).regions == (near,)
    assert told(farthest, far, near, BOX_THERE).regions == (far,)
    assert told(nearest, far, near).sentence == "no box: the cup cannot be placed"


def test_order_counts_from_a_side_and_from_the_end() -> None:
    cups = [thing("cup", x, 1.0 + x / 2) for x in (-0.3, 0.0, 0.3)]
    for order, index in ((Order(2), 1), (Order(-1), 2), (Order(1, "right"), 2), (Order(3, "far"), 0)):
        assert told(Reference("cup", order=order, count=1), cups[2], cups[0], cups[1]).regions == (cups[index],)
    first_two = told(Reference("cup", order=Order(1), count=2), *reversed(cups))
    assert first_two.regions == (cups[0], cups[1])
    missing = told(Reference("cup", order=Order(4), count=1), *cups)
    assert (missing.state, missing.sentence) == ("not found", "only 3 cups, no number 4 from the left")


def test_numbers() -> None:
    cups = [thing("cup", x, 1.0) for x in (-0.3, 0.0, 0.3)]
    assert told(Reference("cup"), *cups).count == 3, "without a number, all are meant"
    assert len(told(Reference("cup", count=3), *cups).regions) == 3
    few = told(Reference("cup", count=4), *cups)
    assert (few.state, few.regions, few.sentence) == ("not found", (), "only 3 cups, not 4")
    assert told(Reference("cup", count=2), *cups).state == "ambiguous"
    asked = told(Reference("cup", is_count_asked=True), *cups)
    assert (asked.state, asked.count, asked.sentence) == ("found", 3, "3 cups")
    none = told(Reference("cup", is_count_asked=True))
    assert (none.state, none.count, none.sentence) == ("not found", 0, "no cup")


def test_several_that_fit_are_ambiguous_and_the_sentence_says_what_tells_them_apart() -> None:
    cups = thing("cup", -0.3, 0.8), thing("cup", -0.2, 1.2)

    answer = told(related("left of", BOX), *cups, BOX_THERE)

    assert (answer.state, answer.count, len(answer.regions)) == ("ambiguous", 2, 2)
    assert answer.sentence == "2 cups left of the box fit: say which; the nearest, the left one"


def test_exclusions_leave_out_the_same_object_by_another_name() -> None:
    white, red = thing("cup", -0.2, 1.0), thing("cup", 0.2, 1.0)
    also_red = replace(red, prompt="red cup", id=255)
    not_red = Reference("cup", exclusions=(Reference("red cup", count=1),), count=1)
    assert told(not_red, white, red, also_red).regions == (white,)
    assert told(not_red, red, also_red).sentence == "1 cup, none besides the red cup"
    not_left = Reference("cup", exclusions=(Reference("cup", superlative=Superlative("leftmost")),), count=1)
    assert told(not_left, white, red).regions == (red,)


def test_chains_are_resolved_from_their_end() -> None:
    cups = thing("cup", -0.5, 1.0), thing("cup", 0.1, 1.0)
    boxes, bowl = (thing("box", -0.2, 1.0), thing("box", 0.4, 1.0)), thing("bowl", 0.0, 1.0)
    left_box = related("left of", BOWL, name="box")
    chain = related("left of", left_box)
    assert told(chain, *cups, *boxes, bowl).regions == (cups[0],)
    assert told(chain, *cups, *boxes).sentence == "no bowl: the box cannot be placed: the cup cannot be placed"


def test_of_several_anchors_the_best_pair_counts() -> None:
    cups = thing("cup", 0.0, 1.0), thing("cup", 0.62, 1.0)
    boxes = thing("box", -0.5, 1.0), thing("box", 0.5, 1.0)

    answer = told(related("next to", Reference("box", count=1)), *cups, *boxes)

    assert (answer.regions, answer.anchors) == ((cups[1],), (boxes[1],))


def test_a_thing_is_not_its_own_anchor() -> None:
    one = thing("cup", 0.0, 1.0)
    assert told(related("next to", Reference("cup")), one).state == "not found"
    assert told(related("next to", Reference("cup")), one, thing("cup", 0.1, 1.0)).count == 2


def test_a_near_miss_is_told_in_centimetres() -> None:
    answer = told(related("left of", BOX), thing("cup", 0.02, 1.3), thing("cup", 0.3, 1.0), BOX_THERE)

    assert answer.sentence == "2 cups, none left of the box; nearest miss: 3 cm"


def test_what_was_found_is_told_in_words() -> None:
    cups = thing("cup", -0.3, 1.0, size=0.05), thing("cup", -0.1, 1.0, size=0.1)
    box, bowl = thing("box", 0.2, 1.0), thing("bowl", 0.6, 1.0)
    largest = replace(related("left of", related("left of", BOWL, name="box")), superlative=Superlative("largest"))
    assert told(largest, *cups, box, bowl).sentence == "the largest cup left of the box left of the bowl"
    assert told(Reference("cups", count=2), *(replace(cup, prompt="cups") for cup in cups)).sentence == "2 cups"
    second = Reference("cup", order=Order(2), count=1)
    assert told(second, *cups).sentence == "the cup, number 2 from the left"
    nearest = Reference("cup", superlative=Superlative("nearest", (BOX,)), count=1)
    assert told(nearest, *cups, box).sentence == "the nearest cup to the box"
    assert told(Reference("knives"), thing("knives", 0.0, 1.0)).sentence == "1 knife"
    assert told(Reference("glass"), *(replace(cup, prompt="glass") for cup in cups)).sentence == "2 glasses"


def test_doubtful_objects_count_only_where_they_are_needed() -> None:
    sure, doubted = thing("cup", -0.2, 1.0), thing("cup", 0.2, 1.0, score=0.6)
    assert told(CUP, sure, doubted).regions == (sure,)
    assert told(Reference("cup", is_count_asked=True), sure, doubted).count == 1
    assert told(Reference("cup", order=Order(2), count=1), sure, doubted).regions == (doubted,)
    assert told(related("right of", BOX), sure, doubted, BOX_THERE).regions == (doubted,)


def test_the_scores_of_objects_and_of_relations_combine() -> None:
    (fit,) = told(related("left of", BOX), thing("cup", -0.4, 1.0, score=0.7), BOX_THERE).fits
    (close,) = told(related("left of", BOX), thing("cup", -0.02, 1.4, score=0.7), BOX_THERE).fits

    assert 0.6 < fit.score < 0.7
    assert 0.3 < close.score < fit.score


def test_up_comes_from_gravity_where_the_camera_is_tilted() -> None:
    # The camera lies on its side: what is higher appears further to the right.
    low, high = thing("cup", -0.2, 1.0), thing("cup", 0.2, 1.0)
    highest = Reference("cup", superlative=Superlative("highest"), count=1)
    assert told(highest, low, high, space=SpaceFrame(up=(1.0, 0.0, 0.0))).regions == (high,)
    assert told(highest, low, high, space=SpaceFrame(up=(-1.0, 0.0, 0.0))).regions == (low,)


def test_a_solid_reaches_as_far_as_its_box() -> None:
    turn = np.array([0.1, -0.3, 0.2, 0.9])
    box = OrientedBox((0.1, 0.2, 1.0), (0.3, 0.1, 0.1), tuple(turn / np.linalg.norm(turn)))
    region = replace(drawn("cup", 0, 0, 9, 9), position_m=(0.1, 0.2, 1.0), box_m=box)
    (solid,) = solids_of([region], LEVEL)

    assert solid.reach[0] == pytest.approx(0.1 + box.reach_m((1.0, 0.0, 0.0)))
    assert solid.high == pytest.approx(-0.2 + box.reach_m((0.0, -1.0, 0.0)))


def test_the_hidden_side_of_a_can_is_guessed() -> None:
    turn = np.linspace(np.pi, 2 * np.pi, 200)  # the half that faces the camera
    points = np.column_stack([0.04 * np.cos(turn), np.linspace(-0.05, 0.05, 200), 1 + 0.04 * np.sin(turn)])
    region = replace(drawn("can", 0, 0, 9, 9), position_m=(0.0, 0.0, 0.98))
    (solid,) = solids_of([region], replace(LEVEL, points_m={region.id: points.astype(np.float32)}))

    assert solid.middle == pytest.approx([0.0, 1.0], abs=0.004)
    assert solid.breadth == pytest.approx(0.08, abs=0.004)


PICTURED = {
    "left of": (drawn("cup", 50, 200, 60, 80), drawn("cup", 500, 200, 60, 80)),
    "right of": (drawn("cup", 500, 200, 60, 80), drawn("cup", 50, 200, 60, 80)),
    "in front of": (drawn("cup", 200, 320, 60, 80), drawn("cup", 200, 60, 60, 80)),
    "behind": (drawn("cup", 200, 60, 60, 80), drawn("cup", 200, 320, 60, 80)),
    "above": (drawn("cup", 300, 50, 40, 60), drawn("cup", 50, 50, 40, 60)),
    "on": (drawn("cup", 300, 155, 40, 60), drawn("cup", 50, 155, 40, 60)),
    "next to": (drawn("cup", 370, 205, 50, 80), drawn("cup", 560, 205, 50, 80)),
    "touching": (drawn("cup", 350, 205, 50, 80), drawn("cup", 450, 205, 50, 80)),
}


@pytest.mark.parametrize("kind", PICTURED)
def test_relations_hold_in_the_picture_where_there_is_no_depth(kind) -> None:
    right, wrong = PICTURED[kind]
    box = drawn("box", 290, 200, 60, 80)

    assert told(related(kind, BOX), wrong, right, box).regions == (right,)
    assert told(related(kind, BOX), wrong, box).state == "not found"


def test_a_miss_without_depth_is_told_as_a_share_of_the_picture() -> None:
    answer = told(related("left of", BOX), drawn("cup", 400, 200, 60, 80), drawn("box", 300, 200, 60, 80))

    assert answer.sentence == "1 cup, not left of the box; nearest miss: 17 % of the picture's width"


def test_one_object_without_a_position_makes_all_be_compared_in_the_picture() -> None:
    cups = thing("cup", -0.2, 1.0), drawn("cup", 500, 200, 60, 80)

    assert told(Reference("cup", superlative=Superlative("rightmost"), count=1), *cups).regions == (cups[1],)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing is known of box"):
        resolve(related("on", BOX), {"cup": []})
    with pytest.raises(ValueError, match="has no meaning"):
        told(related("on"), thing("cup", 0.0, 1.0))
    with pytest.raises(ValueError, match="has no meaning"):
        told(related("within", BOX), thing("cup", 0.3, 1.0), BOX_THERE)


def test_ten_objects_are_resolved_within_milliseconds() -> None:
    points = np.random.default_rng(0).normal(size=(20_000, 3)).astype(np.float32)
    cups = [thing("cup", x, 1.0) for x in np.linspace(-0.4, 0.4, 8)]
    boxes = [thing("box", x, 1.2) for x in (-0.1, 0.1)]
    seen = {region.id: np.asarray(region.position_m, np.float32) + 0.02 * points for region in (*cups, *boxes)}
    reference = replace(related("left of", BOX), superlative=Superlative("largest"))
    for space in (LEVEL, replace(LEVEL, points_m=seen)):
        taken_s = []
        for _ in range(5):
            start_s = time.thread_time()
            told(reference, *cups, *boxes, space=space)
            taken_s.append(time.thread_time() - start_s)

        assert min(taken_s) < 0.03, "it takes about a millisecond; only a mistake in the order of magnitude shows here"
