# SPDX-License-Identifier: Apache-2.0
"""Reports the demo's answers: as a table for people, and as dictionaries for programs.

A reply has the measurements of ``nodes.observers.demo_observer`` for one command; its entry ``measured`` has one
dictionary per prompt.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

_HEADINGS = ("prompt", "in the scene", "found", "score", "IoU", "centroid px", "error px", "position m", "error m")


def is_right(reply: dict[str, Any]) -> bool:
    """Returns whether all present objects were found, and no absent ones, as far as the ground truth is known."""
    known = [item for item in reply["measured"] if item["present"] is not None]
    return all((item["found"] > 0) == (item["present"] > 0) for item in known)


def table(reply: dict[str, Any]) -> str:
    """Formats the answer beside the ground truth, one line per prompt."""
    rows = [_HEADINGS]
    for item in reply["measured"]:
        rows.append(
            (
                item["prompt"],
                "?" if item["present"] is None else str(item["present"] or "none"),
                str(item["found"] or "not found"),
                _number(item["score"], 2),
                _number(item["iou"], 2),
                _vector(item["centroid_px"], 1),
                _number(item["centroid_error_px"], 1),
                _vector(item["position_m"], 3),
                _number(item["position_error_m"], 3),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def report(command: str, seed: int, reply: dict[str, Any]) -> dict[str, Any]:
    """Summarises one answer. With several prompts, "found" says whether all were found; errors and IoU are means."""
    measured = reply["measured"]
    return {
        "command": command,
        "found": all(item["found"] > 0 for item in measured),
        "iou": _mean(measured, "iou"),
        "centroid_error_px": _mean(measured, "centroid_error_px"),
        "position_error_m": _mean(measured, "position_error_m"),
        "latency_ms": reply["latency_ms"],
        "prompts": reply["prompts"],
        "seed": seed,
    }


def figures(reports: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns counts and medians over reports, as ``{"name", "value", "unit"}``, without those never measured."""
    result = [
        {"name": "demo.scenes", "value": len(reports), "unit": "scenes"},
        {"name": "demo.found", "value": sum(item["found"] for item in reports), "unit": "scenes"},
    ]
    for key, unit in (("iou", "IoU"), ("centroid_error_px", "px"), ("position_error_m", "m"), ("latency_ms", "ms")):
        values = [item[key] for item in reports if item[key] is not None]
        if values:
            result.append({"name": f"demo.median_{key}", "value": round(statistics.median(values), 4), "unit": unit})
    return result


def _mean(measured: Sequence[dict[str, Any]], key: str) -> float | None:
    values = [item[key] for item in measured if item[key] is not None]
    return statistics.fmean(values) if values else None


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _vector(values: Sequence[float] | None, digits: int) -> str:
    return "-" if values is None else "(" + ", ".join(f"{value:.{digits}f}" for value in values) + ")"
