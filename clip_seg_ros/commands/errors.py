# SPDX-License-Identifier: Apache-2.0
"""The refusals of commands."""

from __future__ import annotations


class CommandError(ValueError):
    """The text is not a command. The message says what is wrong and what to type instead."""


class PlaceError(CommandError):
    """A phrase begins to say where a thing is, which one in order, or how many, and the rest is not understood."""


def shown(text: str) -> str:
    """Returns the text, or its beginning, for a message."""
    return text if len(text) <= 100 else f"{text[:100]}..."
