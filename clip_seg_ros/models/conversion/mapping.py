# SPDX-License-Identifier: Apache-2.0
"""Converts the tensors of a published file to the ``state_dict`` of a model of this package, all of them or none.

A converter states the ``Source`` of every tensor of the model. Both the conversion and the list of tensors that a file
lacks, has in addition, or has in another shape, in the file's own names, are derived from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from clip_seg_ros.models.checkpoints import WeightsError


@dataclass(frozen=True)
class Source:
    """The source of one of our tensors: the keys of the file, joined along the first axis."""

    keys: tuple[str, ...]
    transposed: bool = False
    """Whether the file has the transposed matrix."""
    unit_axes: bool = False
    """Whether the file may have additional axes of length 1, such as 1x1 convolutions that are matrices here."""

    def fits(self, found: Sequence[int], wanted: Sequence[int]) -> bool:
        """Returns whether each of ``keys`` may have the shape ``found`` for our tensor of shape ``wanted``."""
        if self.unit_axes or self.transposed:
            found = [side for side in found if side != 1]
            return found == [side for side in self.shape(wanted) if side != 1]
        return tuple(found) == self.shape(wanted)

    def shape(self, wanted: Sequence[int]) -> tuple[int, ...]:
        """Returns the shape that each of ``keys`` should have in the file."""
        if self.transposed:
            return tuple(reversed(wanted))
        return (wanted[0] // len(self.keys), *wanted[1:]) if len(self.keys) > 1 else tuple(wanted)

    def build(self, tensors: Mapping[str, torch.Tensor], wanted: Sequence[int]) -> torch.Tensor:
        """Returns our tensor of shape ``wanted``."""
        parts = [tensors[key] for key in self.keys]
        joined = parts[0] if len(parts) == 1 else torch.cat(parts)
        if self.transposed:
            return joined.reshape(tuple(reversed(wanted))).T.contiguous()
        return joined.reshape(tuple(wanted)).contiguous()


@dataclass(frozen=True)
class Converted:
    """A converted file; ``zoo.build`` builds the model from ``config`` and loads ``tensors``."""

    config: dict[str, Any]
    """Plain values for JSON; ``config["kind"]`` names the builder."""
    tensors: dict[str, torch.Tensor]
    """The complete ``state_dict`` of the model."""


def assemble(
    wanted: Mapping[str, torch.Size],
    source_of: Callable[[str], Source],
    tensors: Mapping[str, torch.Tensor],
    origin: str,
    ignored: Callable[[str], bool] = lambda key: False,
) -> dict[str, torch.Tensor]:
    """Builds a ``state_dict`` from the tensors of a published file.

    Args:
        wanted: Our keys and their shapes.
        source_of: Returns the source of each of our keys.
        tensors: The tensors of the file.
        origin: Name of the file and its layout, for the message.
        ignored: Returns whether a key of the file is known, but not needed.

    Raises:
        WeightsError: Keys of the file are missing, unexpected or of another shape; the message lists all of them.
    """
    sources = {key: source_of(key) for key in wanted}
    expected = {name: key for key, source in sources.items() for name in source.keys}
    faults = [f"{name} is missing" for name in expected if name not in tensors]
    faults += [f"{name} is unexpected" for name in tensors if name not in expected and not ignored(name)]
    faults += [
        f"{name} is {tuple(tensors[name].shape)} and should be {sources[key].shape(wanted[key])}"
        for name, key in expected.items()
        if name in tensors and not sources[key].fits(tensors[name].shape, wanted[key])
    ]
    if faults:
        raise WeightsError(f"{origin} is not whole: {'; '.join(faults)}")
    built = {key: source.build(tensors, wanted[key]) for key, source in sources.items()}
    # Published files partly have half precision; the precision of our files is chosen when they are written.
    return {key: value.float() if value.is_floating_point() else value for key, value in built.items()}


def require(tensors: Mapping[str, torch.Tensor], key: str, origin: str) -> torch.Tensor:
    """Returns a tensor whose shape determines a model's size.

    Raises:
        WeightsError: The tensor is missing.
    """
    if key not in tensors:
        raise WeightsError(f"{origin} is not whole: {key} is missing")
    return tensors[key]


def count_blocks(tensors: Mapping[str, torch.Tensor], prefix: str) -> int:
    """Returns how many numbers follow ``prefix`` in the keys: 12 for "blocks.0." to "blocks.11."."""
    numbers = {key.removeprefix(prefix).split(".")[0] for key in tensors if key.startswith(prefix)}
    return len({number for number in numbers if number.isdigit()})


def antialiased(options: Mapping[str, Any]) -> bool:
    """Returns the option "antialias": whether images are smoothed before they shrink, which they are without it.

    Most of the papers' authors do not smooth; their data sets have small images, which hardly shrink. Those of a
    robot's camera shrink to a third.

    Raises:
        ValueError: It is neither true nor false.
    """
    chosen = options.get("antialias", True)
    if not isinstance(chosen, bool):
        raise ValueError(f"the option antialias must be true or false, got {chosen!r}")
    return chosen


def shapes_of(build: Callable[[], nn.Module]) -> dict[str, torch.Size]:
    """Returns the keys and shapes in the ``state_dict`` of ``build()``, without memory for its weights."""
    with torch.device("meta"):
        return {key: value.shape for key, value in build().state_dict().items()}
