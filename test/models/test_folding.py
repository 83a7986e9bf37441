# SPDX-License-Identifier: Apache-2.0
"""Batch normalisation folded into convolutions: nothing but the speed changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from clip_seg_ros.models.folding import fold_batch_norms
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.zoo.factory import build_segmenter
from nearness import assert_near


class NormAndMore(nn.BatchNorm2d):
    """As timm has them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).relu()


class Block(nn.Module):
    """Norms behind a convolution with and without bias, in a Sequential, of another kind, and without convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.lone = nn.BatchNorm2d(3)
        self.conv1 = nn.Conv2d(3, 8, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.act = nn.ReLU()
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, stride=2, groups=2)
        self.bn2 = nn.BatchNorm2d(8)
        self.conv3, self.bn3 = nn.Conv2d(8, 8, 1), NormAndMore(8)
        self.tail = nn.Sequential(nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.bn1(self.conv1(self.lone(x))))
        return self.tail(self.bn3(self.conv3(self.bn2(self.conv2(x)))))


def with_statistics(module: nn.Module) -> nn.Module:
    """With norms that do something."""
    generator = torch.Generator().manual_seed(3)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for values, low, high in (
                (norm.weight, 0.5, 2.0),
                (norm.bias, -1.0, 1.0),
                (norm.running_mean, -1.0, 1.0),
                (norm.running_var, 0.3, 3.0),
            ):
                values.data.uniform_(low, high, generator=generator)
    return module.eval()


def test_outputs_stay_and_norms_without_a_convolution_too() -> None:
    block = with_statistics(Block())
    pixels = torch.randn(2, 3, 12, 10, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        expected = block(pixels)
        assert fold_batch_norms(block) == 3
        assert_near(block(pixels), expected)
    left = [name for name, module in block.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert left == ["lone", "bn3", "tail.3"]
    assert fold_batch_norms(block) == 0


@pytest.mark.parametrize("name", ["clipseg-pocket", "cris-pocket", "denseclip-pocket", "maskclip-pocket"])
def test_embedded_models_answer_the_same(name: str) -> None:
    plain, folded = Predictor.from_model(build_segmenter(name), "cpu"), Predictor.from_name(name, "cpu", engine="eager")
    norms = [sum(isinstance(m, nn.BatchNorm2d) for m in each.engine.model.modules()) for each in (plain, folded)]
    assert norms[0] >= 20
    assert norms[1] <= 1
    rgb = np.random.default_rng(5).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    phrases = plain.spec.class_names or ("red cup", "ball")
    expected, got = (each.predict(rgb, phrases).values for each in (plain, folded))
    assert_near(got, expected, relative=1e-4)
