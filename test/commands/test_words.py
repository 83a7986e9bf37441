# SPDX-License-Identifier: Apache-2.0
import re
import shlex
from pathlib import Path

import pytest
import yaml

from clip_seg_ros.commands import parser as commands
from clip_seg_ros.commands.parser import MAX_CHARACTERS, MAX_CLASSES, MAX_PROMPTS, Command, CommandError, parse_command
from clip_seg_ros.commands.words import FORMS, GRAMMAR, RESETTING, VERBS, grammar_table

PAGE = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("rule", GRAMMAR, ids=lambda rule: rule.name)
def test_the_grammar_s_examples_mean_what_it_says(rule):
    command = parse_command(rule.example)
    assert str(command) == rule.means
    assert parse_command(rule.means) == command
    if rule.name in VERBS:
        assert command.verb == rule.name
    assert not any("|" in text or "`" in text for text in (rule.example, rule.means, *rule.forms))


def test_no_spelling_belongs_to_two_verbs():
    forms = [form for verb in VERBS for form in FORMS[verb]]
    assert len(forms) == len(set(forms))


@pytest.mark.parametrize(
    "text", [*RESETTING, "threshold default", "Set the threshold to the Default, please.", "threshold = auto"]
)
def test_the_threshold_goes_back_to_the_model_s_own(text):
    command = parse_command(text)
    assert command == Command("threshold") == parse_command(str(command))
    for form in RESETTING:
        assert parse_command(f"{form} to 0.4") == Command("threshold", threshold=0.4)


def test_the_page_holds_the_grammar():
    table = "\n".join(line for line in PAGE.split("\n\n") if line.startswith("| what | ways"))
    assert table == grammar_table()


def test_the_page_s_shell_commands_are_accepted():
    lines = [shlex.split(line) for line in PAGE.splitlines() if line.startswith("ros2 topic pub")]
    assert len(lines) >= 9
    for line in lines:
        assert line[:-1] == ["ros2", "topic", "pub", "--once", "/clip_seg/command", "std_msgs/msg/String"]
        parse_command(yaml.safe_load(line[-1])["data"])


def test_the_page_s_refusals_are_the_real_ones():
    rows = re.findall(r"^\| `(.+)` \| rejected: (.+) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 4
    for text, message in rows:
        with pytest.raises(CommandError) as refusal:
            parse_command(text)
        assert str(refusal.value) == message


def test_the_page_s_limits_are_the_real_ones():
    limits = re.findall(r"^\| [a-z, ]+ \| (\d+) \|$", PAGE, re.MULTILINE)
    assert limits == [str(n) for n in (MAX_CHARACTERS, commands.MAX_CLASSES_CHARACTERS, MAX_PROMPTS, MAX_CLASSES)]
