"""What ``clip-seg train`` runs: a module, its stages, and how the result is written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from clip_seg_ros.models.conversion.mapping import Converted
from clip_seg_ros.models.conversion.writing import store
from clip_seg_ros.training import distributed
from clip_seg_ros.training.runner import Stage


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


def save_model(model: nn.Module, config: Mapping[str, Any], path: Path) -> list[Path]:
    """Writes a whole model in half precision as ``factory.build_from_file`` reads it, and proves that it does.

    Args:
        model: what was trained.
        config: that ``factory.build_from_config`` builds it from.
        path: of the weight file; its folder is made if need be.

    Raises:
        WeightsError: the file cannot be written, or ``config`` does not describe the model.
    """
    if distributed.rank() != 0:
        return []
    store(Converted(dict(config), model.eval().state_dict()), path, half=True)
    return [path]
