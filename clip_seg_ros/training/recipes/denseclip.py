# SPDX-License-Identifier: Apache-2.0
"""Trains DenseCLIP on images with a class for every pixel (Rao et al., CVPR 2022, sections 3.2 and 4.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from clip_seg_ros.models.denseclip.model import DenseCLIP
from clip_seg_ros.models.denseclip.prompting import TextGuided
from clip_seg_ros.training import distributed
from clip_seg_ros.training.losses import dense_cross_entropy, identity_loss
from clip_seg_ros.training.optimizer import Decay, Schedule, Warmup
from clip_seg_ros.training.recipes.batch import ClassBatch
from clip_seg_ros.training.recipes.recipe import WholeModelRecipe
from clip_seg_ros.training.recipes.run_settings import RunSettings
from clip_seg_ros.training.runner import Stage, Validation


@dataclass(frozen=True)
class DenseCLIPSettings(RunSettings):
    """The recipe. The defaults are those of the authors' configurations for ADE20K."""

    steps: int = 80_000
    batch: int = 32
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    warmup: Warmup = field(default_factory=lambda: Warmup(1500, "linear", 1e-6))
    decay: Decay = "without_norms"
    image_factor: float = 0.1
    """The factor on the learning rate for the image tower; the text tower is frozen."""
    least_rate: float = 1e-6
    """The learning rate of every parameter at the end."""
    sync_batch_norm: bool = True
    """Whether BatchNorm sees the batch of all processes, if these run on GPUs."""
    identity_weight: float = 0.4
    """The weight of the score map's own loss; 0 leaves it out."""


def initialise(model: DenseCLIP) -> None:
    """Draws the first weights of the parts that CLIP lacks as the authors and their framework do.

    The convolutions of the pyramid and the head are normal by He et al. with the outgoing channels, and biases are
    zero. The classifier keeps PyTorch's own.
    """
    initialise_context_decoder(model)
    for module in (*model.neck.modules(), *model.decode_head.scale_heads.modules()):
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def initialise_context_decoder(model: TextGuided) -> None:
    """Draws the context decoder's matrices as the authors do: normal with a deviation of 0.02, with biases of zero."""
    for module in model.context_decoder.modules() if model.config.context_aware else ():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class DenseCLIPRecipe(WholeModelRecipe):
    """DenseCLIP, its data and the loss of a batch.

    Args:
        settings: The settings of the recipe.
        model: The model to train.
        config: The configuration of the model's weight file.
        draw: Makes a batch from a generator; its labels are indices into the model's class names.
        load: Loads the batch of a number ahead.
        validation: Scores the model now and then; the best weights are kept.
    """

    def __init__(
        self,
        settings: DenseCLIPSettings,
        model: DenseCLIP,
        config: Mapping[str, Any],
        draw: Callable[[np.random.Generator], ClassBatch],
        load: Callable[[int], None] | None = None,
        validation: Validation | None = None,
    ) -> None:
        super().__init__(model, config, load, validation)
        self.settings, self._draw = settings, draw

    def stages(self) -> list[Stage]:
        """Returns the recipe's one stage, for a ``Runner``."""
        s = self.settings
        stage = s.stage(
            "fine-tuning",
            self,
            loss=self.terms,
            begin=self._begin,
            rate_factors=(("model.backbone.", s.image_factor),),
            schedule=Schedule("poly", floor=0.0, least=s.least_rate),
            before_batch=self._load,
            validation=self._validation,
        )
        return [stage]

    def _begin(self) -> None:
        if self.settings.sync_batch_norm:
            distributed.synchronise_norms(self.model, self.normalised.device)

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
