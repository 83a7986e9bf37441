# SPDX-License-Identifier: Apache-2.0
"""Warnings about embedded weights, which know only the simulated table."""

from __future__ import annotations

from collections.abc import Sequence

from clip_seg_ros.models.spec import ModelSpec
from clip_seg_ros.zoo.public_weights import download_command

CORNER = "simulated-table weights: not for real pictures"
"""A short warning for overlays and diagnostics."""


class EmbeddedWeightsWarning(UserWarning):
    """Embedded weights were loaded, which know only the simulated table."""


def at_start(spec: ModelSpec, things: Sequence[str]) -> str:
    """Returns the warning for a node's log, with what the weights can and cannot find; empty for all other weights.

    Args:
        spec: Specification of the model.
        things: The kinds of things on the simulated table.
    """
    other = spec.for_real_pictures
    if other is None:
        return ""
    return (
        f"{spec.name} can find a {', '.join(things[:-1])} or {things[-1]} on the simulated table, and nothing reliably "
        f"in real pictures: for those type `{download_command(other)}`, then the command `use {other}`"
    )


def in_commands(spec: ModelSpec) -> str:
    """Returns the warning for commands, with what to type for real images; empty for all other weights."""
    other = spec.for_real_pictures
    return "" if other is None else f"{_facts(spec.name)} type `{download_command(other)}`, then `use {other}`"


def in_programs(spec: ModelSpec) -> str:
    """Returns the warning for programs, with what to call for real images; empty for all other weights."""
    other = spec.for_real_pictures
    if other is None:
        return ""
    return f'{_facts(spec.name)} type `{download_command(other)}`, then call Predictor.from_name("{other}")'


def in_options(spec: ModelSpec) -> str:
    """Returns the warning for ``clip-seg``, with what to type for real images; empty for all other weights."""
    other = spec.for_real_pictures
    return "" if other is None else f"{_facts(spec.name)} type `{download_command(other)}`, then add `--model {other}`"


def in_corner(spec: ModelSpec) -> str:
    """Returns the short warning for overlays and diagnostics; empty for all other weights."""
    return "" if spec.for_real_pictures is None else CORNER


def _facts(name: str) -> str:
    return (
        f"the weights of {name} know the simulated table alone, and on real pictures they are confidently wrong. For "
        "real pictures"
    )
