# SPDX-License-Identifier: Apache-2.0
"""Convolutions of concatenated and of upsampled maps, computed in an order that needs fewer operations.

Both are exact: convolution, interpolation and concatenation are linear, so that only the order of roundings changes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from clip_seg_ros.models.kept import KeptTensors, is_traced

_AT_ONCE = {"cpu": 1 << 21, "cuda": 1 << 26}
"""About how many products ``convolve_upsampled`` works on at once; on a CPU they should stay in its cache."""
_SPREADS = KeptTensors(16)  # two for each size of map


def convolve_joined(
    convolution: nn.Conv2d, image: torch.Tensor, pairs: torch.Tensor, pairs_each: int, image_first: bool = True
) -> torch.Tensor:
    """Convolves features of images and of pairs, joined along their channels; those of an image are convolved once.

    Args:
        convolution: A convolution with stride 1 of C1 + C2 channels.
        image: (B, C1, h, w).
        pairs: (B * P, C2, h, w), P for each image; for a 1x1 kernel also of half the size, and then as if it were
            upsampled bilinearly.
        pairs_each: P.
        image_first: Whether the channels of ``image`` come before those of ``pairs``.

    Returns:
        (B * P, out, h, w).
    """
    split = image.shape[1] if image_first else pairs.shape[1]
    parts = convolution.weight[:, :split], convolution.weight[:, split:]
    of_image, of_pairs = parts if image_first else parts[::-1]
    shared = F.conv2d(image, of_image, convolution.bias, padding=convolution.padding)
    own = F.conv2d(pairs, of_pairs, padding=convolution.padding)
    if own.shape[2:] != shared.shape[2:]:
        own = upsample(own)
    return with_pairs(torch.add, shared, own, pairs_each)


def with_pairs(
    combine: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    image: torch.Tensor,
    pairs: torch.Tensor,
    pairs_each: int,
) -> torch.Tensor:
    """Returns ``combine`` of images (B, ...) and of P = ``pairs_each`` pairs of each, (B * P, ...)."""
    if is_traced():
        # To split an axis of any length B * P would bind a program to some of the numbers B and P.
        return combine(image.repeat_interleave(pairs_each, dim=0), pairs)
    return combine(image[:, None], pairs.unflatten(0, (image.shape[0], pairs_each))).flatten(0, 1)


def convolve_upsampled(convolution: nn.Conv2d, x: torch.Tensor, kept: KeptTensors) -> torch.Tensor:
    """Convolves ``x``, upsampled bilinearly by two, with a kernel of 3x3.

    Without gradients, the nine matrix products of the kernel are computed before the upsampling, for a quarter of the
    places. What is left, upsampling and shifting each product and adding them up, is one small matrix for the columns
    and one for the rows.

    Args:
        convolution: A convolution of 3x3 with padding 1 and stride 1.
        x: (N, C, h, w).
        kept: Keeps the weight in the order that is needed here; it belongs to this convolution alone.

    Returns:
        (N, out, 2 h, 2 w).
    """
    if torch.is_grad_enabled():
        return convolution(upsample(x))
    weight = convolution.weight
    # (C, 3 columns of the kernel * 3 rows * out)
    taps = kept("taps", lambda: weight.permute(1, 3, 2, 0).reshape(weight.shape[1], -1), weight.device, weight)
    _, _, height, width = x.shape
    rows, columns = _spread(height, x), _spread(width, x)
    pixels = x.permute(0, 2, 3, 1)
    at_once = _AT_ONCE.get(x.device.type, _AT_ONCE["cuda"]) // (height * width * taps.shape[1])
    # The batch of a traced program may be of any size.
    split = (pixels,) if is_traced() else pixels.split(max(1, at_once))
    parts = [_spread_products(part @ taps, rows, columns) for part in split]
    convolved = parts[0] if len(parts) == 1 else torch.cat(parts)
    if convolution.bias is not None:
        convolved = convolved.add_(convolution.bias)
    return convolved.permute(0, 3, 1, 2)


def upsample(x: torch.Tensor) -> torch.Tensor:
    """Upsamples maps (N, C, h, w) bilinearly to (N, C, 2 h, 2 w)."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _spread_products(products: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Upsamples and adds up the products (N, h, w, 9 * out) of a kernel: (N, 2 h, 2 w, out)."""
    count, height, width, channels = products.shape
    out = channels // 9
    wide = columns @ products.view(count * height, 3 * width, 3 * out)  # (N * h, 2 w, 3 * out)
    wide = wide.view(count, height, 2 * width, 3, out).transpose(2, 3)  # (N, h, 3, 2 w, out)
    spread = rows @ wide.reshape(count, 3 * height, 2 * width * out)
    return spread.view(count, 2 * height, 2 * width, out)


def _spread(side: int, x: torch.Tensor) -> torch.Tensor:
    """Returns (2 * side, side * 3): what each place of a kernel's three adds to the pixels of the upsampled axis."""

    def make() -> torch.Tensor:
        places = torch.arange(side, dtype=torch.float32, device=x.device)[:, None]
        fine = torch.arange(2 * side, dtype=torch.float32, device=x.device)[:, None, None]
        seen = fine + torch.arange(-1, 2, dtype=torch.float32, device=x.device)  # by each of the kernel's places
        # Bilinear interpolation repeats the pixels at the border, and the kernel sees zeros beyond it.
        weights = (1 - ((seen / 2 - 0.25).clamp(0, side - 1) - places).abs()).clamp(min=0)  # (2 * side, side, 3)
        return (weights * ((seen >= 0) & (seen < 2 * side))).flatten(1).to(x.dtype)

    return _SPREADS((side, x.dtype), make, x.device)
