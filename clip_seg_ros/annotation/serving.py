# SPDX-License-Identifier: Apache-2.0
"""The models of a run: which ones they are, and each loaded once in a process."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import torch

from clip_seg_ros.annotation.job import Job
from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.runtime.devices import PRECISIONS, resolve_device
from clip_seg_ros.zoo.caution import in_options
from clip_seg_ros.zoo.factory import full_name

_Key = tuple[str, str, str, str, int]
_loaded: dict[_Key, Predictor] = {}


def resolved(job: Job) -> Job:
    """Returns a job without "auto": with the names of its models, the device, and the engine that is the fastest here.

    Another process or machine would measure otherwise, and give other digits.

    Raises:
        ValueError: There is no such model, engine or device.
        WeightsError: The weights of a model are missing or damaged, or there is too little memory for them.
    """
    name = full_name(job.model)
    second = None if job.second_model is None else full_name(job.second_model)
    model = _load(name, job.device, job.engine, job.precision, job.threads)
    chosen = model.chosen
    # Where the device is left open, OpenVINO takes the processor.
    device = str(resolve_device("cpu" if (job.device, job.engine) == ("auto", "openvino") else job.device))
    known = replace(
        job, model=name, second_model=second, device=device, engine=chosen.engine, precision=chosen.precision
    )
    _loaded[_key(known)] = model
    return known


def resolved_for_gpus(job: Job) -> Job:
    """Returns a job without "auto" for workers that have GPUs, which this machine need not have.

    PyTorch runs its models unless another engine is named. In this process, models are only asked what they are.

    Raises:
        ValueError: There is no such model, or a precision must be named.
        WeightsError: The weights of a model are missing or damaged.
    """
    if job.engine not in ("auto", "eager") and job.precision == "auto":
        raise ValueError(
            f"the precision in which {job.engine} is right cannot be measured for GPUs of other machines: "
            "name it with --precision, or leave out --engine"
        )
    name = full_name(job.model)
    second = None if job.second_model is None else full_name(job.second_model)
    engine = "eager" if job.engine == "auto" else job.engine
    precision = job.precision if engine != "eager" or job.precision in PRECISIONS else "float32"
    device = "cuda" if job.device == "auto" else job.device
    known = replace(job, model=name, second_model=second, device=device, engine=engine, precision=precision)
    _loaded[_key(known)] = _load(name, "cpu", "eager", "float32", job.threads)
    if second is not None:
        _loaded[_second_key(known, second)] = _load(second, "cpu", "eager", "float32", job.threads)
    return known


def check_names(job: Job) -> None:
    """Raises what ``resolved`` raises if there are no such models, without loading them."""
    full_name(job.model)
    if job.second_model is not None:
        full_name(job.second_model)


def model_of(job: Job) -> Predictor:
    """Returns the model of a resolved job. Raises what ``resolved`` raises."""
    return _of(_key(job))


def second_model_of(job: Job) -> Predictor | None:
    """Returns the second model, if the job has one; PyTorch runs it. Raises what ``resolved`` raises."""
    if job.second_model is None:
        return None
    return _of(_second_key(job, job.second_model))


def model_facts(job: Job) -> list[dict[str, Any]]:
    """Returns the names of the models of a resolved job, and the hashes of their weights, for its manifest."""
    models = [model_of(job)]
    if (second := second_model_of(job)) is not None:
        models.append(second)
    return [
        {"name": model.spec.name, "weights": model.engine.fingerprint(), "threshold": model.spec.threshold}
        for model in models
    ]


def cautions(job: Job) -> list[str]:
    """Returns what the model of a resolved job does not know, for people."""
    spec = model_of(job).spec
    found = [in_options(spec)] if in_options(spec) else []
    for phrase in job.phrases:
        if unknown := spec.unknown_words(phrase.text):
            found.append(f'{spec.name} never learnt {", ".join(unknown)} of "{phrase.text}"')
    return found


def forget_models() -> None:
    """Frees the memory of all models; they are loaded anew when they are needed."""
    _loaded.clear()


def _key(job: Job) -> _Key:
    return job.model, job.device, job.engine, job.precision, job.threads


def _second_key(job: Job, name: str) -> _Key:
    return name, job.device, "eager", "float32", job.threads


def _of(key: _Key) -> Predictor:
    if key not in _loaded:
        _loaded[key] = _load(*key)
    return _loaded[key]


def _load(name: str, device: str, engine: str, precision: str, threads: int) -> Predictor:
    # An engine takes over the number of threads when it is made.
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    try:
        return Predictor.from_name(name, device, engine=engine, precision=precision)
    except (RuntimeError, MemoryError) as error:  # those of PyTorch, such as too little memory of a GPU
        raise WeightsError(
            f"{name} cannot be loaded for {device} ({type(error).__name__}: {error}): is there too little memory?"
        ) from error
