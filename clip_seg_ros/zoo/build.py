# SPDX-License-Identifier: Apache-2.0
"""Builds a model from the configuration and the tensors of its weight file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from clip_seg_ros.models.base import PromptableSegmenter
from clip_seg_ros.models.calibration import Calibration
from clip_seg_ros.models.checkpoints import WeightsError, load_safetensors, load_strict
from clip_seg_ros.models.clipseg.model import CLIPSeg
from clip_seg_ros.models.cris.model import CRIS
from clip_seg_ros.models.denseclip.instances import DenseCLIPInstances
from clip_seg_ros.models.denseclip.model import DenseCLIP
from clip_seg_ros.models.maskclip.model import MaskCLIP
from clip_seg_ros.models.sam3.model import SAM3
from clip_seg_ros.models.student.model import Student
from clip_seg_ros.models.talk2dino.model import Talk2DINO

MODEL_KINDS: dict[str, Callable[[str, Mapping[str, Any]], PromptableSegmenter]] = {
    "clipseg": CLIPSeg.from_config,
    "cris": CRIS.from_config,
    "denseclip": DenseCLIP.from_config,
    "denseclip_instances": DenseCLIPInstances.from_config,
    "maskclip": MaskCLIP.from_config,
    "sam3": SAM3.from_config,
    "student": Student.from_config,
    "talk2dino": Talk2DINO.from_config,
}
"""For each ``kind`` of weight file: the function that builds the model with random weights from a name and the file's
configuration."""


@dataclass(frozen=True)
class StoredModel:
    """The contents of a model's weight files."""

    config: Mapping[str, Any]
    """The configuration for ``build_from_config``."""
    tensors: Mapping[str, torch.Tensor]
    origin: str
    """The names of the files, for messages."""

    def build(self, name: str) -> PromptableSegmenter:
        """Builds the model on the CPU, in evaluation mode. Raises WeightsError if the parts do not fit together."""
        return build_from_config(name, self.config, self.tensors, self.origin).eval()


def build_from_file(path: Path, name: str | None = None) -> PromptableSegmenter:
    """Builds the model whose configuration and weights are in one file, in evaluation mode.

    Args:
        path: A file that `clip-seg weights` wrote.
        name: Name of the model; by default that of the file.

    Raises:
        WeightsError: The file is damaged, or does not hold a whole model of this version.
    """
    return read_whole(path).build(name or path.stem)


def build_from_config(
    name: str, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], origin: str
) -> PromptableSegmenter:
    """Builds the model that ``config`` describes and assigns exactly ``tensors`` to it, without a copy.

    Raises:
        WeightsError: The configuration describes no model, or the tensors do not fit it.
    """
    try:
        if (kind := config["kind"]) not in MODEL_KINDS:
            raise ValueError(f'there is no kind "{kind}" among {", ".join(MODEL_KINDS)}')
        with _WithoutRandomWeights():
            model = MODEL_KINDS[kind](name, config)
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"the configuration in {origin} does not describe a model of this version ({error}): "
            "restore the file, convert it again with `clip-seg weights convert`, or train it again with `clip-seg "
            "train`"
        ) from error
    load_strict(model, tensors, origin, assign=True)
    # The figures of weights may use another threshold than that of the model's authors.
    model.threshold = float(config.get("threshold", model.threshold))
    if "calibration" in config:
        model.calibration = _calibration(config["calibration"], origin)
    return model


def _calibration(values: Any, origin: str) -> Calibration:
    try:
        return Calibration.from_dict(values)
    except (TypeError, ValueError, AttributeError) as error:
        raise WeightsError(
            f"the calibration in {origin} cannot be used ({error}): make it again with `clip-seg calibrate`"
        ) from error


class _WithoutRandomWeights(TorchFunctionMode):
    """Leaves new weights uninitialised, because drawing random numbers that are then overwritten takes seconds.

    It is only for models whose weights are all loaded afterwards, which ``load_strict`` ensures.
    """

    _FILLS = frozenset(
        {
            torch.Tensor.normal_,
            torch.Tensor.uniform_,
            torch.nn.init.normal_,
            torch.nn.init.uniform_,
            torch.nn.init.kaiming_normal_,
            torch.nn.init.kaiming_uniform_,
        }
    )

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func in self._FILLS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def read_whole(path: Path) -> StoredModel:
    tensors, config = load_safetensors(path)
    return StoredModel(config, tensors, str(path))
