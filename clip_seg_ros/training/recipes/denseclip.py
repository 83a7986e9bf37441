# SPDX-License-Identifier: Apache-2.0
"""Trains DenseCLIP on images with a class for every pixel (Rao et al., CVPR 2022, sections 3.2 and 4.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from clip_seg_ros.models.denseclip.model import DenseCLIP
from clip_seg_ros.training.losses import dense_cross_entropy, identity_loss
from clip_seg_ros.training.optimizer import Precision, Schedule
from clip_seg_ros.training.recipes.batch import ClassBatch
from clip_seg_ros.training.recipes.recipe import WholeModelRecipe
from clip_seg_ros.training.runner import Stage
from clip_seg_ros.training.settings import read_settings, require_steps


@dataclass(frozen=True)
class DenseCLIPSettings:
    """The recipe. The defaults are the paper's."""

    steps: int = 80_000
    batch: int = 32
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    image_factor: float = 0.1
    """The factor on the learning rate for the image tower; the text tower is frozen."""
    precision: Precision = "float32"
    clip_norm: float = 1.0
    identity_weight: float = 0.4
    """The weight of the score map's own loss; 0 leaves it out."""

    def __post_init__(self) -> None:
        require_steps(self)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> DenseCLIPSettings:
        """Reads the mapping of a YAML file. Raises SettingsError on unknown names and on values that do not fit."""
        return read_settings(cls, values, "recipe")


class DenseCLIPRecipe(WholeModelRecipe):
    """DenseCLIP, its data and the loss of a batch.

    Args:
        settings: The settings of the recipe.
        model: The model to train.
        config: The configuration of the model's weight file.
        draw: Makes a batch from a generator; its labels are indices into the model's class names.
        load: Loads the batch of a number ahead.
    """

    def __init__(
        self,
        settings: DenseCLIPSettings,
        model: DenseCLIP,
        config: Mapping[str, Any],
        draw: Callable[[np.random.Generator], ClassBatch],
        load: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__(model, config, load)
        self.settings, self._draw = settings, draw

    def stages(self) -> list[Stage]:
        """Returns the recipe's one stage, for a ``Runner``."""
        s = self.settings
        return [
            Stage(
                "fine-tuning",
                s.steps,
                s.learning_rate,
                s.weight_decay,
                self,
                self.terms,
                rate_factors=(("model.backbone.", s.image_factor),),
                schedule=Schedule("poly", floor=min(1.0, 1e-6 / s.learning_rate)),
                before_batch=self._load,
                precision=s.precision,
                clip_norm=s.clip_norm,
            )
        ]

    def terms(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """Draws a batch and returns the terms of its loss."""
        self.train()
        batch, model = self._draw(rng), self.model
        pixels, labels = self.normalised(batch.pixels), batch.labels.to(self.normalised.device)
        logits, scores = model.decode_with_scores(model.encode_image(pixels), model.encode_text(model.class_names))
        terms = {"decode": dense_cross_entropy(logits, labels)}
        if self.settings.identity_weight:
            weight = self.settings.identity_weight
            terms["identity"] = identity_loss(scores, labels, model.config.tau, weight)
        return terms
