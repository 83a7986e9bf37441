# SPDX-License-Identifier: Apache-2.0
"""Hostile messages: the node lives, answers rightly, and neither its memory nor its log grows without end."""

from __future__ import annotations

import json

import pytest

from fuzz import Trial, table

MESSAGES = {"referring": 1500, "referring_idle": 500, "referring_compressed": 750, "semantic": 750}
MORE_MB = 400
"""Far more than a node's memory varies with the sizes of its images, far less than a leak of images would come to."""
LINES_A_MINUTE = 200
"""Of info, warning and error 60 each, and what says how many more there were."""


@pytest.mark.parametrize("name", MESSAGES)
def test_hostile_messages_cost_nothing(ros, view, name, tmp_path, record_property):
    trial = Trial(name, view, tmp_path / "log", seed=7)
    try:
        samples = trial.run(MESSAGES[name], MESSAGES[name] // 2)
    finally:
        code = trial.close()
    report = table(name, samples)
    record_property("samples", json.dumps([vars(sample) for sample in samples]))
    assert code == 0, trial.said()[-3000:]
    assert "Traceback" not in trial.said(), trial.said()[-3000:]
    first, *_, last = samples
    assert last.memory_mb < first.memory_mb + MORE_MB, report
    assert last.threads < first.threads + 8, report
    assert last.descriptors < first.descriptors + 8, report
    assert last.log_lines < LINES_A_MINUTE * (2 + last.seconds / 60), report
