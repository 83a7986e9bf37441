# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clip_seg_ros.models import convolutions
from clip_seg_ros.models.convolutions import convolve_joined, convolve_upsampled, upsample
from clip_seg_ros.models.kept import KeptTensors
from nearness import assert_near


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("image_first", [True, False])
@pytest.mark.parametrize("pairs", [1, 3])
@pytest.mark.parametrize("kernel", [1, 3])
def test_joined_maps_are_those_of_every_pair_side_by_side(kernel: int, pairs: int, image_first: bool) -> None:
    convolution = nn.Conv2d(5 + 7, 4, kernel, padding=kernel // 2)
    image, own = randn(2, 5, 6, 8), randn(2 * pairs, 7, 6, 8)
    repeated = image.repeat_interleave(pairs, dim=0)
    expected = convolution(torch.cat([repeated, own] if image_first else [own, repeated], dim=1))
    assert_near(convolve_joined(convolution, image, own, pairs, image_first), expected)


@pytest.mark.parametrize("bias", [True, False])
def test_coarser_pairs_are_upsampled(bias: bool) -> None:
    convolution = nn.Conv2d(5 + 7, 4, 1, bias=bias)
    image, own = randn(2, 5, 6, 8), randn(4, 7, 3, 4)
    expected = convolution(torch.cat([image.repeat_interleave(2, dim=0), upsample(own)], dim=1))
    assert_near(convolve_joined(convolution, image, own, 2), expected)


@pytest.mark.parametrize("at_once", [1, 9 * 5 * 35 * 2, 1 << 30], ids=["one by one", "two at once", "all at once"])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_upsampled_maps(bias: bool, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(convolutions._AT_ONCE, "cpu", at_once)
    convolution, kept = nn.Conv2d(6, 5, 3, padding=1, bias=bias), KeptTensors(1)
    for size in ((5, 7), (7, 5), (1, 2)):
        # A large value at the border shows whether the kernel sees zeros beyond it.
        x = randn(3, 6, *size) + 10 * F.one_hot(torch.tensor(0), size[1])
        assert_near(convolve_upsampled(convolution, x, kept), convolution(upsample(x)))


@torch.no_grad()
def test_upsampled_maps_follow_new_weights_and_precisions() -> None:
    convolution, kept, x = nn.Conv2d(6, 5, 3, padding=1), KeptTensors(1), randn(2, 6, 4, 3)
    convolve_upsampled(convolution, x, kept)
    convolution.weight += 1
    assert_near(convolve_upsampled(convolution, x, kept), convolution(upsample(x)))
    convolution.bfloat16()
    expected = convolution.float()(upsample(x))
    assert_near(convolve_upsampled(convolution.bfloat16(), x.bfloat16(), kept).float(), expected, relative=0.03)


@torch.no_grad()
def test_memory_formats_make_no_difference() -> None:
    convolution, kept, x = nn.Conv2d(6, 5, 3, padding=1), KeptTensors(1), randn(2, 6, 4, 3)
    plain = convolve_upsampled(convolution, x, kept)
    last = torch.channels_last
    convolution.to(memory_format=last)
    assert_near(convolve_upsampled(convolution, x.contiguous(memory_format=last), kept), plain)


def test_gradients_pass_an_upsampled_convolution() -> None:
    convolution, x = nn.Conv2d(6, 5, 3, padding=1), randn(2, 6, 4, 3).requires_grad_()
    convolve_upsampled(convolution, x, KeptTensors(1)).sum().backward()
    assert x.grad.abs().min() > 0
    assert convolution.weight.grad.abs().min() > 0


@torch.no_grad()
def test_an_exported_program_takes_any_number_of_maps() -> None:
    class Upsampled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.kept = nn.Conv2d(6, 5, 3, padding=1), KeptTensors(1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return convolve_upsampled(self.convolution, x, self.kept)

    model = Upsampled()
    program = torch.export.export(model, (randn(2, 6, 4, 3),), dynamic_shapes=({0: torch.export.Dim("n")},))
    operations = {node.target for node in program.graph.nodes}
    assert torch.ops.aten.matmul.default in operations
    assert torch.ops.aten.conv2d.default not in operations
    for count in (2, 5):
        x = randn(count, 6, 4, 3)
        assert_near(program.module()(x), model.convolution(upsample(x)))
