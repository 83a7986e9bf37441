# SPDX-License-Identifier: Apache-2.0
"""What phrases refer to: a table of sentences, the sentences of other people, and what holds for any reference."""

import json
import random
from contextlib import suppress
from pathlib import Path

import pytest

from clip_seg_ros.commands.parser import MAX_CHARACTERS, Command, CommandError, parse_command, parse_reference
from clip_seg_ros.commands.reference_words import PLACE_RULES, RELATION_RULES, SUPERLATIVE_RULES, place_table
from clip_seg_ros.commands.references import (
    RELATION_KINDS,
    SIDES,
    SUPERLATIVE_KINDS,
    Order,
    Reference,
    Relation,
    Superlative,
)
from said import described, meant

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs" / "commands.md").read_text(encoding="utf-8")
ROWS = [
    [part.strip() for part in line.split("=>")]
    for line in (HERE / "sentences.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
SAID = json.loads((HERE / "peoples_sentences.json").read_text(encoding="utf-8"))
UNDERSTOOD = [row for row in ROWS if not row[1].startswith("!")]
REFUSED = [row for row in ROWS if row[1].startswith("!")]


def is_meant(row: dict) -> bool:
    """Whether a sentence of the people's names a thing, and in a way that is to be understood."""
    return row["understood"] and not row.get("is_refused_here", False)


@pytest.mark.parametrize(("text", "printed"), UNDERSTOOD)
def test_a_sentence_refers_to_what_it_says(text, printed):
    assert " ; ".join(map(str, parse_command(text).references)) == printed


@pytest.mark.parametrize(("text", "problem"), REFUSED)
def test_what_does_not_say_which_is_refused_with_what_to_type(text, problem):
    with pytest.raises(CommandError) as refusal:
        parse_command(text)
    assert problem.removeprefix("! ") in str(refusal.value)
    assert "type " in str(refusal.value)


@pytest.mark.parametrize("text", [text for text, _ in UNDERSTOOD])
def test_what_is_printed_parses_to_the_same(text):
    command = parse_command(text)
    again = parse_command(str(command))
    assert again == command
    assert again.references == command.references
    for reference in command.references:
        assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize("row", [row for row in SAID if is_meant(row)], ids=lambda row: row["text"])
def test_people_are_understood(row):
    references = parse_command(row["text"]).references
    assert [meant(described(each)) for each in references] == [meant(row)]


@pytest.mark.parametrize("row", [row for row in SAID if not is_meant(row)], ids=lambda row: row["text"])
def test_what_is_not_understood_of_what_people_say_is_refused(row):
    with pytest.raises(CommandError, match="type "):
        parse_command(row["text"])


def test_the_tables_are_as_long_as_they_should_be():
    assert len(ROWS) >= 200
    assert len(REFUSED) >= 50
    assert len([row for row in SAID if is_meant(row)]) >= 100


@pytest.mark.parametrize("rule", PLACE_RULES, ids=lambda rule: rule.name)
def test_the_table_s_examples_mean_what_it_says(rule):
    reference = parse_reference(rule.example)
    assert str(reference) == rule.means
    assert parse_reference(rule.means) == reference


def test_every_kind_has_a_row():
    assert tuple(rule.name for rule in RELATION_RULES) == RELATION_KINDS
    assert tuple(rule.name for rule in SUPERLATIVE_RULES) == SUPERLATIVE_KINDS


@pytest.mark.parametrize(
    ("kind", "form"), [(rule.name, form) for rule in RELATION_RULES for form in rule.forms], ids=str
)
def test_every_way_to_say_a_relation(kind, form):
    own = form.startswith(("on my", "to my"))
    things = "" if own else " the box and the bowl" if kind == "between" else " the box"
    relation = parse_reference(f"the red cup {form}{things}").relations[0]
    assert relation.kind == kind
    assert [each.name for each in relation.anchors] == ([] if own else ["box", "bowl"][: 1 + (kind == "between")])


@pytest.mark.parametrize(
    ("kind", "form"), [(rule.name, form) for rule in SUPERLATIVE_RULES for form in rule.forms], ids=str
)
def test_every_way_to_say_a_superlative(kind, form):
    anchors = (Reference("box"),) if form.endswith((" to", " from")) else ()
    reference = parse_reference(f"the red cup {form}{' the box' if anchors else ''}")
    assert reference == Reference("red cup", superlative=Superlative(kind, anchors), count=1)


def test_the_page_holds_the_table():
    table = "\n".join(block for block in PAGE.split("\n\n") if block.startswith("| place | ways"))
    assert table == place_table()


def test_references_are_parallel_to_prompts():
    command = parse_command("two cups left of the box, the bowl and the largest ball, not the red one")
    assert command.prompts == ("cups left of the box", "bowl", "largest ball")
    assert [each.name for each in command.references] == ["cups", "bowl", "ball"]
    assert [each.count for each in command.references] == [2, None, 1]
    assert [each.exclusions for each in command.references] == [(), (), (Reference("red ball"),)]
    assert Command("find", ("cup", "bowl")).references == (Reference("cup"), Reference("bowl"))


def test_what_is_left_out_belongs_to_the_thing_before_it():
    command = parse_command("the cups, not the blue one, and the bowls except the largest")
    assert str(command) == 'segment "cups" not "blue cups", "bowls" except largest "bowls"'
    assert [str(each) for each in command.references] == [
        '"cups" except "blue cups"',
        '"bowls" except (largest "bowls")',
    ]


def test_the_names_that_a_model_is_asked_for_are_limited():
    things = [f"cup {number} left of box {number}" for number in range(8)]
    assert len(parse_command(", ".join(things)).references) == 8
    with pytest.raises(CommandError, match="18 phrases"):
        parse_command(", ".join([*things, "plate left of the bowl"]))
    with pytest.raises(CommandError, match="more than 16 things"):
        parse_command("cup" + " on the box" * 16)


NAMES = ("cup", "red cups", "sheep", "salt and pepper", "left glove", "fruit", "box on wheels", "on button")


def random_reference(chance: random.Random, depth: int = 2) -> Reference:
    def things(count: int) -> tuple[Reference, ...]:
        return tuple(random_reference(chance, depth - 1) for _ in range(count))

    name = chance.choice(NAMES)
    if depth == 0:
        return Reference(name, count=chance.choice([None, None, 1, 2]))
    relations = []
    for _ in range(chance.choice([0, 1, 1, 2])):
        kind = chance.choice(RELATION_KINDS)
        own = kind in ("left of", "right of", "in front of", "behind", "near", "within") and chance.random() < 0.3
        count = 0 if own else 2 if kind == "between" else 1
        distance = chance.choice([0.25, 1.5, 40.0]) if kind == "within" else None
        relations.append(Relation(kind, things(count), distance))
    superlative, order = None, None
    if chance.random() < 0.4:
        kind = chance.choice(SUPERLATIVE_KINDS)
        superlative = Superlative(kind, things(kind in ("nearest", "farthest") and chance.random() < 0.5))
    elif chance.random() < 0.4:
        order = Order(chance.choice([1, 2, 5, -1, -2]), chance.choice(SIDES))
    return Reference(name, tuple(relations), superlative, order, chance.choice([None, 1, 1, 3]))


def test_any_reference_parses_from_what_it_prints():
    chance = random.Random(0)
    printed = set()
    for _ in range(1500):
        reference = random_reference(chance)
        assert parse_reference(str(reference)) == reference, str(reference)
        printed.add(str(reference))
    assert len(printed) > 1000


def check_advice(message: str, text: str) -> None:
    assert "type " in message, text
    assert len(message) < 700, text


def test_any_sentence_of_places_is_understood_as_it_is_printed_or_refused():
    chance = random.Random(1)
    words = [form for rule in PLACE_RULES for form in rule.forms] + ["me", "it", "that", "is", "of", "from the left"]
    words += ["the", "a", "my", "two", "and", ",", "not the", "one", "largest", "or", "(", '"'] * 4
    words += ["cup", "cups", "red", "box", "fruit", "table"] * 20
    understood = 0
    for _ in range(6000):
        text = " ".join(chance.choice(words) for _ in range(chance.choice([2, 3, 4, 5, 6, 8, 12])))
        try:
            command = parse_command(text)
        except CommandError as refusal:
            check_advice(str(refusal), text)
            continue
        understood += 1
        assert len(command.references) == len(command.prompts), text
        for reference in command.references:
            assert parse_reference(str(reference)) == reference, text
        again = parse_command(str(command)) if len(str(command)) <= MAX_CHARACTERS else command
        assert (again, again.references) == (command, command.references), text
    assert understood > 1000


def test_a_long_text_of_places_is_parsed_at_once():
    for text in (
        "on ",
        "left of ",
        "cup on the ",
        "the second ",
        "between a and ",
        "within 1 m of a ",
        "that is ",
        "(a ",
    ):
        with suppress(CommandError):
            parse_command(f'"cup" {text * (450 // len(text))}')
