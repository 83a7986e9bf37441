# SPDX-License-Identifier: Apache-2.0
"""Plain words for people on weights that know the simulated table alone."""

from __future__ import annotations

from clip_seg_ros.models.spec import ModelSpec
from clip_seg_ros.zoo.public_weights import download_command

CORNER = "simulated-table weights: not for real pictures"
"""A short line for pictures and diagnostics."""


class EmbeddedWeightsWarning(UserWarning):
    """Weights that come with the package were loaded, which know the simulated table alone."""


def in_commands(spec: ModelSpec) -> str:
    """Returns what to know and to type before commands are given on real pictures; empty for all other weights."""
    other = spec.for_real_pictures
    return "" if other is None else f"{_facts(spec.name)} type `{download_command(other)}`, then `use {other}`"


def in_programs(spec: ModelSpec) -> str:
    """Returns what to know and to call before ``Predictor`` is shown real pictures; empty for all other weights."""
    other = spec.for_real_pictures
    if other is None:
        return ""
    return f'{_facts(spec.name)} type `{download_command(other)}`, then call Predictor.from_name("{other}")'


def in_options(spec: ModelSpec) -> str:
    """Returns what to know and to type before ``clip-seg`` is shown real pictures; empty for all other weights."""
    other = spec.for_real_pictures
    return "" if other is None else f"{_facts(spec.name)} type `{download_command(other)}`, then add `--model {other}`"


def in_corner(spec: ModelSpec) -> str:
    """Returns the short line for pictures and diagnostics; empty for all other weights."""
    return "" if spec.for_real_pictures is None else CORNER


def _facts(name: str) -> str:
    return (
        f"the weights of {name} know the simulated table alone, and on real pictures they are confidently wrong. For "
        "real pictures"
    )
