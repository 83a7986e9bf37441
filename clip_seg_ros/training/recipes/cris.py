# SPDX-License-Identifier: Apache-2.0
"""Trains CRIS: text-to-pixel contrast, end to end (Wang et al., CVPR 2022, sections 3.3 and 4.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from clip_seg_ros.models.cris.model import CRIS
from clip_seg_ros.training.losses import dice_loss, shrink_mask, text_to_pixel_loss
from clip_seg_ros.training.optimizer import Precision, Schedule
from clip_seg_ros.training.recipes.batch import ExpressionBatch
from clip_seg_ros.training.recipes.recipe import WholeModelRecipe
from clip_seg_ros.training.runner import Stage
from clip_seg_ros.training.settings import read_settings, require_steps

Draw = Callable[[np.random.Generator], ExpressionBatch]


@dataclass(frozen=True)
class CRISSettings:
    """The recipe. The defaults are the paper's."""

    steps: int
    batch: int = 64
    learning_rate: float = 1e-4
    clip_factor: float = 0.1
    """The factor on the learning rate for CLIP's towers."""
    word_factor: float = 1.0
    """The factor on the learning rate for the table of word embeddings, if words are new to the weights."""
    weight_decay: float = 0.0
    precision: Precision = "float32"
    clip_norm: float = 1.0
    first_steps: int = 0
    """The number of first steps on easier batches, at a constant rate."""
    milestones: tuple[int, ...] = ()
    """Steps at which the rate falls to a tenth, as the paper's does after 35 of 50 epochs; without any, a cosine."""
    dice_weight: float = 0.0
    """The weight of a soft dice term, which makes small objects count in the mean; the paper has none."""
    contrast_weight: float = 1.0

    def __post_init__(self) -> None:
        require_steps(self)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> CRISSettings:
        """Reads the mapping of a YAML file. Raises SettingsError on unknown names and on values that do not fit."""
        return read_settings(cls, values, "recipe")


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
    ) -> None:
        super().__init__(model, config, load)
        self._new_words = new_words
        self.settings, self._draw, self._first_draw = settings, draw, first_draw or draw

    def stages(self) -> list[Stage]:
        """Returns the stages of the recipe, for a ``Runner``."""
        s = self.settings
        falling = Schedule("milestones", milestones=s.milestones) if s.milestones else Schedule()
        factors: tuple[tuple[str, float], ...] = (("model.clip.", s.clip_factor),)
        if self._new_words:
            factors += (("model.clip.token_embedding.", s.word_factor),)
        parts = [("end to end", s.steps, self.terms, falling)]
        if s.first_steps:
            parts.insert(0, ("first", s.first_steps, self.first_terms, Schedule("constant")))
        return [
            Stage(
                name,
                steps,
                s.learning_rate,
                s.weight_decay,
                loss=loss,
                schedule=schedule,
                rate_factors=factors,
                trained=self,
                before_batch=self._load,
                precision=s.precision,
                clip_norm=s.clip_norm,
            )
            for name, steps, loss, schedule in parts
        ]

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
