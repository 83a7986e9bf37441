# SPDX-License-Identifier: Apache-2.0
"""Draws the charts of a report as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from clip_seg_ros.evaluation.metrics.thresholds import SweepScores

_WIDTH, _HEIGHT = 460, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 10, 14, 30
_COLORS = ("#0072b2", "#d55e00", "#009e73")


def sweep_chart(sweep: SweepScores, threshold: float) -> str:
    """Draws mIoU, IoU_FG and IoU_BIN over thresholds, with a line at the threshold in use."""
    curves = (("mIoU", sweep.mean_iou), ("IoU_FG", sweep.foreground_iou), ("IoU_BIN", sweep.binary_iou))
    parts = [_axes("threshold")]
    x = _x(threshold)
    parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_y(0):.1f}" class="mark"/>')
    for (name, curve), color, place in zip(curves, _COLORS, range(3), strict=True):
        known = ~np.isnan(curve)
        points = " ".join(
            f"{_x(t):.1f},{_y(v):.1f}" for t, v in zip(sweep.thresholds[known], curve[known], strict=True)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts.append(f'<text x="{_LEFT + 12 + 80 * place}" y="{_y(0) - 8:.1f}" style="fill:{color}">{name}</text>')
    return _svg(parts, "Scores over thresholds")


def curves_chart(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], labels: tuple[str, str]) -> str:
    """Draws up to three curves of points (x, y), both 0..1, over a dashed diagonal; points with NaN are left out.

    Args:
        curves: The points of each curve, by its name.
        labels: What x and y are; the name of y becomes the title.
    """
    diagonal = f'<line x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}" class="mark"/>'
    parts = [_axes(labels[0]), diagonal]
    for place, ((name, (xs, ys)), color) in enumerate(zip(curves.items(), _COLORS)):
        known = [(x, y) for x, y in zip(xs, ys, strict=True) if not (np.isnan(x) or np.isnan(y))]
        points = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in known)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [f'<circle cx="{_x(x):.1f}" cy="{_y(y):.1f}" r="3" fill="{color}"/>' for x, y in known]
        parts.append(f'<text x="{_LEFT + 12}" y="{_TOP + 14 + 16 * place}" style="fill:{color}">{name}</text>')
    return _svg(parts, labels[1])


def histogram(values: Sequence[float], label: str) -> str:
    """Draws how many values lie in each tenth of 0..1; NaN is left out."""
    known = np.array(values, np.float64)
    counts, _ = np.histogram(known[~np.isnan(known)], bins=10, range=(0, 1))
    most = max(1, counts.max())
    parts = [_axes(label, numbered=False)]
    for place, count in enumerate(counts):
        left, top = _x(place / 10) + 1, _y(0.92 * count / most)
        width, height = _x(0.1) - _x(0) - 2, _y(0) - top
        parts.append(f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" fill="#0072b2"/>')
        if count:
            parts.append(f'<text x="{left + width / 2:.1f}" y="{top - 3:.1f}" text-anchor="middle">{count}</text>')
    return _svg(parts, f"Distribution of {label}")


def _x(value: float) -> float:
    return _LEFT + value * (_WIDTH - _LEFT - _RIGHT)


def _y(value: float) -> float:
    return _HEIGHT - _BOTTOM - value * (_HEIGHT - _TOP - _BOTTOM)


def _axes(label: str, numbered: bool = True) -> str:
    lines = [f'<text x="{_x(0.5):.1f}" y="{_HEIGHT - 2}" text-anchor="middle">{label}</text>']
    for step in range(0, 11, 2):
        value = step / 10
        lines.append(f'<text x="{_x(value):.1f}" y="{_HEIGHT - 16}" text-anchor="middle">{value:.1f}</text>')
        if numbered:
            y = _y(value)
            lines.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
            lines.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.1f}</text>')
    return "".join(lines)


def _svg(parts: Sequence[str], title: str) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{title}">{"".join(parts)}</svg>'
