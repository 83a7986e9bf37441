# SPDX-License-Identifier: Apache-2.0
"""What is "auto" is settled before the first image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from clip_seg_ros.annotation.job import Job, Phrase
from clip_seg_ros.annotation.serving import forget_models, model_facts, resolved, resolved_for_gpus

ASKED = Job("out", (), (Phrase("cup"),), model="clipseg-pocket", second_model="clipseg-pocket")


@pytest.fixture(autouse=True)
def no_models_of_others() -> Iterator[None]:
    forget_models()
    yield
    forget_models()


def test_the_device_is_settled_too() -> None:
    job = resolved(replace(ASKED, engine="eager"))
    assert job.device == ("cuda" if torch.cuda.is_available() else "cpu")
    assert job.precision == "float32"


def test_what_runs_on_gpus_is_decided_without_one() -> None:
    job = resolved_for_gpus(ASKED)
    assert (job.device, job.engine, job.precision) == ("cuda", "eager", "float32")
    facts = model_facts(job)
    forget_models()
    assert facts == model_facts(replace(job, device="cpu"))


def test_what_cannot_be_decided_without_a_gpu_must_be_named() -> None:
    with pytest.raises(ValueError, match="name it with --precision"):
        resolved_for_gpus(replace(ASKED, engine="cuda_graph"))
    named = resolved_for_gpus(replace(ASKED, engine="cuda_graph", precision="float16", device="cuda:1"))
    assert (named.device, named.engine, named.precision) == ("cuda:1", "cuda_graph", "float16")
