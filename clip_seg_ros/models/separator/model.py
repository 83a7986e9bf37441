# SPDX-License-Identifier: Apache-2.0
"""A small network that sees the objects in a mask: for each place it votes for the middle of the object there.

It knows no names. It looks at the window of one mask, with the colours, the mask and, where there is any, the depth. As
in Panoptic-DeepLab (Cheng et al., CVPR 2020), each object is a peak of a heat map at its middle, and each pixel belongs
to the peak that is nearest to where its offset points. As in UOIS (Xie et al., T-RO 2021), it learns on rendered scenes
alone, from colours that were changed at will and from depth with the noise of a sensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from clip_seg_ros.models.checkpoints import WeightsError, load_safetensors, load_strict

WINDOW_PX = 64
"""The side of a window, pixels."""
CELLS = WINDOW_PX // 2
"""The side of the network's maps."""
CHANNELS = 6
"""Of a window: three colours and the mask, 0..1, the depth, and whether the depth is valid, 0 or 1."""
OFFSET_CELLS = 8.0
"""The unit of the offsets, in cells."""


@dataclass(frozen=True)
class SeparatorConfig:
    """The size of a ``SeparatorNet``."""

    width: int = 16
    """The number of channels at the finest resolution."""

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SeparatorConfig:
        """Reads what ``to_dict`` returned. Raises TypeError or ValueError if it does not fit."""
        config = cls(**values)
        if config.width < 1:
            raise ValueError(f"width must be at least 1, got {config.width}")
        return config


@dataclass(frozen=True)
class Votes:
    """What the network says about N windows."""

    heat: torch.Tensor
    """(N, CELLS, CELLS) logits: whether the middle of an object is here."""
    offsets: torch.Tensor
    """(N, 2, CELLS, CELLS): x and y from the cell to the middle of its object, in units of ``OFFSET_CELLS``."""
    several: torch.Tensor
    """(N,) logits: whether the mask holds more than one object."""


class SeparatorNet(nn.Module):
    """A U-Net of four resolutions.

    Args:
        config: The size.
    """

    def __init__(self, config: SeparatorConfig) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.fine = nn.Sequential(_layer(CHANNELS, width, 2), _layer(width, width))
        self.middle = _stage(width, 2 * width)
        self.coarse = _stage(2 * width, 4 * width)
        self.coarsest = _stage(4 * width, 4 * width)
        self.up_coarse = _joint(8 * width, 2 * width)
        self.up_middle = _joint(4 * width, 2 * width)
        self.up_fine = nn.Sequential(_joint(3 * width, width), _layer(width, width))
        self.head = nn.Conv2d(width, 3, 1)
        self.several = nn.Sequential(nn.Linear(5 * width, 48), nn.ReLU(), nn.Linear(48, 1))

    def forward(self, windows: torch.Tensor) -> Votes:
        """Looks at windows (N, CHANNELS, WINDOW_PX, WINDOW_PX)."""
        fine = self.fine(windows)
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        coarsest = self.coarsest(coarse)
        up = self.up_coarse(torch.cat([_twice(coarsest), coarse], dim=1))
        up = self.up_middle(torch.cat([_twice(up), middle], dim=1))
        up = self.up_fine(torch.cat([_twice(up), fine], dim=1))
        maps = self.head(up)
        whole = torch.cat([coarsest.mean(dim=(2, 3)), up.amax(dim=(2, 3))], dim=1)
        return Votes(maps[:, 0], maps[:, 1:], self.several(whole)[:, 0])


def load_separator(path: Path) -> SeparatorNet:
    """Reads a weight file of a separator, in evaluation mode on the CPU.

    Raises:
        WeightsError: The file is missing, damaged or of another version.
    """
    tensors, values = load_safetensors(path)
    try:
        net = SeparatorNet(SeparatorConfig.from_dict(values["separator"]))
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"the configuration in {path} does not describe a separator of this version ({error}): restore the file, "
            "or train it again with `clip-seg train`"
        ) from error
    load_strict(net, tensors, str(path))
    return net.eval()


def _layer(channels: int, width: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))


def _stage(channels: int, width: int) -> nn.Sequential:
    """Halves the resolution."""
    return nn.Sequential(_layer(channels, width, 2), _layer(width, width), _layer(width, width))


def _joint(channels: int, width: int) -> nn.Sequential:
    """Joins two resolutions."""
    return nn.Sequential(_layer(channels, width, kernel=1), _layer(width, width))


def _twice(maps: torch.Tensor) -> torch.Tensor:
    return F.interpolate(maps, scale_factor=2.0, mode="nearest")
