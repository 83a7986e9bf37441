# SPDX-License-Identifier: Apache-2.0
"""Hints about a command beyond its meaning: probable typing errors, and requests that cannot be fulfilled.

Nothing here changes a command. The caller decides whether a hint leads to a refusal or is added to the response.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Sequence

from clip_seg_ros.commands.parser import Command, CommandError, parse_command
from clip_seg_ros.commands.plurals import singulars
from clip_seg_ros.commands.words import DETERMINERS, FETCHING, FORMS, OF_MEMORY, VERBS

HELP = (
    'type for example "segment the red cup", "find the boxes, not the white one", "where is the ball?", '
    '"what do you see?", "where did you last see the red cup?", "use cris", "threshold 0.4", "stop" or "clear"; '
    "docs/commands.md has the whole language"
)
"""The response to "help"."""
QUIT = (
    'a command does not end this node: press Ctrl-C where it was started, or shut it down as a lifecycle node; "stop" '
    "ends the search"
)
"""The response of a robot's node to "quit"."""

_CLOSE = 0.75
"""The ratio of ``difflib`` from which one word may be a misspelling of another: "blu" and "blue" have 0.86."""
_VERY_CLOSE = 0.82
"""The same ratio for a phrase's first word, which may be any word: "truck" and "track" have 0.8."""
_SHORTEST = 3
"""The least number of letters of a word of which another word may be a misspelling or a part."""
# Of questions about what is remembered, "have" and "did" are no verbs; ``remembering`` corrects them as a whole.
_VERB_WORDS = tuple(
    dict.fromkeys(form.split()[0] for verb in VERBS for form in (OF_MEMORY if verb in OF_MEMORY else FORMS[verb]))
)
# Words of vocabularies that name nothing to look for.
_NOT_MEANT = frozenset({"one", "the", "photo", "photograph", "image", "cropped", "good", "bad", "thing", "object"})
_PLACES = re.compile(
    r"\b(?:(?:to the )?(?:left|right) of|in front of|behind|next to|beside|between|(?:closest|nearest) to|"
    r"on the (?:left|right)|leftmost|rightmost|largest|biggest|smallest|nearest|closest|farthest|furthest)\b"
)


def relation_in(phrases: Sequence[str]) -> str:
    """Returns the first words in the phrases that relate an object to others ("left of", "largest"), or ""."""
    for phrase in phrases:
        if match := _PLACES.search(phrase):
            return match[0]
    return ""


def remarks(command: Command, is_number_dropped: bool) -> list[str]:
    """Lists the requests of a command that are not fulfilled: movements, and numbers if they are dropped."""
    said = []
    if command.counted and is_number_dropped:
        said.append("the number is left to the model: all are shown")
    if command.spelling in FETCHING:
        said.append(f'"{command.spelling}" only finds: this node moves nothing')
    return said


def doubt(text: str, command: Command) -> str:
    """Returns what a phrase whose first word is almost a verb may have meant ("fnd red cup"); "" for other phrases.

    It is a question and not a correction, because "tracks in the snow" begins like this, too.
    """
    first = command.prompts[0].split()
    if command.spelling or '"' in text or len(first) < 2:
        return ""
    verbs = [form for verb in ("segment", "find", "track") for form in FORMS[verb] if " " not in form and len(form) > 3]
    close = difflib.get_close_matches(first[0], verbs, 1, _VERY_CLOSE) if first[0] not in verbs else []
    return _replaced(" ".join(text.split()), first[0], close[0]) if close else ""


def correction(
    text: str, command: Command, known_words: Collection[str], unknown_words: Callable[[str], Sequence[str]]
) -> str:
    """Returns what was probably meant by a command with misspelt words; "" if nothing seems misspelt.

    A command with a misspelt verb is a phrase: "segmnt the red cup". For weights with a vocabulary of their own, a word
    that they lack is corrected to a similar word ("blu"), or to two words without the space between them ("redcup").

    Args:
        text: The command as it was typed.
        command: The meaning of the command, with phrases.
        known_words: The vocabulary of the model; if it has none of its own, this is empty and only verbs are corrected.
        unknown_words: Returns the words of a phrase that the vocabulary lacks.

    Examples:
        >>> from clip_seg_ros.commands.parser import parse_command
        >>> words = ("red", "blue", "cup", "the")
        >>> lacking = lambda phrase: [word for word in phrase.split() if word not in words]
        >>> correction("segmnt the redcup", parse_command("segmnt the redcup"), words, lacking)
        'segment the red cup'
    """
    sentence = " ".join(text.split())
    first = command.prompts[0].split()
    if not command.spelling and '"' not in text and len(first) > 1:
        verb = _nearest(first[0], _VERB_WORDS)
        sure = first[1] in DETERMINERS
        if verb and (sure or unknown_words(first[0])):
            better = _corrected(_replaced(sentence, first[0], verb), known_words, unknown_words)
            if better and (sure or not _lacking(better, unknown_words)):
                return better
    better = _corrected(sentence, known_words, unknown_words)
    return "" if better == sentence else better


def _corrected(sentence: str, known_words: Collection[str], unknown_words: Callable[[str], Sequence[str]]) -> str:
    """Returns the sentence with words of the vocabulary in place of similar ones; "" if it is no command."""
    for word in _lacking(sentence, unknown_words) if known_words else ():
        if meant := _meant(word, known_words):
            sentence = _replaced(sentence, word, meant)
    try:
        command = parse_command(sentence)
    except CommandError:
        return ""
    return sentence if command.prompts or command.verb in OF_MEMORY else ""


def _lacking(sentence: str, unknown_words: Callable[[str], Sequence[str]]) -> list[str]:
    """Lists the lower-case words in the phrases of a command that a vocabulary lacks."""
    try:
        command = parse_command(sentence)
    except CommandError:
        return []
    return [word.lower() for phrase in (*command.prompts, *command.negatives) for word in unknown_words(phrase)]


def _replaced(sentence: str, word: str, other: str) -> str:
    return re.sub(rf"(?<![\w'-]){re.escape(word)}(?![\w'-])", other, sentence, flags=re.IGNORECASE)


def _meant(word: str, known_words: Collection[str]) -> str:
    """Returns the known word or the two known words that ``word`` may stand for, or ""."""
    known = [each for each in known_words if len(each) >= _SHORTEST and each.isalpha()]
    for cut in range(_SHORTEST, len(word) - _SHORTEST + 1):
        if word[:cut] in known and any(part in known for part in (word[cut:], *singulars(word[cut:]))):
            return f"{word[:cut]} {word[cut:]}"
    things = [each for each in known if each not in _NOT_MEANT]
    for form in (word, *singulars(word)):
        if nearest := _swapped(form, known) or _nearest(form, things) or _one_letter_off(form, things):
            return nearest
    return ""


def _nearest(word: str, words: Sequence[str]) -> str:
    """Returns the most similar of ``words``, if it is similar enough and ``word`` is not one of them."""
    if word in words:
        return ""
    return _swapped(word, words) or next(iter(difflib.get_close_matches(word, words, 1, _CLOSE)), "")


def _swapped(word: str, words: Sequence[str]) -> str:
    """Returns the word with the same letters in another order after the first; ``difflib`` underrates such pairs."""
    return next((each for each in words if each[0] == word[0] and sorted(each) == sorted(word)), "")


def _one_letter_off(word: str, words: Sequence[str]) -> str:
    """Returns the word that differs in one inner letter: "cup" for "cip"."""
    for each in words:
        alike = len(each) == len(word) and (each[0], each[-1]) == (word[0], word[-1])
        if alike and sum(a != b for a, b in zip(each, word)) == 1:
            return each
    return ""
