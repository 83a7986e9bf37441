# SPDX-License-Identifier: Apache-2.0
"""What a job asks for, and what its models refuse, without an image."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clip_seg_ros.annotation.answering import Answering, checked_models, config_of
from clip_seg_ros.annotation.job import Job, Phrase, Source
from clip_seg_ros.pipeline.space.understanding import FAINT


def job_of(*phrases, model="clipseg-pocket", **values):
    source = Source("table", "table.mcap")
    return Job("out", (source,), phrases, model=model, engine="eager", precision="float32", **values)


@pytest.mark.parametrize(
    ("phrases", "wanted"),
    [
        ((Phrase("cup", 0.9), Phrase("cup left of the box")), {"cup": 0.9, "cup left of the box": 0.9}),
        ((Phrase("cup left of the box"),), {"cup left of the box": FAINT}),
    ],
)
def test_margins_are_from_the_threshold_that_was_asked(phrases, wanted):
    job = job_of(*phrases)
    answering = Answering(job, job.sources[0], is_still=True)
    assert {each.text: answering._threshold(each.text) for each in phrases} == wanted


def test_a_phrase_that_a_model_refuses_ends_the_run_with_its_classes():
    with pytest.raises(ValueError, match=r'"spaceship" is not one of the .* classes of denseclip-pocket: '):
        checked_models(job_of(Phrase("spaceship"), model="denseclip-pocket"))


def test_each_source_is_remembered_for_a_time_of_its_own():
    job = job_of(Phrase("cup"))
    slow = replace(job.sources[0], track_age_s=10.0)
    assert [config_of(job, each).track_age_s for each in (job.sources[0], slow)] == [2.0, 10.0]
