# SPDX-License-Identifier: Apache-2.0
"""Lets a student begin with the weights of a file: a backbone of ImageNet, a whole network, or another student."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.conversion.reading import read_tensors
from clip_seg_ros.models.student.model import Student

_BACKBONE = "network.backbone."
_BEGINNINGS = ("", "network.", _BACKBONE)
"""What the names in a file lack to be those of a student: in files of students, of torchvision's whole networks, and of
torchvision's and timm's backbones."""
_BOOKKEEPING = "num_batches_tracked"
_OWN = "text_embeddings"
"""The classifier of words, which a student has of its own classes."""


def begin_with(student: Student, path: Path) -> str:
    """Gives a student every tensor of a file that fits by its name and shape.

    Args:
        student: A new student.
        path: A checkpoint of torchvision (a backbone or a whole network) or of timm, or a student of this package.

    Returns:
        What was taken and what is new, in lines for the user.

    Raises:
        WeightsError: The file cannot be read, or lacks tensors of the student's backbone.
    """
    given = read_tensors(path)
    own = student.state_dict()
    found = max((_fitting(given, own, beginning) for beginning in _BEGINNINGS), key=len)
    lacking = [key for key in own if key.startswith(_BACKBONE) and not key.endswith(_BOOKKEEPING) and key not in found]
    if lacking:
        raise WeightsError(
            f"{path} does not hold the backbone of the network {student.config.network}: {len(lacking)} of its tensors "
            f"are missing or have another shape, such as {lacking[0].removeprefix(_BACKBONE)}"
        )
    student.load_state_dict(found, strict=False)
    taken, new = (_summary([key for key in own if (key in found) == is_taken]) for is_taken in (True, False))
    return f"begins with {path}\n  taken: {taken}\n  new:   {new or 'nothing'}"


def _fitting(
    given: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], beginning: str
) -> dict[str, torch.Tensor]:
    """Returns the tensors that fit with ``beginning`` in front of their names."""
    named = {beginning + key: value for key, value in given.items()}
    return {key: value for key, value in named.items() if key in own and value.shape == own[key].shape and key != _OWN}


def _summary(keys: list[str]) -> str:
    """Returns the parts that the tensors belong to, each with their number."""
    counts: dict[str, int] = {}
    for key in keys:
        if not key.endswith(_BOOKKEEPING) and key != _OWN:
            part = key.removeprefix("network.").partition(".")[0]
            counts[part] = counts.get(part, 0) + 1
    return ", ".join(f"{part} ({count} tensors)" for part, count in counts.items())
