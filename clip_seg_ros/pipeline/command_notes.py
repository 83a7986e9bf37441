# SPDX-License-Identifier: Apache-2.0
"""The notes on a command that are made before an image is segmented."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

from clip_seg_ros.commands.hints import correction, doubt, relation_in, remarks
from clip_seg_ros.commands.parser import Command
from clip_seg_ros.models.spec import ModelSpec
from clip_seg_ros.pipeline.space.understanding import Asking

_EVERYTHING = frozenset({"everything", "anything", "objects", "things", "object", "thing"})


def refusal(text: str, command: Command, spec: ModelSpec, taught: Container[str]) -> str:
    """Returns why a command with phrases is rejected as misspelt, and what was probably meant; "" if it is not.

    Args:
        text: The command as it was typed.
        command: The parsed command.
        spec: Specification of the model that would be asked.
        taught: Names of the image prompts, which are never misspelt.
    """
    # Another model may know other words, which are only known once it is loaded.
    known = () if command.model is not None else spec.known_words
    meant = correction(text, command, known, _unknown_by(spec, taught) if known else _none)
    if not meant:
        return ""
    return f'did you mean "{meant}"? Type that, or put double quotes around the phrase to look for it as it is'


def note_on(command: Command, spec: ModelSpec, taught: Container[str], text: str, asking: Asking) -> str:
    """Returns the note that accepts a command with phrases.

    Args:
        command: The parsed command.
        spec: Specification of the model that is asked.
        taught: Names of the image prompts.
        text: The command as it was typed.
        asking: What the model is asked for.
    """
    phrases = (*asking.names, *asking.negatives)
    notes = [f"looking for {' and '.join(command.prompts)}"]
    if command.negatives:
        notes[0] += f", but not for {' or '.join(command.negatives)}"
    if understood := [str(each) for each, decided in zip(asking.references, asking.in_space) if decided]:
        notes.append(f"understood as {' and '.join(understood)}, decided by where things are")
    notes += remarks(command, asking.is_plain)
    if not spec.known_words and (meant := doubt(text, command)):
        notes.append(f'did you mean "{meant}"?')
    if command.model is None:
        relation = "" if spec.understands_relations else relation_in([each for each in phrases if each not in taught])
        if relation:
            notes.append(_advice_on_relations(spec, relation))
        unknown = [word for phrase in phrases for word in _unknown_by(spec, taught)(phrase)]
        unknown = [word for word in dict.fromkeys(unknown) if word not in relation.split()]
        if unknown:
            words = ", ".join(f"'{word}'" for word in unknown)
            notes.append(f"the weights of {spec.name} do not know {words}: do not rely on the answer")
        if _EVERYTHING.intersection(phrases):
            notes.append('to have all that is there listed, type "what do you see?"')
    return "; ".join(notes)


def _advice_on_relations(spec: ModelSpec, relation: str) -> str:
    problem = f'{spec.name} does not understand "{relation}"'
    if spec.known_words:
        return f'{problem}: type "use cris", which does, and ask again'
    return f"{problem}: a CRIS does, `clip-seg weights list` names those that there are"


def _unknown_by(spec: ModelSpec, taught: Container[str]) -> Callable[[str], Sequence[str]]:
    return lambda phrase: () if phrase in taught else spec.unknown_words(phrase)


def _none(phrase: str) -> Sequence[str]:
    return ()
