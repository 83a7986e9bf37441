# SPDX-License-Identifier: Apache-2.0
"""Reports an evaluation to programs and terminals: as JSON, and as tables in plain text."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from clip_seg_ros import resources
from clip_seg_ros.evaluation.instances import InstanceEvaluation
from clip_seg_ros.evaluation.metrics.thresholds import SweepScores
from clip_seg_ros.evaluation.protocols import PhraseEvaluation, SemanticEvaluation

Evaluation = PhraseEvaluation | SemanticEvaluation | InstanceEvaluation
_TABLE_STEP = 0.1
"""The step between the thresholds in a printed sweep."""


def package_version() -> str:
    """Returns the version in ``package.xml``. Raises FileNotFoundError if the installation lacks that file."""
    manifest = (resources.share_dir() / "package.xml").read_text(encoding="utf-8")
    return re.search(r"<version>\s*([^<\s]+)\s*</version>", manifest)[1]


def write_json(path: Path, run: Mapping[str, Any], evaluation: Evaluation) -> None:
    """Writes figures, curves and samples as JSON; NaN becomes null.

    Args:
        path: Path of the file.
        run: Description of the run, plain values.
        evaluation: Results of the run.

    Raises:
        OSError: The file cannot be written.
    """
    content: dict[str, Any] = {
        "run": {"package": resources.PACKAGE, "version": package_version(), **run},
        "figures": [asdict(figure) for figure in evaluation.figures],
    }
    if isinstance(evaluation, SemanticEvaluation):
        content["classes"] = [
            {"name": name, "iou": iou, "accuracy": accuracy}
            for name, iou, accuracy in zip(evaluation.class_names, evaluation.class_iou, evaluation.class_accuracy)
        ]
    elif isinstance(evaluation, InstanceEvaluation):
        pairs = zip(evaluation.class_names, evaluation.class_ap50)
        content["classes"] = [{"name": name, "ap50": value} for name, value in pairs]
    elif evaluation.sweep is not None:
        content["sweep"] = sweep_columns(evaluation.sweep)
    content["samples"] = [asdict(sample) for sample in evaluation.samples]
    path.write_text(json.dumps(_plain(content), indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


def sweep_columns(sweep: SweepScores) -> dict[str, list[float]]:
    """Returns the curves of a sweep by name, each as long as ``threshold``."""
    return {
        "threshold": sweep.thresholds.tolist(),
        "mean_iou": sweep.mean_iou.tolist(),
        "iou_fg": sweep.foreground_iou.tolist(),
        "iou_bin": sweep.binary_iou.tolist(),
        "precision": sweep.counts.precision.tolist(),
        "recall": sweep.counts.recall.tolist(),
    }


def sweep_table(sweep: SweepScores) -> str:
    """Lists the thresholds 0.1, 0.2 and so on, and those at which a kind of IoU is best, which a star marks."""
    columns = sweep_columns(sweep)
    best = {name: sweep.best(np.array(columns[name]))[1] for name in ("mean_iou", "iou_fg", "iou_bin")}
    titles = ("threshold", "mIoU", "IoU_FG", "IoU_BIN", "precision", "recall")
    lines = ["  ".join(f"{title:>9} " for title in titles).rstrip()]
    for row, threshold in enumerate(columns["threshold"]):
        tenth = abs(threshold / _TABLE_STEP - round(threshold / _TABLE_STEP)) < 1e-6
        if not tenth and threshold not in best.values():
            continue
        cells = [f"{threshold:>9.2f} "]
        for name in list(columns)[1:]:
            star = "*" if best.get(name) == threshold else " "
            cells.append(f"{columns[name][row]:>9.4f}{star}")
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def class_table(evaluation: SemanticEvaluation) -> str:
    """Lists the classes that were labelled or answered, one per line, the worst first."""
    rows = worst_classes(evaluation)
    width = max((len(name) for name, _, _ in rows), default=0)
    lines = [f"{'class':<{width}}  {'IoU':>6}  {'accuracy':>8}"]
    lines += [f"{name:<{width}}  {iou:>6.4f}  {_number(accuracy):>8}" for name, iou, accuracy in rows]
    return "\n".join(lines)


def precision_table(evaluation: InstanceEvaluation) -> str:
    """Lists the classes with objects and their average precision at IoU 0.5, one per line, the worst first."""
    pairs = zip(evaluation.class_names, evaluation.class_ap50.tolist())
    rows = sorted((pair for pair in pairs if not math.isnan(pair[1])), key=lambda pair: pair[1])
    width = max((len(name) for name, _ in rows), default=5)
    return "\n".join([f"{'class':<{width}}  {'AP50':>6}", *(f"{name:<{width}}  {value:>6.4f}" for name, value in rows)])


def figure_table(evaluation: Evaluation) -> str:
    """Lists the figures, one per line: name, value and unit."""
    return "\n".join(f"{figure.name:<32} {_number(figure.value):>9}  {figure.unit}" for figure in evaluation.figures)


def worst_classes(evaluation: SemanticEvaluation) -> list[tuple[str, float, float]]:
    """Returns (name, IoU, accuracy) of the classes that were labelled or answered, the lowest IoU first."""
    rows = zip(evaluation.class_names, evaluation.class_iou.tolist(), evaluation.class_accuracy.tolist())
    return sorted((row for row in rows if not math.isnan(row[1])), key=lambda row: row[1])


def confusions(evaluation: SemanticEvaluation, most: int = 12) -> list[tuple[str, str, float]]:
    """Returns (true class, answered class, share of the true class's pixels), those with the most pixels first."""
    counts = evaluation.confusion.copy()
    areas = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:most]
    pairs = [divmod(int(place), len(areas)) for place in order if counts.flat[place]]
    names = evaluation.class_names
    return [(names[true], names[answer], float(counts[true, answer] / areas[true])) for true, answer in pairs]


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def _plain(value: Any) -> Any:
    """Converts a value for JSON: numpy's floats become Python's, NaN becomes null, floats have six decimals."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return None if math.isnan(value) else round(float(value), 6)
    return value
