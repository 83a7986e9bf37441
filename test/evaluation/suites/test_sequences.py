# SPDX-License-Identifier: Apache-2.0
import numpy as np

from clip_seg_ros.evaluation.suites import sequences as sequence_suite
from clip_seg_ros.evaluation.suites.sequences import VARIANTS, run_sequences
from clip_seg_ros.pipeline.predictor import Predictor


def test_every_variant_gets_every_figure_and_memory_helps():
    figures = run_sequences(Predictor.from_name("clipseg-pocket", "cpu", engine="eager"), 1, 16)
    values = {figure.name: figure.value for figure in figures}
    keys = {name.split(".")[2] for name in values}
    assert len(values) == len(VARIANTS) * len(keys) == 3 * 6
    for name in VARIANTS:
        assert 0.5 < values[f"sequences.{name}.found"] <= 1
        assert values[f"sequences.{name}.mean_iou"] > 0.5
        assert 0 < values[f"sequences.{name}.position_error"] < 30
    assert values["sequences.tracked.switches_per_1000"] <= values["sequences.plain.switches_per_1000"]
    assert values["sequences.steady.flicker"] < values["sequences.plain.flicker"] == values["sequences.tracked.flicker"]


def test_small_objects_are_not_asked_for():
    class View:
        labels = np.zeros((100, 100), np.uint8)
        objects = tuple(type("Object", (), {"kind": kind}) for kind in ("cup", "ball"))

    View.labels[:30, :30], View.labels[50, 50:60] = 1, 2
    frame = type("Frame", (), {"view": View, "positions_m": {1: (0.0, 0.0, 1.0)}})
    cup, ball = sequence_suite._truth(frame)
    assert cup.mask.sum() == 900
    assert cup.position_m == (0.0, 0.0, 1.0)
    assert not ball.mask.any()
    assert ball.position_m is None
