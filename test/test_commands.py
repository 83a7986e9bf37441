import doctest

import pytest

from clip_seg_ros import commands
from clip_seg_ros.commands import Command, CommandError, parse_command


@pytest.mark.parametrize(
    ("text", "verb", "prompts"),
    [
        ("segment the red cup", "segment", ("red cup",)),
        ("red cup", "segment", ("red cup",)),
        ("segment the red cup and the blue box, bowl", "segment", ("red cup", "blue box", "bowl")),
        ("a cup; an apple & some plates", "segment", ("cup", "apple", "plates")),
        ("the cup, and the bowl,", "segment", ("cup", "bowl")),
        ("Find a Green Bottle.", "find", ("green bottle",)),
        ("find me the can", "find", ("can",)),
        ("Where is the red cup?", "find", ("red cup",)),
        ("where’s my plate", "find", ("plate",)),
        ("look for: the box", "find", ("box",)),
        ("track the ball", "track", ("ball",)),
        ("show me the book", "segment", ("book",)),
        ("detect all the cups", "segment", ("cups",)),
        ("highlight the can!", "segment", ("can",)),
        ("Robot, could you please find the cup, please?", "find", ("cup",)),
        ("hey robot, can you show me the can for me, thanks", "segment", ("can",)),
        ("please segment the cup now", "segment", ("cup",)),
        ("robot arm", "segment", ("robot arm",)),
        ("can", "segment", ("can",)),
        ("showcase", "segment", ("showcase",)),
        ("find-and-replace book", "segment", ("find-and-replace book",)),
        ("sandwich, candle and an andiron", "segment", ("sandwich", "candle", "andiron")),
        ("cup to the left of the bowl", "segment", ("cup to the left of the bowl",)),
        ("cup and the cup and CUP and bowl", "segment", ("cup", "bowl")),
        ('find "Salt and Pepper"', "find", ("salt and pepper",)),
        ("find “salt, pepper” and the bowl", "find", ("salt, pepper", "bowl")),
        ('a big "salt and pepper" shaker', "segment", ("big salt and pepper shaker",)),
        ('find "the the" sign', "find", ("the the sign",)),
        ("  segment \t the\nred\u00a0 cup\n", "segment", ("red cup",)),
        ("ｓｅｇｍｅｎｔ the Tasse à Café", "segment", ("tasse à café",)),
        ("straße", "segment", ("straße",)),
    ],
)
def test_phrases_are_understood(text, verb, prompts):
    assert parse_command(text) == Command(verb, prompts)


@pytest.mark.parametrize(("verb", "spellings"), commands.PHRASE_VERBS.items())
def test_every_spelling_of_a_verb_takes_a_phrase(verb, spellings):
    for spelling in spellings:
        assert parse_command(f"{spelling} the red cup") == Command(verb, ("red cup",))


@pytest.mark.parametrize(("verb", "spellings"), commands.LONE_VERBS.items())
def test_every_spelling_of_a_lone_verb_stands_alone(verb, spellings):
    for spelling in spellings:
        assert parse_command(f"Please {spelling}!") == Command(verb)


@pytest.mark.parametrize(
    ("text", "threshold"),
    [
        ("threshold 0.4", 0.4),
        ("threshold: 0", 0.0),
        ("threshold=1", 1.0),
        ("please set the threshold to .25", 0.25),
        ("Set threshold 5e-1.", 0.5),
    ],
)
def test_a_threshold_is_set(text, threshold):
    assert parse_command(text) == Command("threshold", threshold=threshold)


@pytest.mark.parametrize(
    "text",
    ["find the cup and a bowl with threshold 0.4", "find cup, bowl at a threshold of 0.4"],
)
def test_a_phrase_may_bring_its_threshold(text):
    assert parse_command(text) == Command("find", ("cup", "bowl"), threshold=0.4)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        (" \n\t ", "is empty"),
        ("?!", "is empty"),
        ("please", "is empty"),
        ("x" * 501, "501 characters"),
        ("segment the \x07 cup", "U+0007"),
        ("segment\x00", "U+0000"),
        ("cup\u200bs", "U+200B"),
        ("cup \ud800", "U+D800"),
        ("segment", '"segment" needs a phrase after it'),
        ("find the", '"find" needs a phrase after it'),
        ("Where is?", '"where is" needs a phrase after it'),
        ('find ""', '"find" needs a phrase after it'),
        ("segment with threshold 0.4", '"segment" needs a phrase after it'),
        ("the", "names no object"),
        ("and, and", "names no object"),
        ("find ***", '"***" holds no word'),
        ('find "salt and pepper', "quote is not closed"),
        (" and ".join(f"cup {i}" for i in range(17)), "17 phrases"),
        ("stop sign", '"segment stop sign"'),
        ("clear bottle", '"segment clear bottle"'),
        ("threshold", "needs a number"),
        ("threshold high", '"high" is no threshold'),
        ("threshold 40%", '"40%" is no threshold'),
        ("threshold 1.01", "1.01 is out of range"),
        ("threshold -0.1", "-0.1 is out of range"),
        ("threshold nan", "nan is out of range"),
        ("find cup with threshold 2", "2 is out of range"),
    ],
)
def test_what_is_no_command_is_refused_with_advice(text, problem):
    with pytest.raises(CommandError) as refusal:
        parse_command(text)
    assert problem in str(refusal.value)
    assert "type " in str(refusal.value)
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 700


def test_limits_are_inclusive():
    assert len(parse_command("x" * 500).prompts[0]) == 500
    assert len(parse_command(", ".join(f"cup {i}" for i in range(16))).prompts) == 16


def test_repetitions_do_not_count_towards_the_limit():
    assert parse_command(" and ".join(["cup"] * 40)).prompts == ("cup",)


def test_long_hostile_text_is_parsed_at_once():
    for text in ("and " * 125, '"' * 500, "please " * 71, ", " * 250, "with threshold " * 33):
        try:
            parse_command(text)
        except CommandError:
            pass


def test_the_example_in_the_documentation_runs():
    assert doctest.testmod(commands).attempted == 1
    assert doctest.testmod(commands).failed == 0


@pytest.mark.parametrize("text", ["find 'the red cup' and 'yellow box'", "find ‘red cup’, ‘yellow box’"])
def test_single_quotes_are_quotes(text):
    assert [prompt.removeprefix("the ") for prompt in parse_command(text).prompts] == ["red cup", "yellow box"]


def test_an_apostrophe_in_a_word_is_no_quote():
    assert parse_command("find the captain's hat and the cook's spoon").prompts == ("captain's hat", "cook's spoon")
