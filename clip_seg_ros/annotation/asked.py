# SPDX-License-Identifier: Apache-2.0
"""What somebody asks of pictures: phrases, a command, or both, as one command of the language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clip_seg_ros.annotation.job import Phrase
from clip_seg_ros.annotation.prompts import read_prompts
from clip_seg_ros.commands.parser import MAX_CLASSES, Command, CommandError, parse_command
from clip_seg_ros.data.samples import DataError
from clip_seg_ros.models.spec import ModelSpec
from clip_seg_ros.pipeline.command_notes import note_on, refusal
from clip_seg_ros.pipeline.naming import as_commands_say, reference_of
from clip_seg_ros.pipeline.space.understanding import Asking, needs_space

_VERB = "segment"
_INSTEAD = {
    "use": "a model is chosen with --model",
    "threshold": "the threshold is set with --threshold",
    "classes": "lists of classes are for the semantic node of ROS: name what to look for instead",
    "recall": "nothing is remembered from picture to picture here",
    "forget": "nothing is remembered from picture to picture here",
    "describe": "what a picture holds cannot be listed here: name what to look for",
    "help": "docs/commands.md has the whole language",
}


@dataclass(frozen=True)
class Asked:
    """What is asked of every picture."""

    command: Command
    """All of it as one command."""
    parts: tuple[tuple[str, Command], ...]
    """The texts, as commands, and what they mean."""
    own_thresholds: tuple[tuple[str, float], ...] = ()
    """Phrases with thresholds of their own, 0..1."""

    @property
    def prompts(self) -> tuple[str, ...]:
        """The phrases, in their order, each once."""
        return self.command.prompts

    def refusal(self, spec: ModelSpec) -> str:
        """Returns why a model is not asked, with what was probably meant; empty if nothing seems misspelt."""
        for text, command in self.parts:
            if fault := refusal(text, command, spec, ()):
                # Of a phrase, the verb is ours.
                return fault if command.spelling != _VERB else fault.replace(f'"{_VERB} ', '"', 1)
        return ""

    def note(self, spec: ModelSpec, asking: Asking) -> str:
        """Returns how it was understood, and what a model cannot do of it, for people."""
        return note_on(self.command, spec, (), " ".join(text for text, _ in self.parts), asking)


def asked_of(phrases: Sequence[str], text: str = "") -> Asked:
    """Reads phrases and a command.

    Args:
        phrases: What to look for. Phrases are split at commas and "and" as in commands, unless they stand in double
            quotes, and may say where a thing is. A single one may be the path of a file of ``clip-seg annotate``.
        text: A command; empty: none.

    Raises:
        CommandError: One of them or the file cannot be understood, does not look for anything, or there is nothing to
            look for.
    """
    wanted, left_out, thresholds = _sorted(phrases)
    parts = [(text, _command(text)) for text in (f"{_VERB} {phrase}" for phrase in wanted)]
    if text.strip():
        parts.append((text, _searching(text)))
    if not parts:
        raise CommandError('nothing to look for: name it, for example --prompts "red cup" "bowl"')
    return Asked(_joined([command for _, command in parts], left_out), tuple(parts), tuple(thresholds.items()))


def _sorted(phrases: Sequence[str]) -> tuple[list[str], list[str], dict[str, float]]:
    """Returns the phrases to look for, those to leave out, and thresholds, as ``clip-seg annotate`` reads them."""
    is_file = len(phrases) == 1 and Path(phrases[0]).expanduser().is_file()
    wanted: list[str] = []
    left_out: list[str] = []
    thresholds: dict[str, float] = {}
    for phrase in phrases:
        if phrase.lower().startswith("not "):
            left_out.append(as_commands_say(phrase[4:]))
        elif is_file or "=" in phrase:
            found, others = _read(phrase)
            wanted += [_as_one(each.text) for each in found]
            left_out += others
            thresholds |= {each.text: each.threshold for each in found if each.threshold is not None}
        else:
            wanted.append(phrase)
    return wanted, left_out, thresholds


def _read(phrase: str) -> tuple[Sequence[Phrase], Sequence[str]]:
    """Reads a file of phrases, or a phrase with a threshold. Raises CommandError, as for all that was typed wrong."""
    try:
        return read_prompts([phrase])
    except DataError as error:
        raise CommandError(str(error)) from error


def _as_one(phrase: str) -> str:
    """Returns a phrase of a file as commands have it, where quotes keep a name whole."""
    return phrase if needs_space(reference_of(phrase)) else f'"{phrase}"'


def _command(text: str) -> Command:
    phrase = text.removeprefix(f"{_VERB} ")
    if not phrase.strip():
        raise CommandError('a phrase is empty: name what to look for, for example --prompts "red cup" "bowl"')
    try:
        command = parse_command(text)
    except CommandError as error:
        raise CommandError(f'"{phrase}" cannot be looked for: {error}') from error
    if command.model is not None or command.threshold is not None:
        raise CommandError(f'"{phrase}" sets more than what to look for: use --model and --threshold for that')
    return command


def _searching(text: str) -> Command:
    command = parse_command(text)
    if not command.prompts or command.verb in _INSTEAD:
        why = _INSTEAD.get(command.verb, "it looks for nothing")
        raise CommandError(f'"{text.strip()}" is no search: {why}; type for example "find the red cup"')
    return command


def _joined(commands: Sequence[Command], left_out: Sequence[str]) -> Command:
    """Returns one command for all that several ones look for and leave out. Raises CommandError if it cannot be."""
    references = {
        prompt: reference
        for command in commands
        for prompt, reference in zip(command.prompts, command.references, strict=True)
    }
    negatives = tuple(dict.fromkeys([*(each for command in commands for each in command.negatives), *left_out]))
    if both := [each for each in negatives if each in references]:
        raise CommandError(f'"{both[0]}" is looked for and left out')
    if len(references) + len(negatives) > MAX_CLASSES:
        raise CommandError(f"{len(references) + len(negatives)} phrases: at most {MAX_CLASSES}")
    return replace(
        commands[-1],
        prompts=tuple(references),
        references=tuple(references.values()),
        negatives=negatives,
        counted=tuple(each for command in commands for each in command.counted),
    )
