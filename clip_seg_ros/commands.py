"""The command language: one line of text -> a ``Command``.

A command is a verb and its phrases, "find the red cup and the blue box"; a bare phrase is a ``segment``. Phrases are
split at commas, semicolons, "&" and "and"; double quotes keep a phrase whole: find "salt and pepper".
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

Verb = Literal["segment", "find", "track", "stop", "clear", "threshold"]

MAX_CHARACTERS = 500
MAX_PROMPTS = 16

EXAMPLE = '"segment the red cup"'

# Verbs that take phrases, with every way to say them.
PHRASE_VERBS: dict[Verb, tuple[str, ...]] = {
    "segment": ("segment", "show me", "show", "detect", "highlight"),
    "find": ("find", "find me", "look for", "search for", "locate", "where is", "where are", "where's"),
    "track": ("track", "follow"),
}

# Verbs that stand alone: the whole command must be one of the spellings.
LONE_VERBS: dict[Verb, tuple[str, ...]] = {
    "stop": ("stop", "stop it", "stop that", "stop everything", "stop segmenting", "stop tracking"),
    "clear": ("clear", "clear it", "clear all", "clear everything", "clear the masks"),
}

_PUNCTUATION = " .,;:!?"
_DETERMINERS = frozenset({"a", "an", "the", "some", "any", "all", "my", "your", "this", "that", "these", "those"})
_PLAIN_QUOTES = str.maketrans(dict.fromkeys("“”„«»", '"') | {"’": "'", "‘": "'"})

# "robot" is dropped only before a comma: "robot arm" is a phrase.
_OPENER = re.compile(r"(?:please|(?:could|can|would|will) you|(?:hey|hello|ok)(?: robot)?)(?=[\s,.!]|$)|robot ?,")
_CLOSER = re.compile(r"(?:^|[\s,])(?:please|for me|thanks|thank you|now)$")
_TOKEN = re.compile(r'"(?P<quoted>[^"]*)"|(?P<separator>[,;&]|and(?![^\s,;&"]))|(?P<word>[^\s,;&"]+)')
# Shells and YAML take the double quotes for themselves. The apostrophe in "where's" has a letter on both sides.
_SINGLE_QUOTED = re.compile(r"(?<!\w)'([^'\"]*)'(?!\w)")
_SET_THRESHOLD = re.compile(r"(?:set )?(?:the )?threshold(?![\w-])(?: to(?!\w)| ?=| ?:)?(?P<value>.*)")
_WITH_THRESHOLD = re.compile(r'(?P<before>.+) (?:with|at) (?:a |the )?threshold(?: of)? (?P<value>[^\s"]+)')


class CommandError(ValueError):
    """The text is no command. The message says what is wrong and what to type instead."""


@dataclass(frozen=True)
class Command:
    """A command that was understood."""

    verb: Verb
    prompts: tuple[str, ...] = ()
    """Phrases in the order of the text, lower case, without articles; empty for stop, clear and threshold."""
    threshold: float | None = None
    """0..1; always there for ``threshold``, and for segment, find and track that end in "with threshold 0.4"."""


def parse_command(text: str) -> Command:
    """Understands one command.

    Args:
        text: What a person typed or said, at most ``MAX_CHARACTERS`` long.

    Returns:
        The verb with 1 to ``MAX_PROMPTS`` different prompts where it takes any, and the threshold where one was given.

    Raises:
        CommandError: The text is empty, too long, unprintable or incomplete, or asks for too much.

    Example:
        >>> parse_command('Robot, could you find the red cup, a bowl and "salt and pepper"?')
        Command(verb='find', prompts=('red cup', 'bowl', 'salt and pepper'), threshold=None)
    """
    sentence = _strip_politeness(_normalise(text))
    if not sentence:
        raise CommandError(f"the command is empty: type what to look for, for example {EXAMPLE}")
    for verb, spellings in LONE_VERBS.items():
        if sentence in spellings:
            return Command(verb)
        if sentence.startswith(f"{verb} "):
            raise CommandError(f'"{verb}" stands alone: type "{verb}", or "segment {sentence}" to look for that')
    if match := _SET_THRESHOLD.fullmatch(sentence):
        return Command("threshold", threshold=_parse_threshold(match["value"]))

    threshold = None
    if match := _WITH_THRESHOLD.fullmatch(sentence):
        sentence, threshold = match["before"], _parse_threshold(match["value"])
    verb, spelling, rest = _split_verb(sentence)
    prompts = _split_phrases(rest)
    if not prompts:
        problem = f'"{spelling}" needs a phrase after it' if spelling else "the command names no object"
        raise CommandError(f'{problem}: type for example "{spelling or "segment"} the red cup"')
    if len(prompts) > MAX_PROMPTS:
        raise CommandError(f"{len(prompts)} phrases in one command: type at most {MAX_PROMPTS}")
    return Command(verb, prompts, threshold)


def _normalise(text: str) -> str:
    """Checks length and characters; returns lower case with single spaces and plain quotes."""
    # First, because one character can stand for many.
    text = unicodedata.normalize("NFKC", text).strip()
    if len(text) > MAX_CHARACTERS:
        raise CommandError(
            f"the command has {len(text)} characters: type at most {MAX_CHARACTERS}, for example {EXAMPLE}"
        )
    # NFKC makes no-break spaces and full-width letters, which phones and web pages produce, plain ones.
    for character in text:
        if not character.isprintable() and character not in "\t\r\n":
            raise CommandError(
                f"the command holds the unprintable character U+{ord(character):04X}: "
                f"type plain text, for example {EXAMPLE}"
            )
    # lower() and not casefold(), which would respell words ("ß" -> "ss") that a model knows as they are written.
    return " ".join(_SINGLE_QUOTED.sub(r'"\1"', text.lower().translate(_PLAIN_QUOTES)).split())


def _strip_politeness(sentence: str) -> str:
    """Drops "could you", "please", "robot," and punctuation from the ends until nothing changes."""
    before = None
    while sentence != before:
        before = sentence
        sentence = sentence.strip(_PUNCTUATION)
        if opener := _OPENER.match(sentence):
            sentence = sentence[opener.end() :]
        if closer := _CLOSER.search(sentence):
            sentence = sentence[: closer.start()]
    return sentence


def _split_verb(sentence: str) -> tuple[Verb, str, str]:
    """Returns the verb, how it was spelt ("" for a bare phrase, which is a ``segment``) and the text after it."""
    spellings = [(spelling, verb) for verb, spellings in PHRASE_VERBS.items() for spelling in spellings]
    # The longest first, so that "find me" is not taken for "find" with the phrase "me".
    for spelling, verb in sorted(spellings, key=lambda pair: -len(pair[0])):
        if re.match(re.escape(spelling) + r"(?![\w'-])", sentence):
            return verb, spelling, sentence[len(spelling) :].lstrip(_PUNCTUATION)
    return "segment", "", sentence


def _split_phrases(text: str) -> tuple[str, ...]:
    """Splits at separators outside quotes, drops articles, and keeps each phrase once, in order."""
    if text.count('"') % 2:
        raise CommandError('a quote is not closed: type for example find "salt and pepper"')
    phrases: list[list[str]] = [[]]
    for token in _TOKEN.finditer(text):
        if token["separator"]:
            phrases.append([])
        elif token["quoted"] is not None:
            phrases[-1].append(token["quoted"])
        elif phrases[-1] or token["word"] not in _DETERMINERS:
            phrases[-1].append(token["word"])
    cleaned = [" ".join(words).strip(_PUNCTUATION) for words in phrases]
    for phrase in cleaned:
        if phrase and not any(character.isalnum() for character in phrase):
            raise CommandError(f'"{phrase}" holds no word: type what to look for, for example {EXAMPLE}')
    return tuple(dict.fromkeys(filter(None, cleaned)))


def _parse_threshold(text: str) -> float:
    text = text.strip()
    advice = 'type a number from 0 to 1, for example "threshold 0.4"'
    try:
        value = float(text)
    except ValueError:
        problem = f'"{text}" is no threshold' if text else '"threshold" needs a number'
        raise CommandError(f"{problem}: {advice}") from None
    if not 0.0 <= value <= 1.0:  # also refuses NaN
        raise CommandError(f"the threshold {text} is out of range: {advice}")
    return value
