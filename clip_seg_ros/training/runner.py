# SPDX-License-Identifier: Apache-2.0
"""Runs the stages of a training, with a progress bar, schedules, and a state file that survives a kill at any moment.

Several processes (``training.distributed``) draw the same batches from the same seed, and only the first one writes the
state, the curve and the bar.
"""

from __future__ import annotations

import math
import os
import pickle
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from clip_seg_ros.training import distributed
from clip_seg_ros.training.curve import Curve, LossMeans
from clip_seg_ros.training.optimizer import (
    Decay,
    MixedPrecision,
    Precision,
    Schedule,
    Warmup,
    load_optimizer,
    make_adamw,
    make_sgd,
    set_rates,
)

_SAVE_EVERY_S = 60.0
_REMEDY = "use another folder, or delete the file to start anew"
# Later versions added "scaler", "means" and "best", which a run can do without.
_STATE_KEYS = ("seed", "recipe", "model", "done", "stage", "step", "spent_s", "optimizer")


@dataclass(frozen=True)
class Validation:
    """How a model is scored while it is trained."""

    every: int
    """The number of steps from one score to the next. The last step is scored, too."""
    score: Callable[[], float]
    """Returns the score of the model as it is, the same in every process; more is better. It may set the model to
    evaluation mode; the runner restores each module's mode."""

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"a validation comes every 1 step or more, not every {self.every}")


@dataclass(frozen=True)
class Stage:
    """One part of a recipe."""

    name: str
    steps: int
    learning_rate: float
    weight_decay: float
    trained: nn.Module
    """The module whose parameters are trained, as far as they require gradients."""
    loss: Callable[[np.random.Generator], Mapping[str, torch.Tensor]]
    """Draws a batch from the generator and returns the named terms of the loss; their sum is minimised. The generator
    is the same in every process: ``distributed.share`` returns a process's part of the batch. Each term must be a mean
    over that part, and each process must return the same terms."""
    begin: Callable[[], None] = lambda: None
    """Called before the first step, also when a run resumes in the middle of the stage."""
    warmup: Warmup = field(default_factory=Warmup)
    """How the learning rate first rises; by default it does not."""
    clip_norm: float | None = None
    """The largest norm of the gradient over all parameters; ``None``: no clipping."""
    schedule: Schedule = field(default_factory=Schedule)
    rate_factors: tuple[tuple[str, float], ...] = ()
    """(start of parameters' names in ``trained``, factor on their learning rate); see ``optimizer.make_adamw``."""
    factors_from: int = 0
    """The step from which the factors count; before it, all parameters with a factor above 0 learn at the full rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """The betas of AdamW."""
    momentum: float | None = None
    """The momentum of stochastic gradient descent; ``None``: AdamW."""
    decay: Decay = "all"
    """The parameters to which weight decay applies; see ``optimizer.Decay``."""
    precision: Precision = "float32"
    """The precision of activations, by autocast on the device of ``trained``; float16 scales the loss."""
    accumulation: int = 1
    """The number of batches whose gradients are averaged for one step; ``loss`` is called for each."""
    validation: Validation | None = None
    """Scores the model now and then; the stage then ends with the weights of the best score. By default there is none,
    and it ends with the last weights."""
    before_batch: Callable[[int], None] = lambda number: None
    """Called before each call of ``loss`` with the number of the batch, counted from 0 over the stage, as
    ``sampling.EpochSampler.indices`` needs it."""


@dataclass
class _Course:
    """The objects whose state changes while a stage runs."""

    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    amp: MixedPrecision
    means: LossMeans
    device: torch.device


class Runner:
    """Trains stage after stage and keeps its state in one file.

    Args:
        model: The module that is saved, including parts that a stage does not train.
        state_file: The state file. It is written atomically every minute and after each stage, and read if it exists.
        seed: The seed, which together with the stage and the step determines every random choice.
        recipe: A text for everything else that the run depends on; a run resumes only with the same text.
        log_dir: Folder for the curve of the loss (``curve.Curve``); by default there is none.
        log_every: The number of steps over which a point of the curve is a mean.

    Raises:
        ValueError: The state file is damaged or belongs to another run.
    """

    def __init__(
        self,
        model: nn.Module,
        state_file: Path,
        seed: int,
        recipe: str = "",
        log_dir: Path | None = None,
        log_every: int = 10,
    ) -> None:
        self.model, self.state_file, self.seed = model, state_file, seed
        self._done: dict[str, float] = {}
        self._best: dict[str, Any] = {}
        self._recipe = recipe
        self._log_dir, self._log_every = log_dir, log_every
        # Only the first process may have access to the file, on a disk of its machine.
        self._state: dict[str, Any] = distributed.broadcast_object(self._load)
        if self._state:
            try:
                model.load_state_dict(self._state["model"])
            except RuntimeError as error:
                raise ValueError(f"{state_file} holds another model ({error}): {_REMEDY}") from error
            self._done = self._state["done"]

    def _load(self) -> dict[str, Any]:
        if not self.state_file.exists():
            return {}
        try:
            state = torch.load(self.state_file, map_location="cpu", weights_only=True)
            missing = [key for key in _STATE_KEYS if key not in state]
        except (OSError, EOFError, RuntimeError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise ValueError(f"{self.state_file} is no training state that can be read: {_REMEDY}") from error
        if missing:
            lacking = ", ".join(missing)
            raise ValueError(f"{self.state_file} was written by another version and lacks {lacking}: {_REMEDY}")
        if state["seed"] != self.seed:
            raise ValueError(
                f"{self.state_file} belongs to a run with seed {state['seed']}, not {self.seed}: {_REMEDY}"
            )
        if state["recipe"] != self._recipe:
            raise ValueError(f"{self.state_file} belongs to a run with another recipe: {_REMEDY}")
        return state

    @property
    def seconds(self) -> dict[str, float]:
        """The wall time of every finished stage in seconds."""
        return dict(self._done)

    def run(self, stage: Stage) -> None:
        """Runs ``stage`` or resumes it; for a finished stage it returns at once.

        Raises:
            ValueError: The state belongs to other parameters, or the stage's settings do not fit its module.
            FloatingPointError: The loss is not a number, or infinite.
            distributed.ProcessLost: another process stopped.
        """
        if stage.name in self._done:
            return
        stage.begin()
        distributed.broadcast_module(self.model)
        course, first, spent = self._resume(stage)
        curve = None
        if self._log_dir is not None and distributed.rank() == 0:
            curve = Curve(self._log_dir, stage.name, first, self._done)
        try:
            self._steps(stage, course, first, spent, curve)
        finally:
            if curve is not None:
                curve.close()

    def _resume(self, stage: Stage) -> tuple[_Course, int, float]:
        """Returns the course of ``stage``, the step at which it resumes, and the seconds that it took so far."""
        state = self._state if self._state.get("stage") == stage.name else {}
        self._state = {}
        self._best = state.get("best", {})
        parameters = [p for p in stage.trained.parameters() if p.requires_grad]
        if stage.momentum is None:
            optimizer = make_adamw(stage.trained, stage.weight_decay, stage.rate_factors, stage.betas, stage.decay)
        else:
            optimizer = make_sgd(stage.trained, stage.weight_decay, stage.momentum, stage.rate_factors, stage.decay)
        device = parameters[0].device
        amp = MixedPrecision(stage.precision, device)
        if state:
            try:
                load_optimizer(optimizer, state["optimizer"])
                amp.load_state_dict(state.get("scaler", {}))
            except (ValueError, KeyError, RuntimeError) as error:
                raise ValueError(f"{self.state_file} does not fit stage {stage.name!r} ({error}): {_REMEDY}") from error
        course = _Course(parameters, optimizer, amp, LossMeans(state.get("means")), device)
        return course, state.get("step", 0), state.get("spent_s", 0.0)

    def _steps(self, stage: Stage, course: _Course, first: int, spent: float, curve: Curve | None) -> None:
        started = saved = time.monotonic()
        means = course.means
        bar = tqdm(
            range(first, stage.steps),
            initial=first,
            total=stage.steps,
            desc=stage.name,
            mininterval=2.0,
            disable=distributed.rank() != 0,
        )
        for step in bar:
            rate = self._step(stage, step, course)
            bar.set_postfix({name: f"{value:.3f}" for name, value in means.running.items()}, refresh=False)
            if (step + 1) % self._log_every == 0 or step + 1 == stage.steps:
                terms = means.take()
                if curve is not None:
                    curve.add(step, rate, terms)
            if stage.validation is not None:
                self._validate(stage, step, curve)
            now = time.monotonic()
            if distributed.decided_by_first(now - saved > _SAVE_EVERY_S, course.device):
                if curve is not None:
                    curve.flush()
                self._save(stage.name, step + 1, course, spent + now - started)
                saved = now
        if curve is not None:
            curve.flush()
        if self._best:
            self.model.load_state_dict(self._best["model"])
            self._best = {}
        self._done[stage.name] = spent + time.monotonic() - started
        self._save("", 0, None, 0.0)

    def _step(self, stage: Stage, step: int, course: _Course) -> float:
        """Takes one step and returns its learning rate."""
        # The bytes of the name make stages draw differently; unlike hash(), they are the same in every process.
        entropy = [self.seed, step, *stage.name.encode()]
        rng = np.random.default_rng(entropy)
        torch.manual_seed(int(rng.integers(2**31)) + distributed.rank())
        warm, schedule = stage.warmup.share(step), stage.schedule
        share = schedule.share(step, stage.steps)
        rate = warm * (schedule.least + (stage.learning_rate - schedule.least) * share)
        with_factors = step >= stage.factors_from
        set_rates(course.optimizer, warm * stage.learning_rate, share, warm * schedule.least, with_factors)
        course.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        for part in range(stage.accumulation):
            stage.before_batch(step * stage.accumulation + part)
            with course.amp.autocast():
                terms = stage.loss(rng)
                total = sum(terms.values())
            # All terms take one transfer from the device, and one message between processes.
            latest = distributed.mean(torch.stack([value.detach().float().reshape(()) for value in terms.values()]))
            for name, value in zip(terms, latest.tolist(), strict=True):
                sums[name] = sums.get(name, 0.0) + value / stage.accumulation
            if not math.isfinite(sum(sums.values())):
                loss = sum(latest.tolist())
                raise FloatingPointError(f"the loss of stage {stage.name!r} is {loss} at step {step}")
            course.amp.backward(total / stage.accumulation)
        distributed.average_gradients(course.parameters)
        course.amp.step(course.optimizer, course.parameters, stage.clip_norm)
        course.means.add(sums)
        return rate

    def _validate(self, stage: Stage, step: int, curve: Curve | None) -> None:
        """Scores the model if it is time to, and keeps its weights if none were better."""
        if (step + 1) % stage.validation.every and step + 1 != stage.steps:
            return
        distributed.average_statistics(self.model)
        modes = {module: module.training for module in self.model.modules()}
        score = stage.validation.score()
        for module, training in modes.items():
            module.training = training
        if math.isnan(score):
            raise ValueError(f"the validation of stage {stage.name!r} has nothing to measure: use other samples for it")
        # As CRIS's authors do, a later one of two equal scores counts.
        if not self._best or score >= self._best["score"]:
            state = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}
            self._best = {"score": score, "step": step, "model": state}
        if distributed.rank() == 0:
            best = f"the best is {self._best['score']:.4f} of step {self._best['step'] + 1}"
            tqdm.write(f"{stage.name}: {score:.4f} at step {step + 1}; {best}")
        if curve is not None:
            curve.add_score(step, score)

    def _save(self, stage: str, step: int, course: _Course | None, spent_s: float) -> None:
        distributed.average_statistics(self.model)
        if distributed.rank() != 0:
            return
        state = {
            "seed": self.seed,
            "recipe": self._recipe,
            "model": self.model.state_dict(),
            "done": self._done,
            "stage": stage,
            "step": step,
            "spent_s": spent_s,
            "optimizer": course.optimizer.state_dict() if course else None,
            "scaler": course.amp.state_dict() if course else {},
            "means": course.means.state_dict() if course else {},
            "best": self._best,
        }
        self.state_file.parent.mkdir(parents=True, exist_ok=True)
        beside = self.state_file.with_suffix(".part")
        with beside.open("wb") as file:
            torch.save(state, file)
            # It is flushed to the disk before it replaces the old one, because the whole machine may stop.
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, self.state_file)
