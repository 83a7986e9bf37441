# SPDX-License-Identifier: Apache-2.0
"""Writes the page of a calibration: how often the pixels of a probability are right, before and after it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from clip_seg_ros.evaluation.calibrating import LOGITS, Asked, reliability
from clip_seg_ros.evaluation.pages import charts
from clip_seg_ros.evaluation.pages.style import STYLE
from clip_seg_ros.models.calibration import Calibration

_SHOWN = 100
"""The number of points of the curve over thresholds."""


def write_reliability_page(
    folder: Path,
    lines: Sequence[str],
    asked: Sequence[Asked],
    before: Calibration,
    after: Calibration,
    threshold: float,
) -> Path:
    """Writes ``index.html``, which loads nothing from elsewhere, and returns its path.

    Args:
        folder: Folder for the page, created if missing.
        lines: What was calibrated, and the figures.
        asked: The answers.
        before: The calibration until now.
        after: The new one.
        threshold: The new threshold.
    """
    folder.mkdir(parents=True, exist_ok=True)
    points = {}
    for name, each in (("before", before), ("after", after)):
        predicted, right, _ = reliability(asked, each.temperature)
        points[name] = (list(predicted), list(right))
    diagram = charts.curves_chart(points, ("probability of a pixel", "share of such pixels that are right"))
    scores = np.stack([each.scores() for each in asked])
    absent = np.array([each.is_absent for each in asked])
    probabilities = 1 / (1 + np.exp(-LOGITS / after.temperature))
    shown = np.linspace(0, len(LOGITS) - 1, _SHOWN).astype(int)
    curves = {}
    for name, rows in (("mean IoU", scores[~absent]), ("absent phrases not answered", scores[absent])):
        if len(rows):
            curves[name] = (list(probabilities[shown]), list(rows.mean(axis=0)[shown]))
    sweep = charts.curves_chart(curves, (f"threshold (now {threshold:.3f})", "scores over thresholds"))
    text = "".join(f'<p class="run">{escape(line)}</p>' for line in lines)
    own = "".join(
        f"<tr><td>{escape(phrase)}</td><td>{each:.3f}</td></tr>" for phrase, each in sorted(after.thresholds.items())
    )
    table = f"<h2>Phrases with thresholds of their own</h2><table>{own}</table>" if own else ""
    page = folder / "index.html"
    page.write_text(
        f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>Calibration</title><style>{STYLE}</style>'
        f"<h1>Calibration</h1>{text}"
        f'<div class="summary"><div><h2>Reliability</h2>{diagram}</div><div><h2>Thresholds</h2>{sweep}</div></div>'
        f"{table}"
        "</html>\n",
        encoding="utf-8",
    )
    return page
