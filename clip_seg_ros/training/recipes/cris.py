# SPDX-License-Identifier: Apache-2.0
"""Trains CRIS: text-to-pixel contrast, end to end (Wang et al., CVPR 2022, sections 3.3 and 4.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from clip_seg_ros.models.cris.model import CRIS
from clip_seg_ros.training import distributed
from clip_seg_ros.training.losses import dice_loss, shrink_mask, text_to_pixel_loss
from clip_seg_ros.training.optimizer import Precision, Schedule
from clip_seg_ros.training.recipes.batch import ExpressionBatch
from clip_seg_ros.training.recipes.recipe import WholeModelRecipe
from clip_seg_ros.training.recipes.run_settings import RunSettings
from clip_seg_ros.training.runner import Stage, Validation

EPOCHS = 50
"""The number of epochs of the paper's training."""
_FIRST = "first"
_POSITIONS = ("positional_embedding", "visual.attnpool.positional_embedding")
"""The position tables of CLIP's towers."""
Draw = Callable[[np.random.Generator], ExpressionBatch]


@dataclass(frozen=True)
class CRISSettings(RunSettings):
    """The recipe. The defaults are those of the authors' configuration and code for RefCOCO."""

    steps: int = 33_100
    """50 epochs of 662 batches; an epoch shows each of RefCOCO's 42,404 objects once, with one of its sentences."""
    batch: int = 64
    learning_rate: float = 1e-4
    precision: Precision = "float16"
    clip_factor: float = 0.1
    """The factor on the learning rate for CLIP's towers and the convolution beside its attention pool (``connect``).
    As in the authors' code, the position tables of both towers learn at the full rate."""
    clip_factor_from: int | None = None
    """The step from which ``clip_factor`` counts. The authors' program sets it with the second epoch; by default it is
    a fiftieth of the steps, which is one epoch."""
    word_factor: float = 1.0
    """The factor on the learning rate for the table of word embeddings, if words are new to the weights."""
    sync_batch_norm: bool = True
    """Whether BatchNorm sees the batch of all processes, if these run on GPUs."""
    first_steps: int = 0
    """The number of first steps on easier batches, at a constant rate."""
    milestones: tuple[int, ...] | None = None
    """Steps at which the rate falls to a tenth; by default after 35 of 50 epochs. An empty list: a cosine instead."""
    dice_weight: float = 0.0
    """The weight of a soft dice term, which makes small objects count in the mean; the paper has none."""
    contrast_weight: float = 1.0

    def schedule(self) -> Schedule:
        """Returns the schedule of the learning rate."""
        if self.milestones is None:
            return Schedule("milestones", milestones=(self.steps * 35 // EPOCHS,))
        return Schedule("milestones", milestones=self.milestones) if self.milestones else Schedule()


class CRISRecipe(WholeModelRecipe):
    """CRIS, its data and the loss of a batch.

    Args:
        settings: The settings of the recipe.
        model: The model to train.
        config: The configuration of the model's weight file.
        draw: Makes a batch from a generator.
        first_draw: Makes a batch for the first steps.
        load: Loads the batch of a number ahead.
        new_words: Whether the model has new word embeddings, which have not been trained yet.
        validation: Scores the model now and then; the best weights are kept.
    """

    def __init__(
        self,
        settings: CRISSettings,
        model: CRIS,
        config: Mapping[str, Any],
        draw: Draw,
        first_draw: Draw | None = None,
        load: Callable[[int], None] | None = None,
        new_words: bool = False,
        validation: Validation | None = None,
    ) -> None:
        super().__init__(model, config, load, validation)
        self._new_words = new_words
        self.settings, self._draw, self._first_draw = settings, draw, first_draw or draw

    def stages(self) -> list[Stage]:
        """Returns the stages of the recipe, for a ``Runner``."""
        s = self.settings
        factors = tuple((f"model.{part}", s.clip_factor) for part in ("clip.", "connect."))
        factors += tuple((f"model.clip.{table}", 1.0) for table in _POSITIONS)
        if self._new_words:
            factors += (("model.clip.token_embedding.", s.word_factor),)
        factors_from = s.steps // EPOCHS if s.clip_factor_from is None else s.clip_factor_from
        parts = [("end to end", s.steps, self.terms, s.schedule(), factors_from)]
        if s.first_steps:
            parts.insert(0, (_FIRST, s.first_steps, self.first_terms, Schedule("constant"), 0))
        return [
            s.stage(
                name,
                self,
                steps=steps,
                loss=loss,
                begin=self._begin,
                schedule=schedule,
                rate_factors=factors,
                factors_from=start,
                before_batch=self._load,
                validation=self._validation if name != _FIRST else None,
            )
            for name, steps, loss, schedule, start in parts
        ]

    def _begin(self) -> None:
        if self.settings.sync_batch_norm:
            distributed.synchronise_norms(self.model, self.normalised.device)

    def terms(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """Draws a batch and returns the terms of its loss."""
        return self._loss(self._draw(rng))

    def first_terms(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """Draws a batch for the first steps and returns the terms of its loss."""
        return self._loss(self._first_draw(rng))

    def _loss(self, batch: ExpressionBatch) -> dict[str, torch.Tensor]:
        self.train()
        device, pixels = self.normalised.device, self.normalised(batch.pixels)
        token_ids = self.model.tokenizer([text for texts in batch.texts for text in texts]).to(device)
        logits = self.model(pixels, token_ids)
        masks = batch.masks.to(device).flatten(0, 1)
        ignored = None if batch.ignored is None else batch.ignored.to(device).flatten(0, 1)
        terms = {"contrast": self.settings.contrast_weight * text_to_pixel_loss(logits, masks, ignored)}
        if self.settings.dice_weight:
            size = tuple(logits.shape[-2:])
            unknown = None if ignored is None else shrink_mask(ignored.float(), size) > 0
            terms["dice"] = self.settings.dice_weight * dice_loss(logits, shrink_mask(masks, size), unknown)
        return terms
