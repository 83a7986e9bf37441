# SPDX-License-Identifier: Apache-2.0
"""Trains DenseCLIP's detectors on images with objects (Rao et al., CVPR 2022, sections 3.4 and 4.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from clip_seg_ros.models.denseclip.instances import DenseCLIPInstances, InstanceTargets
from clip_seg_ros.training.augment_instances import InstanceViews
from clip_seg_ros.training.optimizer import Decay, Schedule, Warmup
from clip_seg_ros.training.recipes.box_targets import box_score_loss, box_score_targets
from clip_seg_ros.training.recipes.instance_batch import InstanceBatch
from clip_seg_ros.training.recipes.recipe import WholeModelRecipe
from clip_seg_ros.training.recipes.run_settings import RunSettings
from clip_seg_ros.training.runner import Stage, Validation

_MAP_STRIDE = 4
"""The stride at which boxes are drawn for the score map's loss, as the authors do."""


@dataclass(frozen=True)
class DenseCLIPInstancesSettings(RunSettings):
    """The recipe. The defaults are the authors' for Mask R-CNN on COCO: 12 passes over 117,266 images.

    RetinaNet has a learning rate of 1e-4.
    """

    steps: int = 87_960
    batch: int = 16
    learning_rate: float = 2e-4
    weight_decay: float = 1e-4
    warmup: Warmup = field(default_factory=lambda: Warmup(500, "linear", 1e-3))
    clip_norm: float | None = 0.1
    decay: Decay = "without_norms"
    milestones: tuple[int, ...] = (58_640, 80_630)
    """The steps at which the rate is divided by ten: after 8 and 11 passes. Without any, it falls along a cosine."""
    image_factor: float = 0.1
    """The factor on the learning rate for the image tower; the text tower is frozen."""
    score_weight: float = 1.0
    """The weight of the score map's own loss; 0 leaves it out."""
    views: InstanceViews = field(default_factory=InstanceViews)
    """How images are resized, cropped and mirrored."""


class DenseCLIPInstancesRecipe(WholeModelRecipe):
    """A DenseCLIP detector, its data and the loss of a batch.

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
        settings: DenseCLIPInstancesSettings,
        model: DenseCLIPInstances,
        config: Mapping[str, Any],
        draw: Callable[[np.random.Generator], InstanceBatch],
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
            rate_factors=(("model.backbone.", s.image_factor),),
            schedule=Schedule("milestones", milestones=s.milestones) if s.milestones else Schedule(),
            before_batch=self._load,
            validation=self._validation,
        )
        return [stage]

    def terms(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """Draws a batch and returns the terms of its loss."""
        self.train()
        batch, model = self._draw(rng), self.model
        device = self.normalised.device
        targets = [_moved(target, device) for target in batch.targets]
        features = model.encode_image(self.normalised(batch.pixels))
        terms, scores = model.losses(features, model.encode_text(model.class_names), batch.sizes, targets)
        if self.settings.score_weight:
            size = tuple(batch.pixels.shape[2:])
            cells = (size[0] // _MAP_STRIDE, size[1] // _MAP_STRIDE)
            drawn = [
                box_score_targets(target.boxes, target.labels, size, cells, len(model.class_names))
                for target in targets
            ]
            loss = box_score_loss(scores, torch.stack(drawn), model.config.tau)
            terms["score_map"] = self.settings.score_weight * loss
        return terms


def _moved(targets: InstanceTargets, device: torch.device) -> InstanceTargets:
    masks = None if targets.masks is None else targets.masks.to(device)
    return InstanceTargets(targets.boxes.to(device), targets.labels.to(device), masks)
