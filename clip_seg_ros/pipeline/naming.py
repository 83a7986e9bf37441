# SPDX-License-Identifier: Apache-2.0
"""Names that people give to things, and phrases from elsewhere, as commands would have them."""

from __future__ import annotations

from clip_seg_ros.commands.errors import PlaceError
from clip_seg_ros.commands.parser import MAX_CHARACTERS, CommandError, parse_command, parse_reference
from clip_seg_ros.commands.references import Reference
from clip_seg_ros.pipeline.space.understanding import needs_space


def as_commands_say(phrase: str) -> str:
    """Returns a phrase as the parser of commands would return it: in lower case and without articles.

    A phrase that the parser would split stays whole. Examples are kept under such names.

    Raises:
        ValueError: The phrase is too long.
    """
    whole = not_too_long(" ".join(phrase.lower().split()))
    try:
        return checked_name(phrase)
    except ValueError:
        return whole


def reference_of(phrase: str) -> Reference:
    """Returns what a phrase refers to, as in a command; one that the parser would split or refuse is a name.

    Raises:
        ValueError: The phrase is too long, or the place that it gives is not understood.
    """
    name = as_commands_say(phrase)
    try:
        reference = parse_reference(f"segment {phrase}")
    except PlaceError:
        raise
    except ValueError:
        return Reference(name)
    return reference if needs_space(reference) else Reference(name)


def not_too_long(phrase: str) -> str:
    """Returns the phrase; raises ValueError if it is too long: the time to tokenise a word grows with its square."""
    if len(phrase) > MAX_CHARACTERS:
        raise ValueError(f"a phrase has at most {MAX_CHARACTERS} characters, got one of {len(phrase)}")
    return phrase


def checked_name(name: str) -> str:
    """Returns a name as the parser of commands returns it; raises ValueError if no command can contain it."""
    try:
        command = parse_command(f"segment {not_too_long(name)}")
    except CommandError as error:
        raise ValueError(f"no command could say the name {name!r}: {error}") from error
    if len(command.prompts) != 1 or command.negatives or command.model or command.threshold is not None:
        raise ValueError(f'a command would not take "{name}" for one phrase: choose a plain name such as "old mug"')
    return command.prompts[0]
