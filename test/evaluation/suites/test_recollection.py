# SPDX-License-Identifier: Apache-2.0
"""The suite of the memory with models that answer the truth, nothing, and lies."""

from __future__ import annotations

from dataclasses import replace

from clip_seg_ros.evaluation.suites.recollection import is_in_view, run_with
from clip_seg_ros.types import ObjectRegion

SEEDS = range(4000, 4004)


def truth(camera, kinds, frame):
    labels = frame.view.labels
    return [
        ObjectRegion.of_mask(item.kind, label, 0.9, labels == label)
        for label, item in enumerate(frame.view.objects, start=1)
        if is_in_view(frame, label)
    ]


def values_of(ask):
    notes = []
    values = {figure.name.removeprefix("memory."): figure.value for figure in run_with(ask, SEEDS, say=notes.append)}
    return values, notes


def test_with_true_masks_nearly_everything_is_right():
    values, notes = values_of(truth)
    assert values["objects"] > 15
    assert values["moved"] > 0
    assert values["taken"] > 0
    assert values["ceiling"] > 0.95
    assert values["recalled"] >= values["ceiling"] - 0.05, notes
    assert values["false"] <= 0.02, notes
    assert values["merged"] == 1
    assert values["moved_updated"] == values["moved_ceiling"] == values["taken_forgotten"] == 1, notes


def test_a_blind_model_remembers_nothing():
    values, notes = values_of(lambda *_: [])
    assert values["recalled"] == values["ceiling"] == values["false"] == values["moved"] == 0
    assert all(note.endswith("the model never found it") for note in notes)


def test_a_model_that_confuses_names_remembers_what_is_not_there():
    def liar(camera, kinds, frame):
        names = {kind: kinds[(index + 1) % len(kinds)] for index, kind in enumerate(kinds)}
        return [replace(region, prompt=names[region.prompt]) for region in truth(camera, kinds, frame)]

    values, notes = values_of(liar)
    assert values["false"] > 0.9
    assert values["recalled"] < 0.1
    assert any("nothing is where" in note for note in notes)
