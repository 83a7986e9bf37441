# SPDX-License-Identifier: Apache-2.0
"""What ``clip-seg train`` runs: a module, its stages, and how the result is written."""

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
from clip_seg_ros.training.runner import Stage
from clip_seg_ros.zoo.writing import store


class Recipe(Protocol):
    """A training, ready to run."""

    module: nn.Module
    """What the state file keeps."""

    def stages(self) -> list[Stage]:
        """Its parts, in order."""
        ...

    def save(self, folder: Path) -> list[Path]:
        """Writes the weight files and returns their paths; in all processes but the first it writes nothing."""
        ...


class Normaliser(nn.Module):
    """Pixels 0..1 to what a model's towers take; it goes with the module that holds it to its device."""

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(spec.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(spec.std)[:, None, None], persistent=False)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.mean.device

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalises (B, 3, H, W) float32 of 0..1 on any device, in the memory format that convolutions are fast in."""
        return ((pixels.to(self.device) - self.mean) / self.std).to(memory_format=torch.channels_last)


class WholeModelRecipe(nn.Module):
    """What recipes share that train a whole model: it is all of the state, and one weight file.

    Args:
        model: What is trained.
        config: That the model's weight file describes it with.
        load: Gets the batch of a number ready.
    """

    def __init__(
        self, model: PromptableSegmenter, config: Mapping[str, Any], load: Callable[[int], None] | None
    ) -> None:
        super().__init__()
        self.model, self._config = model, config
        self._load = load or (lambda number: None)
        self.normalised = Normaliser(model.input_spec)

    @property
    def module(self) -> nn.Module:
        """What the state file keeps."""
        return self

    def save(self, folder: Path) -> list[Path]:
        """Writes the weight file, called after the model, and returns its path."""
        return save_model(self.model, self._config, folder / f"{self.model.name}.safetensors")


def save_model(model: nn.Module, config: Mapping[str, Any], path: Path) -> list[Path]:
    """Writes a whole model in half precision as ``factory.build_from_file`` reads it, and proves that it does.

    Args:
        model: What was trained.
        config: That ``factory.build_from_config`` builds it from.
        path: Of the weight file; its folder is made if need be.

    Raises:
        WeightsError: The file cannot be written, or ``config`` does not describe the model.
    """
    if distributed.rank() != 0:
        return []
    store(Converted(dict(config), model.eval().state_dict()), path, half=True)
    return [path]
