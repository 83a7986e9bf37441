# SPDX-License-Identifier: Apache-2.0
"""``clip-seg evaluate --corruption all``: a table of one figure over corruptions and their levels."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any

from clip_seg_ros.evaluation.corruptions import LEVELS, CorruptedImages, Corruption
from clip_seg_ros.evaluation.pages.report import Evaluation
from clip_seg_ros.evaluation.suite import Figure

_NONE = "none"


def evaluate_corrupted(
    args: argparse.Namespace, dataset: Any, corruptions: Sequence[Corruption], measure: Callable[[Any], Evaluation]
) -> None:
    """Measures a model on the images as they are and with each corruption, prints a table and writes it as JSON.

    Args:
        args: The options of the command.
        dataset: Any data set.
        corruptions: What to measure.
        measure: Returns the figures of a data set; the first one goes into the table.
    """
    plain = measure(dataset).figures[0]
    values: dict[tuple[str, int], float] = {}
    rows = [_row(_NONE, 0, plain)]
    for corruption in corruptions:
        print(f"{corruption.name}, level {corruption.level}", flush=True)
        figure = measure(CorruptedImages(dataset, corruption)).figures[0]
        values[corruption.name, corruption.level] = figure.value
        rows.append(_row(corruption.name, corruption.level, figure))
    print(corruption_table(plain, values))
    if args.json:
        run = {"model": args.model, "data": args.data, "samples": args.limit}
        args.json.write_text(json.dumps({"run": run, "corruptions": rows}, indent=2) + "\n", encoding="utf-8")


def corruption_table(plain: Figure, values: dict[tuple[str, int], float]) -> str:
    """Formats one figure: a row for each corruption, a column for each level, and the mean over the levels.

    Args:
        plain: The figure of the images as they are.
        values: The figure by (name of the corruption, level).
    """
    lines = [f"{plain.name} ({plain.unit}); without corruption {plain.value:.4f}"]
    lines.append(f"{'level':<18}" + "".join(f"{level:>9}" for level in LEVELS) + f"{'mean':>9}")
    for name in dict.fromkeys(name for name, _ in values):
        row = [values.get((name, level)) for level in LEVELS]
        there = [value for value in row if value is not None]
        cells = "".join(f"{'':>9}" if value is None else f"{value:>9.4f}" for value in row)
        lines.append(f"{name:<18}{cells}{sum(there) / len(there):>9.4f}")
    return "\n".join(lines)


def _row(name: str, level: int, figure: Figure) -> dict[str, Any]:
    return {"corruption": name, "level": level, "figure": figure.name, "value": round(figure.value, 4)}
