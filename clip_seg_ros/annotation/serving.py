# SPDX-License-Identifier: Apache-2.0
"""The models of a run: which ones they are, and each loaded once in a process."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import cv2
import torch

from clip_seg_ros.annotation.job import Job
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.zoo.factory import full_name


def resolved(job: Job) -> Job:
    """Returns a job without "auto": with the names of its models, and with the engine that is the fastest here.

    Another process or machine would measure otherwise, and give other digits.

    Raises:
        ValueError: There is no such model, engine or device.
        WeightsError: The weights of a model are missing or damaged.
    """
    torch.set_num_threads(job.threads)
    name = full_name(job.model)
    chosen = Predictor.from_name(name, job.device, engine=job.engine, precision=job.precision).chosen
    second = None if job.second_model is None else full_name(job.second_model)
    return replace(job, model=name, second_model=second, engine=chosen.engine, precision=chosen.precision)


def model_of(job: Job) -> Predictor:
    """Returns the model of a resolved job. Raises what ``resolved`` raises."""
    return _loaded(job.model, job.device, job.engine, job.precision, job.threads)


def second_model_of(job: Job) -> Predictor | None:
    """Returns the second model, if the job has one; PyTorch runs it. Raises what ``resolved`` raises."""
    if job.second_model is None:
        return None
    return _loaded(job.second_model, job.device, "eager", "float32", job.threads)


@lru_cache(maxsize=2)
def _loaded(name: str, device: str, engine: str, precision: str, threads: int) -> Predictor:
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    return Predictor.from_name(name, device, engine=engine, precision=precision)
