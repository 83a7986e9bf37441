# SPDX-License-Identifier: Apache-2.0
"""What the settings of MaskCLIP+ share: a student in training, its views, and its optimiser."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from clip_seg_ros.models.student.model import MULTIPLE, Student
from clip_seg_ros.training.augment import photometric_distortion
from clip_seg_ros.training.distillation.views import SCALES, crop_side, random_view
from clip_seg_ros.training.optimizer import SMALL_RUN, Precision, Schedule, rising
from clip_seg_ros.training.runner import Stage

_WARMUP_STEPS = 50
_BATCH_NORM_MOMENTUM = 0.1
_RATES: dict[str, tuple[float, float]] = {"adamw": (2e-3, 0.01), "sgd": (0.01, 5e-4)}
"""The learning rate and the weight decay of each optimiser; those of "sgd" are the authors'."""
_AUTHORS_SGD: dict[str, Any] = {"momentum": 0.9, "schedule": Schedule("poly", least=1e-4, floor=0.0)}


@dataclass(frozen=True)
class StudentSettings:
    """The settings of a student's training."""

    steps: int
    batch: int = 8
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """The optimiser: AdamW with a cosine, or the authors' stochastic gradient descent with a polynomial."""
    learning_rate: float | None = None
    """The highest learning rate; ``None``: 0.002 for AdamW, and the authors' 0.01 for "sgd"."""
    scales: tuple[float, float] = SCALES
    """The range of the short side in training, relative to the student's own; the authors' is 0.5 to 2."""
    crop_px: int | None = None
    """The side of the square views, a multiple of 32; ``None``: two thirds of the student's short side."""
    precision: Precision = "float32"
    """The precision of activations in training."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 2:
            raise ValueError(f"needed are 1 step and batches of 2 at least, got {self.steps} and {self.batch}")
        if self.optimizer not in _RATES:
            raise ValueError(f'there is no optimizer "{self.optimizer}": use {" or ".join(_RATES)}')
        if not 0 < self.scales[0] <= self.scales[1]:
            raise ValueError(f"the scales of views go from a small number to a larger one, not from {self.scales}")
        if self.crop_px is not None and (self.crop_px < MULTIPLE or self.crop_px % MULTIPLE):
            raise ValueError(f"the side of the views must be a multiple of {MULTIPLE} pixels, not {self.crop_px}")


class StudentTraining:
    """A student in training.

    Args:
        student: Student, on the device of the training.
        settings: Its settings.
    """

    def __init__(self, student: Student, settings: StudentSettings) -> None:
        self.student, self.settings = student, settings
        spec = student.input_spec
        self.crop_px = settings.crop_px or crop_side(spec.size)
        self.device = next(student.parameters()).device
        self._mean, self._std = (torch.tensor(v, device=self.device).view(3, 1, 1) for v in (spec.mean, spec.std))
        for module in student.modules():
            if isinstance(module, nn.BatchNorm2d):
                # Some networks have a momentum for far longer training; their statistics would be those of the start.
                module.momentum = _BATCH_NORM_MOMENTUM

    def view(self, rgb: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draws a view of an image with its labels, as ``random_view``, and distorts its light and colours."""
        size, crop_px, scales = self.student.input_spec.size, self.crop_px, self.settings.scales
        view, view_labels = random_view(rgb, labels, rng, size, crop_px, scales)
        return photometric_distortion(view, rng), view_labels

    def logits(self, views: Sequence[np.ndarray]) -> torch.Tensor:
        """Returns the student's logits (B, K, h, w) of B views (side, side, 3) uint8, in training mode."""
        self.student.train()
        pixels = torch.from_numpy(np.stack(views)).to(self.device).permute(0, 3, 1, 2).float() / 255.0
        return self.student.encode_image((pixels - self._mean) / self._std).logits

    def truth(self, labels: Sequence[np.ndarray]) -> torch.Tensor:
        """Returns labels of views, (B, side, side) int64 on the device."""
        return torch.from_numpy(np.stack(labels)).long().to(self.device)

    def stage(
        self,
        name: str,
        steps: int,
        loss: Callable[[np.random.Generator], Mapping[str, torch.Tensor]],
        rate: float | None = None,
        **settings: Any,
    ) -> Stage:
        """Returns a stage that trains the student; ``settings`` are further fields of ``Stage``."""
        usual, decay = _RATES[self.settings.optimizer]
        rate = rate or self.settings.learning_rate or usual
        chosen = {**SMALL_RUN, "warmup": rising(_WARMUP_STEPS)}
        if self.settings.optimizer == "sgd":
            chosen = _AUTHORS_SGD
        precision = self.settings.precision
        return Stage(name, steps, rate, decay, self.student, loss, precision=precision, **{**chosen, **settings})
