# SPDX-License-Identifier: Apache-2.0
"""Refusals of commands about what is remembered: misspelt questions, and phrases that a memory cannot answer."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from clip_seg_ros.commands.errors import CommandError, shown
from clip_seg_ros.commands.references import Reference
from clip_seg_ros.commands.words import FORMS, OF_MEMORY

_CLOSE = 0.86
"""The ratio of ``difflib`` from which the beginning of a sentence is a misspelt question: "where did you lst see" has
0.98."""
_FORMS = tuple(form for verb in OF_MEMORY for form in FORMS[verb] if len(form.split()) > 2)


def check_question(sentence: str) -> None:
    """Refuses a sentence without a verb that begins almost like a question about what is remembered.

    Raises:
        CommandError: It does; the message says what was probably meant.
    """
    words = sentence.split()
    if '"' in sentence or len(words) < 3:
        return
    best, meant = _CLOSE, ""
    for form in _FORMS:
        count = len(form.split())
        for length in (count, count + 1, count - 1):
            beginning = " ".join(words[:length]).lower().rstrip("?!. ")
            ratio = difflib.SequenceMatcher(None, beginning, form, autojunk=False).ratio()
            if ratio > best:
                best, meant = ratio, " ".join([form, *words[length:]])
    if meant:
        raise CommandError(f'did you mean "{shown(meant)}"? type that, or put double quotes around a phrase')


def check_alone(verb: str, spelling: str, rest: str) -> None:
    """Refuses what follows a form that means everything.

    Raises:
        CommandError: There is a rest.
    """
    if rest:
        raise CommandError(f'"{spelling}" stands alone: type "{spelling}", or "{verb} the red cup"')


def check_remembered(verb: str, references: Sequence[Reference], has_options: bool) -> None:
    """Refuses phrases that are more than names, if the verb is one of ``OF_MEMORY``.

    Args:
        verb: The verb.
        references: What the phrases refer to.
        has_options: Whether a threshold or a model follows them.

    Raises:
        CommandError: A phrase has a place, an order or something left out, or there are options.
    """
    if verb not in OF_MEMORY:
        return
    for reference in references:
        if reference.is_conditional:
            raise CommandError(
                "places, order and what is left out are not decided from memory: "
                f'type "{verb} {shown(reference.name)}", or look for it with "find"'
            )
    if has_options:
        name = shown(references[0].name)
        raise CommandError(f'what is remembered has neither threshold nor model: type "{verb} {name}"')
