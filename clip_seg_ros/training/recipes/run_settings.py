# SPDX-License-Identifier: Apache-2.0
"""The settings that all recipes for data sets share: how long, how fast and with which optimiser they train."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from clip_seg_ros.training.optimizer import Decay, Precision, Warmup
from clip_seg_ros.training.runner import Stage
from clip_seg_ros.training.settings import RecipeSettings, require_steps


@dataclass(frozen=True)
class RunSettings(RecipeSettings):
    """The settings of a run. The optimiser is AdamW; without weight decay, it is Adam."""

    steps: int
    batch: int
    """The number of samples in a batch, over all processes."""
    learning_rate: float
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: Warmup = field(default_factory=Warmup)
    """How the learning rate first rises: ``steps``, ``kind`` and ``ratio``; see ``optimizer.Warmup``."""
    clip_norm: float | None = None
    """The largest norm of the gradient over all parameters; empty: no clipping."""
    decay: Decay = "all"
    """The parameters to which weight decay applies: all, without_norms or matrices; see ``optimizer.Decay``."""
    precision: Precision = "float32"
    """The precision of activations. The 16-bit ones are for a GPU; on a CPU float32 is faster."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        require_steps(self)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must lie in 0..1 and be less than 1, got {list(self.betas)}")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError(f"clip_norm must be more than 0, or empty for no clipping, got {self.clip_norm}")

    def stage(self, name: str, trained: nn.Module, **more: Any) -> Stage:
        """Returns a stage with these settings; ``more`` are further fields of ``Stage``, or replace some of them."""
        shared: dict[str, Any] = {
            "steps": self.steps,
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
            "betas": self.betas,
            "warmup": self.warmup,
            "clip_norm": self.clip_norm,
            "decay": self.decay,
            "precision": self.precision,
        }
        return Stage(name=name, trained=trained, **{**shared, **more})
