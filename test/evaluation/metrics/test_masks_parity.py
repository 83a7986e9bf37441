# SPDX-License-Identifier: Apache-2.0
"""The metrics against values recorded from the authors' implementations (see test/data/golden/README.md)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from clip_seg_ros.evaluation.metrics.classes import ConfusionMatrix
from clip_seg_ros.evaluation.metrics.referring import MASK_THRESHOLD, ReferringIoU, training_metric
from clip_seg_ros.evaluation.metrics.thresholds import ThresholdSweep, resize_corners_aligned

EXACT = 1e-12
"""Ratios of whole numbers in double precision."""


def test_clipseg_threshold_sweep(recording: Callable) -> None:
    recorded = recording("clipseg_metrics")
    probabilities = 1 / (1 + np.exp(-recorded["in.pred_logits"][:, 0]))
    masks = recorded["in.gt"][:, 0] > 0
    sweep = ThresholdSweep()
    for maps, mask, class_id in zip(probabilities, masks, recorded["in.class_ids"], strict=True):
        sweep.add(resize_corners_aligned(maps, mask.shape), mask, int(class_id))
    scores = sweep.scores()
    counts = scores.counts
    actual: dict[str, object] = {
        "out.thresholds": scores.thresholds,
        "out.ap": scores.average_precision,
        "out.ct": recorded["out.ct"],
        "out.fgiou_scores": scores.foreground_iou,
        "out.biniou_scores": scores.binary_iou,
        "out.mean_iou_scores": scores.mean_iou,
        **{f"out.counts.{name}": getattr(counts, name) for name in ("tp", "fp", "fn", "tn")},
    }
    custom = float(recorded["out.ct"])
    for name, curve in (
        ("fgiou", scores.foreground_iou),
        ("biniou", scores.binary_iou),
        ("miou", scores.mean_iou),
    ):
        actual[f"out.{name}_best"], actual[f"out.{name}_best_t"] = scores.best(curve)
        for threshold in (0.1, 0.2, 0.3, 0.5):
            actual[f"out.{name}_{threshold}"] = scores.at(curve, threshold)
        actual[f"out.{'mean_iou' if name == 'miou' else name}_ct"] = scores.at(curve, custom)
    recorded.check(actual, ("out.",), EXACT)


@pytest.mark.parametrize("reduce_zero_label", [False, True])
def test_mmseg_class_scores(recording: Callable, reduce_zero_label: bool) -> None:
    recorded = recording("mmseg_metrics")
    matrix = ConfusionMatrix(class_count=6, reduce_zero_label=reduce_zero_label)
    for image in (0, 1):
        matrix.add(recorded[f"in.pred{image}"], recorded[f"in.label{image}"])
    scores = matrix.scores()
    values = {
        "aAcc": scores.pixel_accuracy,
        "IoU": scores.iou,
        "Acc": scores.recall,
        "Dice": scores.dice,
        "Fscore": scores.f_score(),
        "Precision": scores.precision,
        "Recall": scores.recall,
        "mIoU": scores.mean_iou,
    }
    prefix = f"out.reduce_zero_label_{reduce_zero_label}."
    recorded.check({prefix + name: value for name, value in values.items()}, (prefix,), EXACT)


def test_cris_sentence_iou_and_precision(recording: Callable) -> None:
    recorded = recording("cris_pre_post_metrics")
    total = ReferringIoU()
    ious = [
        total.add(
            recorded[f"out.{i}.prob_warped_to_original"] > MASK_THRESHOLD,
            recorded[f"in.mask{i}_uint8"] > 0,
        )
        for i in (0, 1)
    ]
    scores = total.scores()
    actual = {
        "out.iou_per_sample": ious,
        "out.iou_mean": scores.mean_iou,
        "out.precision_at_50_60_70_80_90": list(scores.precision_at.values()),
    }
    recorded.check(actual, ("out.iou_", "out.precision_"), EXACT)


def test_cris_training_metric(recording: Callable) -> None:
    recorded = recording("cris_pre_post_metrics")
    scores = training_metric(recorded["in.network_logits"], recorded["in.train_metric_target"])
    actual = {
        "out.train_metric_iou_x100": 100 * scores.mean_iou,
        "out.train_metric_pr50_x100": 100 * scores.precision_at[0.5],
    }
    # Recorded in single precision.
    recorded.check(actual, ("out.train_metric_",), 1e-5)
