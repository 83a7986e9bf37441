# SPDX-License-Identifier: Apache-2.0
"""Plain words for people on weights that know the simulated table alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clip_seg_ros.models.public_weights import download_command

if TYPE_CHECKING:  # torch takes seconds to import, and nodes import this before they can end cleanly
    from clip_seg_ros.models.base import PromptableSegmenter

CORNER = "simulated-table weights: not for real pictures"
"""A short line for pictures and diagnostics."""


class EmbeddedWeightsWarning(UserWarning):
    """Weights that come with the package were loaded, which know the simulated table alone."""


def in_commands(model: PromptableSegmenter) -> str:
    """Returns what to know and to type before commands are given on real pictures; empty for all other weights."""
    other = model.for_real_pictures
    return "" if other is None else f"{_facts(model.name)} type `{download_command(other)}`, then `use {other}`"


def in_programs(model: PromptableSegmenter) -> str:
    """Returns what to know and to call before ``Predictor`` is shown real pictures; empty for all other weights."""
    other = model.for_real_pictures
    if other is None:
        return ""
    return f'{_facts(model.name)} type `{download_command(other)}`, then call Predictor.from_name("{other}")'


def in_options(model: PromptableSegmenter) -> str:
    """Returns what to know and to type before ``clip-seg`` is shown real pictures; empty for all other weights."""
    other = model.for_real_pictures
    return "" if other is None else f"{_facts(model.name)} type `{download_command(other)}`, then add `--model {other}`"


def in_corner(model: PromptableSegmenter) -> str:
    """Returns the short line for pictures and diagnostics; empty for all other weights."""
    return "" if model.for_real_pictures is None else CORNER


def _facts(name: str) -> str:
    return (
        f"the weights of {name} know the simulated table alone, and on real pictures they are confidently wrong. For "
        "real pictures"
    )
