"""Runs stages of training: progress bar, learning-rate schedule, a state file that survives a kill at any moment."""

from __future__ import annotations

import math
import os
import pickle
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

_SAVE_EVERY_S = 60.0


@dataclass(frozen=True)
class Stage:
    """One part of a recipe."""

    name: str
    steps: int
    learning_rate: float
    weight_decay: float
    trained: nn.Module
    """Its parameters that require gradients are trained."""
    loss: Callable[[np.random.Generator], Mapping[str, torch.Tensor]]
    """Draws a batch from the generator and returns the named terms of the loss; their sum is minimised."""
    begin: Callable[[], None] = lambda: None
    """Called before the first step, also when a run goes on in the middle of the stage."""
    warmup_steps: int = 100
    clip_norm: float = 1.0


class Runner:
    """Trains stage after stage and keeps its state in one file.

    Args:
        model: everything that is saved, trained in this stage or not.
        state_file: written every minute and after each stage, atomically; read if it exists.
        seed: with it, the stage and the step, every random choice is fixed.
        recipe: what else the run depends on, in words; a run goes on only with the same.

    Raises:
        ValueError: the state file is damaged or belongs to another run.
    """

    def __init__(self, model: nn.Module, state_file: Path, seed: int, recipe: str = "") -> None:
        self.model, self.state_file, self.seed = model, state_file, seed
        self._done: dict[str, float] = {}
        self._recipe = recipe
        self._state: dict = {}
        if state_file.exists():
            self._state = self._load()
            model.load_state_dict(self._state["model"])
            self._done = self._state["done"]

    def _load(self) -> dict:
        remedy = "use another folder, or delete the file to start anew"
        try:
            state = torch.load(self.state_file, map_location="cpu", weights_only=True)
            seed, recipe = state["seed"], state["recipe"]
        except (OSError, EOFError, RuntimeError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise ValueError(f"{self.state_file} is no training state that can be read: {remedy}") from error
        if seed != self.seed:
            raise ValueError(f"{self.state_file} belongs to a run with seed {seed}, not {self.seed}: {remedy}")
        if recipe != self._recipe:
            raise ValueError(f"{self.state_file} belongs to a run with another recipe: {remedy}")
        return state

    @property
    def seconds(self) -> dict[str, float]:
        """Wall time of every finished stage."""
        return dict(self._done)

    def run(self, stage: Stage) -> None:
        """Runs ``stage`` from where it was left; a finished stage returns at once."""
        if stage.name in self._done:
            return
        stage.begin()
        parameters = [p for p in stage.trained.parameters() if p.requires_grad]
        decayed = [p for p in parameters if p.ndim > 1]
        plain = [p for p in parameters if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": stage.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=stage.learning_rate, betas=(0.9, 0.98))
        first, spent = 0, 0.0
        if self._state.get("stage") == stage.name:
            optimizer.load_state_dict(self._state["optimizer"])
            first, spent = self._state["step"], self._state["spent_s"]
        self._state = {}
        started = saved = time.monotonic()
        averages: dict[str, float] = {}
        bar = tqdm(range(first, stage.steps), initial=first, total=stage.steps, desc=stage.name, mininterval=2.0)
        for step in bar:
            self._step(stage, step, optimizer, parameters, averages)
            bar.set_postfix({name: f"{value:.3f}" for name, value in averages.items()}, refresh=False)
            now = time.monotonic()
            if now - saved > _SAVE_EVERY_S:
                self._save(stage.name, step + 1, optimizer, spent + now - started)
                saved = now
        self._done[stage.name] = spent + time.monotonic() - started
        self._save("", 0, None, 0.0)

    def _step(
        self,
        stage: Stage,
        step: int,
        optimizer: torch.optim.Optimizer,
        parameters: list[nn.Parameter],
        averages: dict[str, float],
    ) -> None:
        # The name goes in as bytes, which are the same in every process (hash() is not): two stages draw differently.
        entropy = [self.seed, step, *stage.name.encode()]
        rng = np.random.default_rng(entropy)
        torch.manual_seed(int(rng.integers(2**31)))
        warm = min(1.0, (step + 1) / stage.warmup_steps)
        rate = stage.learning_rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / stage.steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        terms = stage.loss(rng)
        total = sum(terms.values())
        if not torch.isfinite(total):
            raise FloatingPointError(f"the loss of stage {stage.name!r} is {float(total.detach())} at step {step}")
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(parameters, stage.clip_norm)
        optimizer.step()
        for name, value in terms.items():
            latest = float(value.detach())
            averages[name] = 0.98 * averages.get(name, latest) + 0.02 * latest

    def _save(self, stage: str, step: int, optimizer: torch.optim.Optimizer | None, spent_s: float) -> None:
        state = {
            "seed": self.seed,
            "recipe": self._recipe,
            "model": self.model.state_dict(),
            "done": self._done,
            "stage": stage,
            "step": step,
            "spent_s": spent_s,
            "optimizer": optimizer.state_dict() if optimizer else None,
        }
        self.state_file.parent.mkdir(parents=True, exist_ok=True)
        beside = self.state_file.with_suffix(".part")
        torch.save(state, beside)
        os.replace(beside, self.state_file)
