# SPDX-License-Identifier: Apache-2.0
import doctest

import pytest

from clip_seg_ros.commands import hints, plurals
from clip_seg_ros.commands.hints import correction, doubt, relation_in, remarks
from clip_seg_ros.commands.parser import parse_command
from clip_seg_ros.models.clip.tokenizer import CompactTokenizer

WORDS = (
    "object",
    "thing",
    "table",
    "floor",
    "cup",
    "bowl",
    "bottle",
    "box",
    "ball",
    "can",
    "red",
    "blue",
    "yellow",
    "black",
    "green",
    "a",
    "the",
    "photo",
    "of",
    "one",
    "good",
)
KNOWN = CompactTokenizer(WORDS, context_length=12)


def corrected(text: str) -> str:
    return correction(text, parse_command(text), KNOWN.known_words, KNOWN.unknown_words)


def corrected_openly(text: str) -> str:
    return correction(text, parse_command(text), (), lambda phrase: ())


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("segmnt the redcup", "segment the red cup"),
        ("fnd the blu box", "find the blue box"),
        ("fnd blu box", "find blue box"),
        ("serch for the ball", "search for the ball"),
        ("find the yelow bal and the  cup", "find the yellow ball and the cup"),
        ("find the cpu", "find the cup"),
        ("find the rad cup", "find the red cup"),
        ("Balck boxes", "black boxes"),
        ("find the redcups, not the gren one", "find the red cups, not the green one"),
        ("trak the ball", "track the ball"),
        ("where did you last see the redcup?", "where did you last see the red cup?"),
        ("forgt the blu cup", "forget the blue cup"),
        ("frget everything", "forget everything"),
    ],
)
def test_a_slip_is_corrected_by_what_the_weights_know(text, meant):
    assert corrected(text) == meant


@pytest.mark.parametrize(
    "text",
    [
        "find the red cup",
        "segment the giraffe",
        "find the car",
        "find a phone",
        "the truck",
        "truck with ladder",
        "balloon",
        "find the coffee mug",
        "red cups and boxes",
        '"segmnt the cup"',
        "pick up the ball",
        "something red",
        "seven balls",
    ],
)
def test_what_is_no_slip_is_left(text):
    assert corrected(text) == ""


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("segmnt the zebra", "segment the zebra"),
        ("fnd my old mug", "find my old mug"),
        ("truck with the ladder", ""),
        ("redcup", ""),
        ("find the redcup", ""),
        ("the yelow bal", ""),
    ],
)
def test_without_a_vocabulary_only_a_verb_before_an_article_is_corrected(text, meant):
    assert corrected_openly(text) == meant


def test_a_doubtful_verb_is_named():
    assert doubt("fnd red cup", parse_command("fnd red cup")) == "find red cup"
    for text in ("truck with ladder", "find red cup", "red cup", "fnd", '"fnd red cup"'):
        assert doubt(text, parse_command(text)) == ""


@pytest.mark.parametrize(
    ("phrase", "relation"),
    [
        ("cup left of the box", "left of"),
        ("cup to the left of the box", "to the left of"),
        ("largest ball", "largest"),
        ("can behind the bottle", "behind"),
        ("cup on the table", ""),
        ("left shoe", ""),
        ("cup", ""),
    ],
)
def test_relations_are_noticed(phrase, relation):
    assert relation_in(("bowl", phrase)) == relation


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("two balls", ["the number is left to the model: all are shown"]),
        ("pick up the ball", ['"pick up" only finds: this node moves nothing']),
        (
            "give me 3 cups",
            ["the number is left to the model: all are shown", '"give me" only finds: this node moves nothing'],
        ),
        ("find the balls", []),
    ],
)
def test_what_is_not_done_is_told(text, said):
    assert remarks(parse_command(text), is_number_dropped=True) == said


def test_numbers_that_count_are_no_remark():
    assert remarks(parse_command("two balls"), is_number_dropped=False) == []


@pytest.mark.parametrize("module", [hints, plurals])
def test_the_examples_in_the_documentation_run(module):
    assert doctest.testmod(module).attempted >= 1
    assert doctest.testmod(module).failed == 0
