# SPDX-License-Identifier: Apache-2.0
"""Which engine was chosen to run a model, and why. Nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass


class EngineWarning(UserWarning):
    """The engine or the precision that a program asked for cannot be had; another one runs the model."""


PROVISIONAL = "which engine is the fastest is still being measured"
"""The note on an engine that serves until others were measured."""


@dataclass(frozen=True)
class Chosen:
    """The engine and the precision that run a model."""

    engine: str
    """One of ``config.ENGINE_NAMES`` without "auto"."""
    precision: str
    """One of ``config.PRECISION_NAMES`` without "auto"."""
    note: str = ""
    """Why it was chosen: what it gains, or why others cannot be had; empty where there was nothing to choose."""
    as_asked: bool = True
    """False where an engine or a precision was asked for by its name and cannot be had."""
    is_provisional: bool = False
    """True where nothing was measured yet, and a faster engine may be found once that is done."""

    @property
    def complaint(self) -> str:
        """What a user is warned of who asked for another engine or precision; "" where nothing is wrong."""
        if self.as_asked:
            return ""
        return (
            f"the engine that was asked for cannot be had, and {self.engine} in {self.precision} is used: {self.note}"
        )

    def __str__(self) -> str:
        return f"{self.engine} in {self.precision}" + (f" ({self.note})" if self.note else "")
