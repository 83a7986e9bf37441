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
from dataclasses import dataclass, field
from typing import Literal, cast

from clip_seg_ros.commands.plurals import singulars
from clip_seg_ros.commands.words import DETERMINERS, FORMS, NUMBERS, OWN_THRESHOLD, RELATIONS, RESETTING, VERBS

Verb = Literal["segment", "find", "track", "use", "classes", "threshold", "stop", "clear", "describe", "help", "quit"]

MAX_CHARACTERS = 500
MAX_CLASSES_CHARACTERS = 4000
"""The largest length of a list of classes, which may be longer than other commands."""
MAX_PROMPTS = 16
"""The largest number of phrases to look for and to leave out together, because a model is asked about both."""
MAX_CLASSES = 256

_EXAMPLE = '"segment the red cup"'
_NEGATIVE_EXAMPLE = '"find the cup, not the blue one"'

_PUNCTUATION = " .,;:!?"
_PLAIN_QUOTES = str.maketrans(dict.fromkeys("“”„«»", '"') | dict.fromkeys("‘’", "'"))
_ONE = ("one", "ones")
_PRONOUNS = ("it", "them", "him")
_NO_NOUNS = ("everything", "anything", *_ONE)
_LONE_VERBS = ("stop", "clear", "describe", "help", "quit")
# Words around a model's name, and what else "use" begins.
_NO_MODEL_NAMES = DETERMINERS | {"model", "threshold", "please", "thanks", "now"}


def _any(words: Iterable[str]) -> str:
    """Returns a pattern for any of the words, the longest first: "find me" is not "find" with the phrase "me"."""
    # Without the flag "a", "i" would match the dotless and the dotted I, which lower() does not convert to "i".
    return f"(?ai:{'|'.join(re.escape(word) for word in sorted(words, key=len, reverse=True))})"


# "robot" is dropped only before a comma: "robot arm" is a phrase.
_OPENER = re.compile(
    r"(?:please|(?:could|can|would|will) you|i(?: would|'d) like you to|i want you to|(?:hey|hello|ok)(?: robot)?)"
    r"(?=[\s,.!]|$)|robot ?,|help me to (?=\w)|help me (?=(?:find|look|search|segment|locate|get)\b)",
    re.IGNORECASE,
)
_CLOSER = re.compile(r"(?:^|[\s,])(?:please|for me|thanks|thank you|now)$", re.IGNORECASE)
_VERB_OF = {form: verb for verb in VERBS for form in FORMS[verb]}
_VERB = re.compile(rf"({_any(_VERB_OF)})(?![\w'-])")

# Shells and YAML remove double quotes. The apostrophe in "where's" has a letter on both sides.
_QUOTED = re.compile(r"\"[^\"]*\"|(?<!\w)'(?P<single>[^'\"]*)'(?!\w)")
_WORD_END = r'(?=[\s,;&"]|$)'
# "without" and "but" leave something out only before a phrase that ends in "one": "cup without a handle".
_BEFORE_ONE = r'(?= (?:(?!and )[^\s,;&"]+ ){0,9}ones?[.:!?]*(?:[,;&]| and\b| ?$))'
_MARKER = rf"{_any(FORMS['not'] + FORMS['except'])}{_WORD_END}|{_any(FORMS['without'])}{_BEFORE_ONE}"
_MARKER_KIND = {form: kind for kind in ("not", "except", "without") for form in FORMS[kind]}
_TOKEN = re.compile(
    rf'"(?P<quoted>[^"]*)"|(?P<marker>{_MARKER})|(?P<separator>[,;&]|(?:and|or|nor){_WORD_END})|(?P<word>[^\s,;&"]+)',
    re.IGNORECASE,
)
_RELATION_STARTS = frozenset(relation.split()[0] for relation in RELATIONS)
# Words that may follow "how many cups".
_THERE = re.compile(
    r" (?:are there|is there|do you see|can you see|do you have|are(?= (?:on|in|under)\b))", re.IGNORECASE
)
_RELATION = re.compile(rf" {_any(RELATIONS)} ")
# A clause would be split wrongly at "not".
_CLAUSE = re.compile(r"(?<![\w'-])(?:(?:is|are|do|does|has|have)(?:n't| not)|never)(?![\w'-])", re.IGNORECASE)

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


class CommandError(ValueError):
    """The text is not a command. The message says what is wrong and what to type instead."""


@dataclass(frozen=True)
class Command:
    """A parsed command. ``str`` writes it in full, as a text that parses to the same command."""

    verb: Verb
    prompts: tuple[str, ...] = ()
    """Phrases in the order of the text, lower case, without articles; only segment, find and track have any."""
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

    def __str__(self) -> str:
        if self.verb == "threshold":
            return f"threshold {'default' if self.threshold is None else self.threshold}"
        words = [self.verb, ", ".join(f'"{phrase}"' for phrase in self.prompts + self.classes)]
        if self.negatives:
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
        find "red cups", "salt and pepper" except "small cups"
    """
    sentence = _strip_politeness(_normalise(text))
    if not sentence:
        raise CommandError(f"the command is empty: type what to look for, for example {_EXAMPLE}")
    verb, spelling, rest = _split_verb(sentence)
    if verb != "classes":
        _check_length(sentence, MAX_CHARACTERS)
    if verb in _LONE_VERBS:
        if rest := rest.strip(_PUNCTUATION):
            raise CommandError(
                f'"{spelling}" stands alone: type "{spelling}", or "segment {_shown(sentence)}" to look for that'
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
    if spelling == "how many":
        rest = _THERE.sub("", rest)
    prompts, negatives, counted = _split_phrases(rest.lstrip(_PUNCTUATION + "="))
    if verb == "classes":
        return Command(verb, threshold=threshold, model=model, classes=_checked_classes(prompts, negatives))
    if not prompts:
        problem = f'"{spelling}" needs a phrase after it' if spelling else "the command names no object"
        raise CommandError(f'{problem}: type for example "{spelling or "segment"} the red cup"')
    if len(prompts + negatives) > MAX_PROMPTS:
        raise CommandError(f"{len(prompts + negatives)} phrases in one command: type at most {MAX_PROMPTS}")
    return Command(verb, prompts, threshold, negatives, model, spelling=spelling, counted=counted)


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
                f"type plain text, for example {_EXAMPLE}"
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


def _shown(text: str) -> str:
    """Returns the text, or its beginning, for a message."""
    return text if len(text) <= 100 else f"{text[:100]}..."


def _strip_politeness(sentence: str) -> str:
    """Removes "could you", "please", "robot," and punctuation from both ends until nothing changes."""
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
    if match := _VERB.match(sentence):
        spelling = match[1].lower()
        return cast(Verb, _VERB_OF[spelling]), spelling, sentence[match.end() :].lstrip()
    return "segment", "", sentence


def _split_options(text: str) -> tuple[str, float | None, str | None]:
    """Removes "with threshold 0.4" and "using cris" from the end; returns the rest, the threshold and the model."""
    threshold, model = None, None
    while match := _OPTION.fullmatch(text):
        if match["threshold"]:
            if threshold is not None:
                raise CommandError('two thresholds in one command: type one, for example "with threshold 0.4"')
            threshold = _parse_threshold(match["threshold"].rstrip(_PUNCTUATION))
        else:
            if model is not None:
                raise CommandError('two models in one command: type one, for example "using cris"')
            model = _parse_model(match["model"].rstrip(_PUNCTUATION))
        text = match["before"] or ""
    return text, threshold, model


@dataclass
class _Part:
    """The words between two separators."""

    marker: str = ""
    """The word that leaves the phrase out, as typed; "" if there is none or it belongs to an earlier part."""
    kind: str = ""
    """The marker's row in the grammar (not, except, without); "" for a phrase to look for."""
    words: list[tuple[str, bool]] = field(default_factory=list)
    """The words in lower case without determiners at the beginning, each with whether it is a quoted text."""
    is_determined: bool = False
    """Whether there were determiners: "all of the cups"."""

    def text(self) -> str:
        # It is split once more because quoted texts may begin or end with a space.
        return " ".join(" ".join(word for word, _ in self.words).split()).strip(_PUNCTUATION)


def _split_phrases(text: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Returns the phrases to look for, those to leave out, and those with a number, each once and in order."""
    if text.count('"') % 2:
        raise CommandError('a quote is not closed: type for example find "salt and pepper"')
    if clause := _CLAUSE.search(re.sub(r'"[^"]*"', '""', text)):
        raise CommandError(
            f'"{clause[0]}" is not understood: type for example {_NEGATIVE_EXAMPLE}, or "stop"; '
            "double quotes keep a phrase whole"
        )
    parts = _parts(text)
    for part in parts:
        if part.marker and not part.text():
            raise CommandError(f'"{part.marker}" needs a phrase after it: type for example {_NEGATIVE_EXAMPLE}')
    parts = [part for part in parts if part.text()]
    if parts and all(part.kind for part in parts):
        raise CommandError(f"the command names only what to leave out: type for example {_NEGATIVE_EXAMPLE}")

    wanted: list[str] = []
    unwanted: list[str] = []
    counted: list[str] = []
    for part in parts:
        had_number = _drop_number(part)
        if part.kind:
            _complete(part, wanted[-1] if wanted else "")
        phrase = part.text()
        if not any(character.isalnum() for character in phrase):
            raise CommandError(f'"{_shown(phrase)}" holds no word: type what to look for, for example {_EXAMPLE}')
        if phrase in _PRONOUNS and not part.words[0][1]:
            raise CommandError(f'"{phrase}" does not say which thing: type its name, for example {_EXAMPLE}')
        (unwanted if part.kind else wanted).append(phrase)
        counted += [phrase] if had_number else []
    for phrase in unwanted:
        if phrase in wanted:
            raise CommandError(
                f'"{_shown(phrase)}" is both to be found and to be left out: type for example {_NEGATIVE_EXAMPLE}'
            )
    return tuple(dict.fromkeys(wanted)), tuple(dict.fromkeys(unwanted)), tuple(dict.fromkeys(counted))


def _parts(text: str) -> list[_Part]:
    """Splits the text at markers and separators outside quotes; a part may be empty."""
    parts = [_Part()]
    for token in _TOKEN.finditer(text):
        last = parts[-1]
        # It is lower() and not casefold(), which would change the spelling of words ("ß" -> "ss") for the model.
        # NFKC is applied again, because small letters have composed forms that capital letters lack.
        word = unicodedata.normalize("NFKC", (token[0] if token["quoted"] is None else token["quoted"]).lower())
        if token["marker"]:
            parts.append(_Part(word, _MARKER_KIND[word]))
        elif token["separator"] and (last.kind or word not in ("or", "nor")):
            ended = last.kind != "except" and word in (",", ";")
            parts.append(_Part(kind="" if ended else last.kind))
        elif token["quoted"] is not None:
            last.words.append((word, True))
        elif last.words or not (word in DETERMINERS or (word == "of" and last.is_determined)):
            last.words.append((word, False))
        else:
            last.is_determined = True
    return parts


def _drop_number(part: _Part) -> bool:
    """Removes "two" from "two balls" and "two of the balls", but not from "two euro coin"; returns whether it did."""
    (number, quoted), rest = part.words[0], part.words[1:]
    if quoted or not rest or not (number in NUMBERS or number.isdecimal()):
        return False
    noun = _noun(" ".join(word for word, _ in rest)).strip(_PUNCTUATION)
    is_plural = noun in _ONE or bool(singulars(noun))
    if number in ("one", "1") and rest[0][0] != "of":
        # "one on the shelf" stands for a thing; "one sheep" and "one glass" name it.
        if rest[0][0] in _RELATION_STARTS or (is_plural and noun not in _ONE):
            return False
    elif not is_plural:
        return False
    while len(rest) > 1 and not rest[0][1] and (rest[0][0] == "of" or rest[0][0] in DETERMINERS):
        rest = rest[1:]
    part.words[:] = rest
    return True


def _complete(part: _Part, named_before: str) -> None:
    """Replaces "one" with the noun of the earlier phrase, or puts this noun in front of "on the table"."""
    noun = _noun(named_before)
    for position, (word, quoted) in enumerate(part.words):
        if quoted or word.strip(_PUNCTUATION) not in _ONE:
            continue
        if len(part.words) == 1:
            raise CommandError(f'"{word}" alone does not say which: type for example {_NEGATIVE_EXAMPLE}')
        if not noun or noun in _NO_NOUNS:
            raise CommandError(f'"{word}" stands for a thing named before it: type for example {_NEGATIVE_EXAMPLE}')
        part.words[position] = (noun, False)
        return
    if noun and not part.words[0][1] and _RELATION.match(f" {part.text()} "):
        part.words.insert(0, (noun, False))


def _noun(phrase: str) -> str:
    """Returns the noun of a phrase: its last word, or the one before "on the table"; "" for an empty phrase."""
    relation = _RELATION.search(f"{phrase} ")
    words = (phrase[: relation.start()] if relation else phrase).split()
    return words[-1] if words else ""


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
        raise CommandError(f'"{_shown(text)}" is no name of a model (letters, digits, ".", "-", "_"): {advice}')
    return text


def _parse_threshold(text: str) -> float:
    text = text.strip()
    advice = 'type a number from 0 to 1, for example "threshold 0.4"'
    try:
        value = float(text)
    except ValueError:
        problem = f'"{_shown(text)}" is no threshold' if text else '"threshold" needs a number'
        raise CommandError(f"{problem}: {advice}") from None
    if not 0.0 <= value <= 1.0:  # also refuses NaN
        raise CommandError(f"the threshold {_shown(text)} is out of range: {advice}")
    return value
