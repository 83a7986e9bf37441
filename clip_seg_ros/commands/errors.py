# SPDX-License-Identifier: Apache-2.0
"""The refusal of a command."""

from __future__ import annotations


class CommandError(ValueError):
    """The text is not a command. The message says what is wrong and what to type instead."""


def shown(text: str) -> str:
    """Returns the text, or its beginning, for a message."""
    return text if len(text) <= 100 else f"{text[:100]}..."
