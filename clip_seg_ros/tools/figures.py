# SPDX-License-Identifier: Apache-2.0
"""Figures as a table for people."""

from __future__ import annotations

from collections.abc import Iterable

from clip_seg_ros.evaluation.suite import Figure


def figure_table(figures: Iterable[Figure]) -> str:
    """Formats figures under a heading for each suite and model, sorted by name."""
    groups: dict[str, list[Figure]] = {}
    for figure in sorted(figures, key=lambda figure: figure.name):
        suite, _, rest = figure.name.partition(".")
        model = rest.partition(".")[0] if "." in rest else ""
        groups.setdefault(f"{suite}.{model}".rstrip("."), []).append(figure)
    lines = []
    for heading, members in groups.items():
        lines += ["", heading]
        lines += [
            f"  {figure.name.removeprefix(f'{heading}.'):<40} {figure.value:>9}  {figure.unit}" for figure in members
        ]
    return "\n".join(lines[1:])
