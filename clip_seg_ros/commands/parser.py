# SPDX-License-Identifier: Apache-2.0
"""The command language: one line of text -> a ``Command``.

A command is a verb and its phrases, "find the red cup and the blue box"; a bare phrase is a ``segment``. Phrases are
split at commas, semicolons, "&" and "and"; double quotes keep a phrase whole: find "salt and pepper". "not" and similar
words leave objects out: "the cups, not the blue one". The words are in ``words``; ``docs/commands.md`` explains them to
users.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, cast

from clip_seg_ros.commands.errors import CommandError as CommandError
from clip_seg_ros.commands.errors import shown
from clip_seg_ros.commands.phrases import EXAMPLE, PUNCTUATION, Phrases, split_phrases
from clip_seg_ros.commands.places import any_of
from clip_seg_ros.commands.references import Reference
from clip_seg_ros.commands.remembering import check_alone, check_question, check_remembered
from clip_seg_ros.commands.words import (
    COUNTING,
    DETERMINERS,
    FORMS,
    OF_ALL,
    OF_MEMORY,
    OWN_THRESHOLD,
    RESETTING,
    VERBS,
)

Verb = Literal[
    "segment",
    "find",
    "track",
    "use",
    "classes",
    "threshold",
    "stop",
    "clear",
    "recall",
    "forget",
    "describe",
    "help",
    "quit",
]

MAX_CHARACTERS = 500
MAX_CLASSES_CHARACTERS = 4000
"""The largest length of a list of classes, which may be longer than other commands."""
MAX_PROMPTS = 16
"""The largest number of phrases to look for and to leave out together, because a model is asked about both."""
MAX_CLASSES = 256


_PLAIN_QUOTES = str.maketrans(dict.fromkeys("“”„«»", '"') | dict.fromkeys("‘’", "'"))
_LONE_VERBS = ("stop", "clear", "describe", "help", "quit")
# Words around a model's name, and what else "use" begins.
_NO_MODEL_NAMES = DETERMINERS | {"model", "threshold", "please", "thanks", "now"}


def _any(words: Iterable[str]) -> str:
    """Returns a pattern for any of the words, the longest first: "find me" is not "find" with the phrase "me"."""
    # Without the flag "a", "i" would match the dotless and the dotted I, which lower() does not convert to "i".
    return f"(?ai:{any_of(words)})"


# "robot" is dropped only before a comma: "robot arm" is a phrase.
_OPENER = re.compile(
    r"(?:please|would you mind (?:finding|getting|fetching|passing|bringing|showing)(?: me)?|"
    r"(?:could|can|would|will) you|(?:could|can|may) i (?:have|get|see)|(?:what|how) about|tell me|"
    r"i(?: would|'d) like you to|i want you to|(?:hey|hello|ok)(?: robot)?)"
    r"(?=[\s,.!]|$)|robot ?,|help me to (?=\w)|help me (?=(?:find|look|search|segment|locate|get)\b)",
    re.IGNORECASE,
)
_CLOSER = re.compile(
    r"(?:^|[\s,])(?:please|pls|for me|thanks|thank you|now|would you|anywhere|you can see)$", re.IGNORECASE
)
_VERB_OF = {form: verb for verb in VERBS for form in FORMS[verb]}
_VERB = re.compile(rf"({_any(_VERB_OF)})(?![\w'-])")

# Shells and YAML remove double quotes. The apostrophe in "where's" has a letter on both sides.
_QUOTED = re.compile(r"\"[^\"]*\"|(?<!\w)'(?P<single>[^'\"]*)'(?!\w)")
# Words that may follow "how many cups".
_THERE = re.compile(
    r" (?:are there|is there|do you see|can you see|do you have|are(?= (?:on|in|under)\b))", re.IGNORECASE
)

_OPTION = re.compile(
    r"(?:(?P<before>.*?),?(?: and)? )?(?:"
    r'(?:with|at) (?:a |the )?threshold(?: of)? (?P<threshold>[^\s"]+)|'
    # "using the laptop" is part of a phrase.
    r'(?:using (?:(?:the )?model )?|using the (?=[^\s"]+ model)|with model )(?P<model>[^\s"]+)(?: model)?)',
    re.IGNORECASE,
)
_MODEL = re.compile(r"(?:the )?(?:model )?(?P<name>.*?)(?: model)?", re.IGNORECASE)
_MODEL_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_.-]*[a-z0-9])?", re.IGNORECASE | re.ASCII)
_TO = re.compile(r"(?:(?:to|of)(?!\w)|[=:])? ?", re.IGNORECASE)


@dataclass(frozen=True)
class Command:
    """A parsed command. ``str`` writes it in full, as a text that parses to the same command."""

    verb: Verb
    prompts: tuple[str, ...] = ()
    """Phrases in the order of the text, lower case, without articles; segment, find and track have some, and recall and
    forget, where none stands for everything."""
    threshold: float | None = None
    """The threshold, 0..1, of commands that end in "with threshold 0.4" and of ``threshold``; in the latter, ``None``
    stands for each model's own threshold."""
    negatives: tuple[str, ...] = ()
    """Phrases to leave out, written like ``prompts``; none is also a prompt. Only commands with prompts have any."""
    model: str | None = None
    """The name of a model as it was typed; only ``use`` and commands that end in "using NAME" have one."""
    classes: tuple[str, ...] = ()
    """1 to ``MAX_CLASSES`` different names, written like ``prompts``; only ``classes`` has any."""
    spelling: str = field(default="", compare=False)
    """The verb as it was typed, in lower case; "" for a phrase without a verb."""
    counted: tuple[str, ...] = field(default=(), compare=False)
    """The phrases that were typed with a number, which is dropped: "balls" for "two balls"."""
    references: tuple[Reference, ...] = field(default=(), compare=False)
    """What each of ``prompts`` refers to; without a place, a number or something left out, its name alone."""
    printed: str = field(default="", compare=False, repr=False)
    """The phrases as ``str`` writes them, with each name in quotes; "" if they are names alone."""

    def __post_init__(self) -> None:
        if not self.references:
            object.__setattr__(self, "references", tuple(Reference(prompt) for prompt in self.prompts))

    def __str__(self) -> str:
        if self.verb == "threshold":
            return f"threshold {'default' if self.threshold is None else self.threshold}"
        is_count = any(reference.is_count_asked for reference in self.references)
        names = ", ".join(f'"{phrase}"' for phrase in self.prompts + self.classes)
        if self.verb in OF_MEMORY and not names:
            names = "everything"
        words = ["how many" if is_count else self.verb, self.printed or names]
        if self.negatives and not self.printed:
            words.append("except " + ", ".join(f'"{phrase}"' for phrase in self.negatives))
        if self.model is not None:
            words.append(self.model if self.verb == "use" else f"using {self.model}")
        if self.threshold is not None:
            words.append(f"with threshold {self.threshold}")
        return " ".join(filter(None, words))


def parse_command(text: str) -> Command:
    """Parses one command.

    Args:
        text: A typed or spoken text of at most ``MAX_CHARACTERS``, or ``MAX_CLASSES_CHARACTERS`` for classes.

    Returns:
        The verb with its arguments: 1 to ``MAX_PROMPTS`` different prompts and negatives, classes, the name of a model,
        or a threshold.

    Raises:
        CommandError: The text is empty, too long, unprintable or incomplete, or asks for too much.

    Examples:
        >>> print(parse_command('Robot, could you find the red cups, but not the small one, and "salt and pepper"?'))
        find "red cups" not "small cups", "salt and pepper"
    """
    sentence = _strip_politeness(_normalise(text))
    if not sentence:
        raise CommandError(f"the command is empty: type what to look for, for example {EXAMPLE}")
    verb, spelling, rest = _split_verb(sentence)
    if verb != "classes":
        _check_length(sentence, MAX_CHARACTERS)
    if verb in _LONE_VERBS:
        if rest := rest.strip(PUNCTUATION):
            raise CommandError(
                f'"{spelling}" stands alone: type "{spelling}", or "segment {shown(sentence)}" to look for that'
            )
        return Command(verb, spelling=spelling)
    if verb == "threshold":
        value = rest[_TO.match(rest).end() :].strip()
        is_own = value.lower() in OWN_THRESHOLD or (not value and spelling in RESETTING)
        return Command(verb, threshold=None if is_own else _parse_threshold(value))

    rest, threshold, model = _split_options(rest)
    if verb == "use":
        if model is not None:
            raise CommandError('two models in one command: type one, for example "use cris"')
        return Command(verb, threshold=threshold, model=_parse_model(_MODEL.fullmatch(rest)["name"]))
    if spelling in OF_ALL:
        check_alone(verb, spelling, rest.strip(PUNCTUATION))
        return Command(verb, spelling=spelling)
    if spelling in COUNTING:
        rest = _THERE.sub("", rest)
    phrases = split_phrases(rest.lstrip(PUNCTUATION + "="), are_places_read=verb != "classes")
    if verb == "classes":
        classes = _checked_classes(phrases.wanted, phrases.unwanted)
        return Command(verb, threshold=threshold, model=model, classes=classes)
    command = _with_meaning(
        Command(verb, phrases.wanted, threshold, phrases.unwanted, model, spelling=spelling), phrases
    )
    check_remembered(command.verb, command.references, threshold is not None or model is not None)
    return command


def _with_meaning(command: Command, phrases: Phrases) -> Command:
    """Returns a command for phrases with what they refer to.

    Raises:
        CommandError: There is no phrase, or there are too many, or too many things in them.
    """
    spelling = command.spelling
    if not phrases.wanted:
        problem = f'"{spelling}" needs a phrase after it' if spelling else "the command names no object"
        raise CommandError(f'{problem}: type for example "{spelling or "segment"} the red cup"')
    asks_count = spelling in COUNTING
    references = tuple(replace(reference, is_count_asked=asks_count) for reference in phrases.references)
    things = {name for reference in references for name in reference.names()}
    if (number := max(len(phrases.wanted + phrases.unwanted), len(things))) > MAX_PROMPTS:
        raise CommandError(f"{number} phrases in one command: type at most {MAX_PROMPTS}")
    return replace(command, counted=phrases.counted, references=references, printed=phrases.printed)


def parse_reference(text: str) -> Reference:
    """Returns what one phrase refers to, such as a printed ``Reference``.

    Raises:
        CommandError: The text is no command, or one with several phrases or none.
    """
    command = parse_command(text)
    if len(command.references) != 1:
        raise CommandError(f"{len(command.references)} phrases: type one, for example {EXAMPLE}")
    return command.references[0]


def _normalise(text: str) -> str:
    """Checks length and characters; returns the text with single spaces and plain quotes."""
    # First, because one character can stand for many.
    text = unicodedata.normalize("NFKC", text).strip()
    _check_length(text, MAX_CLASSES_CHARACTERS)
    # NFKC makes no-break spaces and full-width letters, which phones and web pages produce, plain ones.
    for character in text:
        if not character.isprintable() and character not in "\t\r\n":
            raise CommandError(
                f"the command holds the unprintable character U+{ord(character):04X}: "
                f"type plain text, for example {EXAMPLE}"
            )
    text = text.translate(_PLAIN_QUOTES)
    text = _QUOTED.sub(lambda match: match[0] if match["single"] is None else f'"{match["single"]}"', text)
    return " ".join(text.split())


def _check_length(text: str, limit: int) -> None:
    if len(text) > limit:
        raise CommandError(
            f"the command has {len(text)} characters: type at most {MAX_CHARACTERS}, "
            f"or {MAX_CLASSES_CHARACTERS} for a list of classes"
        )


def _strip_politeness(sentence: str) -> str:
    """Removes "could you", "please", "robot," and punctuation from both ends until nothing changes."""
    before = None
    while sentence != before:
        before = sentence
        sentence = sentence.strip(PUNCTUATION)
        if opener := _OPENER.match(sentence):
            sentence = sentence[opener.end() :]
        if closer := _CLOSER.search(sentence):
            sentence = sentence[: closer.start()]
    return sentence


def _split_verb(sentence: str) -> tuple[Verb, str, str]:
    """Returns the verb, how it was spelt ("" for a bare phrase, which is a ``segment``) and the text after it."""
    if match := _VERB.match(sentence):
        spelling = match[1].lower()
        return cast(Verb, _VERB_OF[spelling]), spelling, sentence[match.end() :].lstrip()
    check_question(sentence)
    return "segment", "", sentence


def _split_options(text: str) -> tuple[str, float | None, str | None]:
    """Removes "with threshold 0.4" and "using cris" from the end; returns the rest, the threshold and the model."""
    threshold, model = None, None
    while match := _OPTION.fullmatch(text):
        if match["threshold"]:
            if threshold is not None:
                raise CommandError('two thresholds in one command: type one, for example "with threshold 0.4"')
            threshold = _parse_threshold(match["threshold"].rstrip(PUNCTUATION))
        else:
            if model is not None:
                raise CommandError('two models in one command: type one, for example "using cris"')
            model = _parse_model(match["model"].rstrip(PUNCTUATION))
        text = match["before"] or ""
    return text, threshold, model


def _checked_classes(names: tuple[str, ...], negatives: tuple[str, ...]) -> tuple[str, ...]:
    example = 'type for example "classes: cup, table, floor"'
    if negatives:
        raise CommandError(f'a list of classes leaves nothing out, put names that hold "not" in quotes: {example}')
    if not names:
        raise CommandError(f"the list of classes is empty: {example}")
    if len(names) > MAX_CLASSES:
        raise CommandError(f"{len(names)} classes: type at most {MAX_CLASSES}")
    return names


def _parse_model(text: str) -> str:
    advice = 'type for example "use clipseg-pocket"; double quotes keep a phrase with "using" or "use" whole'
    if not text or text.lower() in _NO_MODEL_NAMES:
        raise CommandError(f"the name of the model is missing: {advice}")
    if not _MODEL_NAME.fullmatch(text):
        raise CommandError(f'"{shown(text)}" is no name of a model (letters, digits, ".", "-", "_"): {advice}')
    return text


def _parse_threshold(text: str) -> float:
    text = text.strip()
    advice = 'type a number from 0 to 1, for example "threshold 0.4"'
    try:
        value = float(text)
    except ValueError:
        problem = f'"{shown(text)}" is no threshold' if text else '"threshold" needs a number'
        raise CommandError(f"{problem}: {advice}") from None
    if not 0.0 <= value <= 1.0:  # also refuses NaN
        raise CommandError(f"the threshold {shown(text)} is out of range: {advice}")
    return value
