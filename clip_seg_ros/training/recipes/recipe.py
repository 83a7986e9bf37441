# SPDX-License-Identifier: Apache-2.0
"""Recipes for ``clip-seg train``: a module, its stages, and how the result is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from clip_seg_ros.models.base import PromptableSegmenter
from clip_seg_ros.models.conversion.mapping import Converted
from clip_seg_ros.models.spec import InputSpec
from clip_seg_ros.training import distributed
from clip_seg_ros.training.runner import Stage, Validation
from clip_seg_ros.zoo.writing import store


class Recipe(Protocol):
    """A training that is ready to run."""

    module: nn.Module
    """The module that the state file stores."""

    def stages(self) -> list[Stage]:
        """Returns the stages in their order."""
        ...

    def save(self, folder: Path) -> list[Path]:
        """Writes the weight files and returns their paths; only the first process writes them."""
        ...


class Normaliser(nn.Module):
    """Normalises pixels 0..1 for a model's towers; as a part of a module, it moves to the module's device."""

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(spec.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(spec.std)[:, None, None], persistent=False)

    @property
    def device(self) -> torch.device:
        """The device that it computes on."""
        return self.mean.device

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalises (B, 3, H, W) float32 of 0..1 on any device, in the memory format that is fast for convolutions."""
        return ((pixels.to(self.device) - self.mean) / self.std).to(memory_format=torch.channels_last)


class WholeModelRecipe(nn.Module):
    """The base of recipes that train a whole model, which is the complete state and one weight file.

    Args:
        model: The model to train.
        config: The configuration of the model's weight file.
        load: Loads the batch of a number ahead.
        validation: Scores the model now and then; the best weights are kept.
    """

    def __init__(
        self,
        model: PromptableSegmenter,
        config: Mapping[str, Any],
        load: Callable[[int], None] | None,
        validation: Validation | None = None,
    ) -> None:
        super().__init__()
        self.model, self._config, self._validation = model, config, validation
        self._load = load or (lambda number: None)
        self.normalised = Normaliser(model.input_spec)

    @property
    def module(self) -> nn.Module:
        """What the state file keeps."""
        return self

    def save(self, folder: Path) -> list[Path]:
        """Writes the weight file with the model's name, and returns its path."""
        return save_model(self.model, self._config, folder / f"{self.model.name}.safetensors")


def save_model(model: nn.Module, config: Mapping[str, Any], path: Path) -> list[Path]:
    """Writes a whole model in half precision for ``factory.build_from_file``, and checks that it can be read.

    Args:
        model: The trained model.
        config: The configuration for ``factory.build_from_config``.
        path: Path of the weight file; its folder is created if necessary.

    Raises:
        WeightsError: The file cannot be written, or ``config`` does not describe the model.
    """
    if distributed.rank() != 0:
        return []
    store(Converted(dict(config), model.eval().state_dict()), path, half=True)
    return [path]
