# SPDX-License-Identifier: Apache-2.0
"""What ``parse_command`` promises holds for any text, however odd or hostile."""

import random
import re
from contextlib import suppress

from clip_seg_ros.commands.parser import MAX_CHARACTERS, MAX_CLASSES, MAX_PROMPTS, Command, CommandError, parse_command
from clip_seg_ros.commands.words import DETERMINERS, FORMS, GRAMMAR, OF_MEMORY, RELATIONS, VERBS

# What typing, speech recognition and hostility produce.
NOUNS = ["cup", "red", "blue", "one", "ones", "Bowl", "box", "table", "captain's", "everything", "forget-me-not"]
ENDS = ["using cris", "using the", "with threshold 0.4", "at threshold", "model"]
NUMBERS = ["0.7", ".2", "1"]
LINKS = ["and", "or", ",", ";", "&", "not", "but not", "except", "without", "but"]
SIGNS = [".", ":", "=", "!", "?", "(", ")", "*", "-", "--", "_", "/", "do", "nan", "1e400", "-0.0"]
POLITE = ["please", "robot,", "could you", "now", "thanks", "for me", "hey"]
QUOTES = ['"', '"', "'", "\u201c", "\u201d", "\u2018", "\u2019", '"salt and pepper"', "'not the blue one'", '""']
ODD = [
    "\u0130",
    "f\u0131nd",
    "\u017fee",
    "Stra\u00dfe",
    "\ufb01nd",
    "H\u0331",
    "J\u030c",
    "\u0331",
    "\u0338",
    "\u00a8",
    "\u2126",
    "\u00a0",
    "\u3000",
    "\uff1a",
    "\uff02",
    "\uff0c",
    "\u03a3\u0391\u03a3",
    "\u0663",
    "\u00bd",
    "\U0001f600",
    "\u200b",
    "\x00",
    "\x1b",
    "\n",
    "\t",
    "\ud800",
    "\u0645\u0631\u062d\u0628\u0627",
    "\u676f\u5b50",
    "\ufdfa",
]
SPELLINGS = [form for rule in GRAMMAR for form in rule.forms]


def random_text(chance: random.Random) -> str:
    if chance.random() < 0.05:
        return "".join(chr(chance.choice([chance.randrange(128), chance.randrange(0x3000)])) for _ in range(40))
    words = [chance.choice(FORMS[chance.choice(VERBS)])] if chance.random() < 0.7 else []
    pools = [NOUNS, NOUNS, NOUNS, LINKS, sorted(DETERMINERS), ENDS, NUMBERS]
    # Quotes that do not close and odd characters end most texts early: only some texts may hold them.
    if chance.random() < 0.4:
        pools += [SPELLINGS, SIGNS, QUOTES, RELATIONS, POLITE, ODD]
    words += [chance.choice(chance.choice(pools)) for _ in range(chance.choice([0, 1, 1, 2, 4, 8, 16, 100]))]
    words = [word.upper() if chance.random() < 0.05 else word for word in words]
    return chance.choice([" ", " ", " ", " ", ", ", ""]).join(words)


def check_promises(command: Command) -> None:
    """Asserts all that ``Command`` and ``parse_command`` say of their result."""
    assert command.verb in VERBS
    phrases = command.prompts + command.negatives + command.classes
    assert len(set(phrases)) == len(phrases)
    for phrase in phrases:
        assert phrase.isprintable()
        assert '"' not in phrase
        assert phrase == phrase.lower() == " ".join(phrase.split())
        assert any(character.isalnum() for character in phrase)
    asks = command.verb in ("segment", "find", "track")
    assert command.prompts or not asks
    assert asks or not command.prompts or command.verb in OF_MEMORY
    assert asks or not command.negatives
    assert command.verb not in OF_MEMORY or not any(each.is_conditional for each in command.references)
    assert len(command.prompts + command.negatives) <= MAX_PROMPTS
    assert (0 < len(command.classes) <= MAX_CLASSES) == (command.verb == "classes")
    assert command.threshold is None or 0 <= command.threshold <= 1
    assert command.model is None or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", command.model)
    assert command.model is not None or command.verb != "use"
    if command.verb in ("stop", "clear", "describe", "help", "quit"):
        assert command == Command(command.verb)


def check_advice(message: str, text: str) -> None:
    """Asserts what every refusal of ``text`` promises."""
    assert message.isprintable(), repr(text)
    assert "type " in message, repr(text)
    assert len(message) < 700, repr(text)


def test_any_text_is_understood_or_refused_with_a_reason():
    chance = random.Random(0)
    understood = dict.fromkeys(VERBS, 0)
    left_out = refused = 0
    for _ in range(6000):
        text = random_text(chance)
        try:
            command = parse_command(text)
        except CommandError as refusal:
            check_advice(str(refusal), text)
            refused += 1
            continue
        check_promises(command)
        if len(str(command)) <= MAX_CHARACTERS:
            assert parse_command(str(command)) == command, repr(text)
        understood[command.verb] += 1
        left_out += bool(command.negatives)
    # The generator reaches what it is meant to reach.
    assert refused > 1000, (refused, left_out, understood)
    assert left_out > 50, (refused, left_out, understood)
    assert min(understood.values()) > 3, (refused, left_out, understood)


def test_long_hostile_text_is_parsed_at_once():
    words = ("and ", "but ", "without a ", "using x ", "not ", "' ", ",", "with threshold ", "please ", "one ", '"')
    for text in [word * (500 // len(word)) for word in words] + [f"classes {word * 300}" for word in words]:
        with suppress(CommandError):
            parse_command(text)
