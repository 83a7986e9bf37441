# SPDX-License-Identifier: Apache-2.0
"""Reads what to find, from a file or from a command line.

# comment
red cup
box = 0.6
not white box
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from clip_seg_ros.annotation.job import Phrase
from clip_seg_ros.data.samples import DataError
from clip_seg_ros.pipeline.naming import as_commands_say, reference_of
from clip_seg_ros.pipeline.space.understanding import needs_space

_NOT = "not "


def read_prompts(given: Sequence[str]) -> tuple[tuple[Phrase, ...], tuple[str, ...]]:
    """Returns the phrases to find and those to leave out.

    Args:
        given: The path of a file with a phrase on each line, or phrases.

    Raises:
        DataError: There is no phrase, or one is not understood; the message names it.
    """
    path = Path(given[0]).expanduser() if len(given) == 1 else None
    if path is not None and path.is_file():
        try:
            return _read(path.read_text(encoding="utf-8-sig").splitlines(), f"{path}, line ")
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is no text in UTF-8: {error}") from error
    if path is not None and (path.suffix in (".txt", ".csv") or "/" in given[0]):
        raise DataError(f"there is no file {path}: name a file with a phrase on each line, or phrases themselves")
    return _read(given, "phrase ")


def _read(lines: Iterable[str], where: str) -> tuple[tuple[Phrase, ...], tuple[str, ...]]:
    phrases: dict[str, Phrase] = {}
    negatives: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        text = " ".join(line.partition("#")[0].split())
        if not text:
            continue
        try:
            if text.lower().startswith(_NOT):
                negatives[as_commands_say(text[len(_NOT) :])] = None
                continue
            phrase = _phrase(text)
            reference_of(phrase.text)
        except ValueError as error:
            raise DataError(f"{where}{number}, {text!r}: {error}") from error
        if phrase.text in phrases:
            raise DataError(f"{where}{number}: {phrase.text!r} is there twice")
        phrases[phrase.text] = phrase
    if not phrases:
        raise DataError("there is no phrase to find: name some, such as --prompts 'red cup' bowl")
    return tuple(phrases.values()), tuple(negatives)


def _phrase(text: str) -> Phrase:
    name, equals, value = text.rpartition("=")
    if not equals:
        return Phrase(as_commands_say(text))
    try:
        threshold = float(value)
    except ValueError:
        raise ValueError(f"{value.strip()!r} is no threshold, a number from 0 to 1") from None
    if not 0.0 <= threshold <= 1.0:
        raise ValueError(f"a threshold lies in 0..1, got {threshold:g}")
    if not name.strip():
        raise ValueError("a phrase is missing before the threshold")
    phrase = Phrase(as_commands_say(name.strip()), threshold)
    if needs_space(reference := reference_of(phrase.text)):
        asked = ", ".join(f'"{each}"' for each in reference.names())
        raise ValueError(
            f"where things are decides this, among those found for {asked}: leave its threshold out, or give one "
            f'to a name, as in "{reference.name} = {threshold:g}"'
        )
    return phrase
