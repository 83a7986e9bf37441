# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from clip_seg_ros.annotation.asked import asked_of
from clip_seg_ros.commands.errors import CommandError
from clip_seg_ros.pipeline.predictor import Predictor


def test_phrases_and_a_command_become_one_question():
    asked = asked_of(["the red cup", "bowl, blue box"], "find the cups, not the green one")
    assert asked.prompts == ("red cup", "bowl", "blue box", "cups")
    assert asked.command.negatives == ("green cups",)
    assert len(asked.command.references) == 4


def test_quotes_keep_a_phrase_with_commas_whole():
    assert asked_of(['"salt, pepper"', "salt and pepper"]).prompts == ("salt, pepper", "salt", "pepper")


def test_a_file_of_annotate_is_understood(tmp_path):
    file = tmp_path / "things.txt"
    file.write_text("# comment\nred cup = 0.7\nsalt and pepper\nnot white box\ncup left of the box\n")
    asked = asked_of([str(file)], "find the bowl")
    assert asked.prompts == ("red cup", "salt and pepper", "cup left of the box", "bowl")
    assert asked.command.negatives == ("white box",)
    assert asked.own_thresholds == (("red cup", 0.7),)
    assert [reference.is_placed for reference in asked.command.references] == [False, False, True, False]


def test_a_phrase_may_have_a_threshold_and_leave_something_out():
    asked = asked_of(["red cup = 0.7", "bowl", "not the white bowl"])
    assert (asked.prompts, asked.own_thresholds) == (("red cup", "bowl"), (("red cup", 0.7),))
    assert asked.command.negatives == ("white bowl",)


def test_a_phrase_that_is_a_verb_is_a_thing():
    assert asked_of(["stop", "help"]).prompts == ("stop", "help")


def test_a_phrase_may_say_where_a_thing_is():
    reference = asked_of(["cup left of the box"]).command.references[0]
    assert (reference.name, reference.is_placed) == ("cup", True)


@pytest.mark.parametrize(
    ("phrases", "command", "why"),
    [
        ([], "", "nothing to look for"),
        ([" "], "", "a phrase is empty"),
        (["a"], "", '"a" cannot be looked for'),
        (["cup using cris"], "", "use --model"),
        ([], "use cris", "a model is chosen with --model"),
        ([], "threshold 0.4", "set with --threshold"),
        ([], "stop", "it looks for nothing"),
        ([], "classes: cup, table", "name what to look for instead"),
        (["cup"], "find the bowl, not the cup", '"cup" is looked for and left out'),
        ([f"thing {number}" for number in range(300)], "", "300 phrases: at most 256"),
    ],
)
def test_what_is_no_question_is_refused(phrases, command, why):
    with pytest.raises(CommandError, match=why):
        asked_of(phrases, command)


def test_misspelt_words_are_refused_with_what_was_meant():
    spec = Predictor.from_name("clipseg-pocket", engine="eager").spec
    assert asked_of(["red cip"]).refusal(spec).startswith('did you mean "red cup"? ')
    assert asked_of([], "segmnt the red cup").refusal(spec).startswith('did you mean "segment the red cup"? ')
    assert asked_of(["red cup"]).refusal(spec) == ""
