# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from xml.etree import ElementTree

import numpy as np

from clip_seg_ros.evaluation.metrics.thresholds import ThresholdSweep
from clip_seg_ros.evaluation.pages.charts import histogram, sweep_chart


def test_bars_count_values_and_leave_nan_out() -> None:
    chart = ElementTree.fromstring(histogram([0.05, 0.07, 0.95, 1.0, 1.0, float("nan")], "IoU"))
    heights = [float(bar.get("height")) for bar in chart.iter("rect")]
    assert len(heights) == 10
    assert heights[0] > 0
    assert heights[9] == max(heights)
    assert not any(heights[1:9])
    assert abs(heights[0] / heights[9] - 2 / 3) < 0.01
    assert ElementTree.fromstring(histogram([], "IoU")) is not None


def test_the_curves_rise_and_fall_as_the_scores_do() -> None:
    sweep = ThresholdSweep()
    rng = np.random.default_rng(0)
    mask = rng.random((40, 40)) < 0.5
    sweep.add(np.clip(0.5 * mask + 0.5 * rng.random((40, 40)), 0, 1), mask)
    scores = sweep.scores()
    lines = list(ElementTree.fromstring(sweep_chart(scores, 0.3)).iter("polyline"))
    for line, curve in zip(lines, (scores.mean_iou, scores.foreground_iou, scores.binary_iou), strict=True):
        height = [float(point.split(",")[1]) for point in line.get("points").split()]
        assert len(height) == 49
        # Downwards on the page; rounded to a tenth of a pixel.
        assert height[int(np.argmax(curve))] <= min(height) + 0.1
