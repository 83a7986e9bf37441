# SPDX-License-Identifier: Apache-2.0
import doctest

import pytest

from clip_seg_ros.commands import parser as commands
from clip_seg_ros.commands.parser import Command, CommandError, parse_command
from clip_seg_ros.commands.words import FORMS, OF_ALL


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


@pytest.mark.parametrize("verb", ["segment", "find", "track"])
def test_every_spelling_of_a_verb_takes_a_phrase(verb):
    for spelling in FORMS[verb]:
        assert parse_command(f"{spelling} the red cup") == Command(verb, ("red cup",))


@pytest.mark.parametrize("verb", ["recall", "forget"])
def test_every_spelling_of_a_verb_of_memory_takes_a_phrase_or_means_everything(verb):
    for spelling in FORMS[verb]:
        if spelling in OF_ALL:
            assert parse_command(f"Please, {spelling}!") == Command(verb)
            with pytest.raises(CommandError, match="stands alone"):
                parse_command(f"{spelling} red cup")
        else:
            assert parse_command(f"{spelling} the red cup?") == Command(verb, ("red cup",))
            with pytest.raises(CommandError, match=f'"{spelling}" needs a phrase after it'):
                parse_command(f"{spelling}?")


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("Where did you last see the red cup and my keys?", 'recall "red cup", "keys"'),
        ("robot, have you seen any cups?", 'recall "cups"'),
        ("what do you remember about the bowl?", 'recall "bowl"'),
        ("What have you seen so far?", "recall everything"),
        ("forget about the blue box, please", 'forget "blue box"'),
        ("forget everything", "forget everything"),
        ("forget it", "clear"),
        ("where is the red cup?", 'find "red cup"'),
        ("do you see the cup?", 'find "cup"'),
        ('"what have you seen"', 'segment "what have you seen"'),
    ],
)
def test_what_was_seen_and_what_is_seen_are_told_apart(text, means):
    assert str(parse_command(text)) == means
    assert parse_command(means) == parse_command(text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("where did you lst see the red cup", 'did you mean "where did you last see the red cup"?'),
        ("what hav you seen?", 'did you mean "what have you seen"?'),
        ("were did you see my cup", 'did you mean "where did you see my cup"?'),
        ("recall the cup left of the box", 'type "recall cup", or look for it with "find"'),
        ("forget the largest cup", 'type "forget cup"'),
        ("where was the cup, not the red one", 'type "recall cup"'),
        ("recall the cup using cris", "has neither threshold nor model"),
        ("forget the cup with threshold 0.4", "has neither threshold nor model"),
        ("where did you last see it?", '"it" does not say which thing'),
    ],
)
def test_what_a_memory_cannot_answer_is_refused_with_a_hint(text, hint):
    with pytest.raises(CommandError) as refusal:
        parse_command(text)
    assert hint in str(refusal.value)


@pytest.mark.parametrize("verb", ["stop", "clear", "describe", "help", "quit"])
def test_every_spelling_of_a_lone_verb_stands_alone(verb):
    for spelling in FORMS[verb]:
        assert parse_command(f"Please {spelling}!") == Command(verb)


@pytest.mark.parametrize(
    ("text", "prompts", "counted"),
    [
        ("give me two balls", ("balls",), ("balls",)),
        ("bring me 3 red cups and a bowl", ("red cups", "bowl"), ("red cups",)),
        ("two of the cups", ("cups",), ("cups",)),
        ("both boxes", ("boxes",), ("boxes",)),
        ("one cup", ("cup",), ("cup",)),
        ("2 euro coin", ("2 euro coin",), ()),
        ("one, two and player one", ("one", "two", "player one"), ()),
        ("one on the shelf", ("one on the shelf",), ()),
        ('"two balls"', ("two balls",), ()),
        ("all of the cups", ("cups",), ()),
        ("how many cups are there?", ("cups",), ()),
        ("how many boxes are on the table", ("boxes on the table",), ()),
        ("help me find the cup", ("cup",), ()),
    ],
)
def test_numbers_are_dropped_before_their_nouns(text, prompts, counted):
    command = parse_command(text)
    assert (command.prompts, command.counted) == (prompts, counted)


def test_what_a_number_leaves_out():
    command = parse_command("the cups, not the two red ones")
    assert (command.prompts, command.negatives, command.counted) == (("cups",), ("red cups",), ("red cups",))


def test_the_verb_is_kept_as_it_was_typed():
    assert parse_command("Pick up the cup").spelling == "pick up"
    assert parse_command("the cup").spelling == ""


@pytest.mark.parametrize(
    ("text", "threshold"),
    [
        ("threshold 0.4", 0.4),
        ("threshold: 0", 0.0),
        ("threshold=1", 1.0),
        ("threshold .5", 0.5),
        ("use a threshold of 0.3", 0.3),
        ("use the threshold: 0.3", 0.3),
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
        ("help the dog", '"segment help the dog"'),
        ("what do you see there", '"what do you see" stands alone'),
        ("grab it", '"it" does not say which'),
        ("threshold", "needs a number"),
        ("threshold high", '"high" is no threshold'),
        ("threshold 40%", '"40%" is no threshold'),
        ("threshold 1.01", "1.01 is out of range"),
        ("threshold -0.1", "-0.1 is out of range"),
        ("threshold nan", "nan is out of range"),
        ("find cup with threshold 2", "2 is out of range"),
        ("cup with threshold 0.4 with threshold 0.5", "two thresholds"),
        ("with threshold 0.4", "names no object"),
        ("not the blue one", "only what to leave out"),
        ("find not the blue cup", "only what to leave out"),
        ("find the cup, not that one", "does not say which"),
        ("find the cup, not the", '"not" needs a phrase after it'),
        ("all cups except", '"except" needs a phrase after it'),
        ("find the cup, not, the bowl", '"not" needs a phrase after it'),
        ("not the blue one, the cup", "stands for a thing named before it"),
        ("everything but the blue one", "stands for a thing named before it"),
        ("find the red cup, not the red one", '"red cup" is both'),
        ("do not segment the cup", '"do not" is not understood'),
        ("cup that isn't blue", '"isn\'t" is not understood'),
        ("use", "name of the model is missing"),
        ("use the model", "name of the model is missing"),
        ("use the red cup", '"red cup" is no name of a model'),
        ("use the threshold", "needs a number"),
        ("find cup using threshold", "name of the model is missing"),
        ("use ../weights", '"../weights" is no name of a model'),
        ("find cup using a/b", '"a/b" is no name of a model'),
        ("find cup using a using b", "two models"),
        ("use a using b", "two models"),
        ("classes", "list of classes is empty"),
        ("classes: cup, not table", "leaves nothing out"),
        ("classes: " + ",".join(map(str, range(257))), "257 classes"),
        ("classes: " + "x" * 4000, "4009 characters"),
        ("x" * 480 + ", not " + "y" * 30, "516 characters"),
        (", ".join(f"cup {i}" for i in range(10)) + " except " + ", ".join(f"box {i}" for i in range(7)), "17 phrases"),
        ("stop " + "x" * 490, '"segment stop xxx'),
    ],
)
def test_what_is_no_command_is_refused_with_advice(text, problem):
    with pytest.raises(CommandError) as refusal:
        parse_command(text)
    assert problem in str(refusal.value)
    assert "type " in str(refusal.value)
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 700


@pytest.mark.parametrize(
    ("text", "prompts", "negatives"),
    [
        ("segment the cup, not the blue one", ["cup"], ["blue cup"]),
        ("Segment the cup. Not the Blue One!", ["cup"], ["blue cup"]),
        ("find the box but not the red box", ["box"], ["red box"]),
        ("all cups except the red one", ["cups"], ["red cups"]),
        ("red cups without the small ones", ["red cups"], ["small cups"]),
        ("cups but the red one and the green one", ["cups"], ["red cups", "green cups"]),
        ("cup without a handle", ["cup without a handle"], []),
        ("a small but heavy box", ["small but heavy box"], []),
        (
            "a cup without a handle, not the blue one without a handle",
            ["cup without a handle"],
            ["blue cup without a handle"],
        ),
        ("cup, not the blue one, and the bowl", ["cup", "bowl"], ["blue cup"]),
        ("cup, not the blue one or the bowl; plate", ["cup", "plate"], ["blue cup", "bowl"]),
        ("fruit except for apples, the pears and bananas", ["fruit"], ["apples", "pears", "bananas"]),
        ("the cup and the box, not the blue one", ["cup", "box"], ["blue box"]),
        ("cup, not the blue one, box and not the red one", ["cup", "box"], ["blue cup", "red box"]),
        ("the cup on the table, not the blue one", ["cup on the table"], ["blue cup"]),
        ("the cup left of the bowl, not the one on the shelf", ["cup left of the bowl"], ["cup on the shelf"]),
        ("the man, not in red", ["man"], ["man in red"]),
        ('"red cup", not the blue one', ["red cup"], ["blue cup"]),
        ('find "this, not that" and cup, not "blue one"', ["this, not that", "cup"], ["blue one"]),
        ('"the cup that is not blue"', ["the cup that is not blue"], []),
        ("forget-me-not and a knot", ["forget-me-not", "knot"], []),
        ("cup or bowl", ["cup or bowl"], []),
        ("cup, not the bowl, not the bowl", ["cup"], ["bowl"]),
        ("one, two and player one", ["one", "two", "player one"], []),
    ],
)
def test_things_are_left_out(text, prompts, negatives):
    assert parse_command(text) == Command(
        "find" if text.startswith("find") else "segment", tuple(prompts), negatives=tuple(negatives)
    )


@pytest.mark.parametrize("kind", ["not", "except", "without"])
def test_every_word_that_leaves_out_is_understood(kind):
    for form in FORMS[kind]:
        for text in (f"track the cups {form} the red ones", f"Track cups, {form.upper()} red ones."):
            assert parse_command(text) == Command("track", ("cups",), negatives=("red cups",))


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("use cris", "cris"),
        ("Please switch to the maskclip model.", "maskclip"),
        ("use clipseg-pocket", "clipseg-pocket"),
        ("Use the model My_Kitchen.v2.safetensors", "My_Kitchen.v2.safetensors"),
        ("using CRIS", "CRIS"),
    ],
)
def test_a_model_is_named_as_typed(text, model):
    assert parse_command(text) == Command("use", model=model)


@pytest.mark.parametrize("form", FORMS["use"])
def test_every_way_to_change_the_model(form):
    assert parse_command(f"{form} cris") == Command("use", model="cris")
    assert parse_command(f"{form} cris with threshold 0.4") == Command("use", model="cris", threshold=0.4)


@pytest.mark.parametrize("form", FORMS["using"])
def test_a_phrase_may_name_its_model(form):
    expected = Command("find", ("largest ball", "cup"), 0.4, model="cris")
    assert parse_command(f"find the largest ball and cup {form} cris with threshold 0.4") == expected
    for threshold in FORMS["with threshold"]:
        assert parse_command(f"find the largest ball and cup {threshold} 0.4, {form} cris, please") == expected


@pytest.mark.parametrize("phrase", ["person using the laptop", "robot using both hands", "cup with model cars on it"])
def test_a_phrase_may_say_using(phrase):
    assert parse_command(phrase) == Command("segment", (phrase,))


def test_quotes_keep_using_and_thresholds():
    assert parse_command('"person using laptop"').prompts == ("person using laptop",)
    assert parse_command('find "dial at threshold 0.4"') == Command("find", ("dial at threshold 0.4",))


@pytest.mark.parametrize("form", FORMS["classes"])
def test_classes_are_listed(form):
    expected = Command("classes", classes=("cup", "table", "salt and pepper"))
    assert parse_command(f'{form}: Cup, the table, cup and "salt and pepper"') == expected
    assert parse_command(f'{form} cup; table & "salt and pepper"') == expected


def test_classes_may_be_a_list_s_name_and_bring_options():
    assert parse_command("classes: ade20k") == Command("classes", classes=("ade20k",))
    assert parse_command("classes = cup, bowl using maskclip with threshold 0.3") == Command(
        "classes", threshold=0.3, model="maskclip", classes=("cup", "bowl")
    )


def test_as_many_classes_as_allowed():
    names = tuple(f"some class {i}" for i in range(256))
    assert parse_command("classes: " + ", ".join(f'"{name}"' for name in names[:200])).classes == names[:200]
    assert len(parse_command("classes: " + ",".join(map(str, range(256)))).classes) == 256


def test_limits_are_inclusive():
    assert len(parse_command("x" * 500).prompts[0]) == 500
    assert len(parse_command(", ".join(f"cup {i}" for i in range(16))).prompts) == 16


def test_repetitions_do_not_count_towards_the_limit():
    assert parse_command(" and ".join(["cup"] * 40)).prompts == ("cup",)


def test_the_example_in_the_documentation_runs():
    assert doctest.testmod(commands).attempted == 1
    assert doctest.testmod(commands).failed == 0


@pytest.mark.parametrize("text", ["find 'the red cup' and 'yellow box'", "find ‘red cup’, ‘yellow box’"])
def test_single_quotes_are_quotes(text):
    assert [prompt.removeprefix("the ") for prompt in parse_command(text).prompts] == ["red cup", "yellow box"]


def test_an_apostrophe_in_a_word_is_no_quote():
    assert parse_command("find the captain's hat and the cook's spoon").prompts == ("captain's hat", "cook's spoon")


def test_single_quotes_in_double_quotes_stay():
    assert parse_command("find \"the 'red' cup\" and 'a bowl'").prompts == ("the 'red' cup", "a bowl")
