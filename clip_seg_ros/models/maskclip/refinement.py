# SPDX-License-Identifier: Apache-2.0
"""Refinements of dense labels: MaskCLIP's two refinements, and PAMR."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F

ABSENT_LOGIT = -100.0
"""The logit of a class that prompt denoising rules out."""
PAMR_DILATIONS = (1, 2, 4, 8, 12, 24)
_PAMR_SHARPNESS = 0.1
_NEVER_ZERO = 1e-8


def denoise_prompts(logits: torch.Tensor, threshold: float, logit_scale: float) -> torch.Tensor:
    """Rules out classes without a sure place: "prompt denoising" of MaskCLIP (Zhou et al., ECCV 2022, section 3.3).

    Args:
        logits: (B, P, h, w) cosines.
        threshold: A class whose probability is below this everywhere in an image gets ``ABSENT_LOGIT`` there, 0..1.
        logit_scale: CLIP's scale, 100.

    Returns:
        (B, P, h, w). If every class is ruled out, all have the same probability, as in the authors' program.
    """
    highest = (logit_scale * logits).softmax(dim=1).amax(dim=(2, 3), keepdim=True)
    return torch.where(highest < threshold, logits.new_tensor(ABSENT_LOGIT), logits)


def smooth_by_keys(logits: torch.Tensor, keys: torch.Tensor, threshold: float, logit_scale: float) -> torch.Tensor:
    """Smooths uncertain places over places with similar keys (MaskCLIP section 3.3 "key smoothing", equation 3).

    As in the authors' program, keys are normalised over places, and the sums are not normalised.

    Args:
        logits: (B, P, h, w) cosines.
        keys: (B, h * w, C) of the last attention.
        threshold: Places whose highest probability is below this are smoothed, 0..1; 1 for all that are not certain.
        logit_scale: CLIP's scale, 100.

    Returns:
        (B, P, h, w): probabilities at certain places, and sums of probabilities weighted by similarity at all others.
    """
    probabilities = (logit_scale * logits).softmax(dim=1).flatten(2)  # (B, P, N)
    keys = F.normalize(keys, dim=1)
    smoothed = (probabilities @ keys) @ keys.transpose(1, 2)  # the weights k k^T are never written out
    unsure = probabilities.amax(dim=1, keepdim=True) < threshold
    return torch.where(unsure, smoothed, probabilities).unflatten(2, logits.shape[2:])


def pamr(
    image: torch.Tensor, values: torch.Tensor, iterations: int, dilations: Sequence[int] = PAMR_DILATIONS
) -> torch.Tensor:
    """Aligns labels with the edges of the image (PAMR: Araslanov and Roth, CVPR 2020, section 3.3).

    With x the image, m the values, N the neighbours of a place i at all dilations and s_i the standard deviation of
    the colours there, i itself counted at every dilation::

        k_ij = -|x_i - x_j| / (0.1 s_i + 1e-8), averaged over the colours
        m_i <- sum over j in N of softmax_j(k_ij) m_j

    With repetition, labels spread up to edges and no further.

    Args:
        image: (B, 3, H, W), normalised or not; only differences count.
        values: (B, P, H, W).
        iterations: The number of repetitions.
        dilations: Distances of the 8 neighbours in pixels.

    Returns:
        (B, P, H, W), within the range of ``values``; where those sum to 1 over P, these do too.
    """
    neighbours = torch.stack(list(_neighbours(image, dilations)), dim=2)  # (B, 3, K, H, W)
    centre = image[:, :, None]
    window = torch.cat([neighbours, centre.expand(-1, -1, len(dilations), -1, -1)], dim=2)
    deviation = window.std(dim=2, keepdim=True)
    affinity = -((neighbours - centre).abs() / (_NEVER_ZERO + _PAMR_SHARPNESS * deviation)).mean(dim=1)
    weights = affinity.softmax(dim=1)[:, None]  # (B, 1, K, H, W)
    if torch.compiler.is_compiling():
        # In a program for another runtime, a slice for every neighbour and repetition takes minutes to convert.
        places = _neighbour_places(values.shape[2], values.shape[3], dilations, values.device)
        for _ in range(iterations):
            around = values.flatten(2)[:, :, places].unflatten(2, weights.shape[2:])  # (B, P, K, H, W)
            values = (around * weights).sum(dim=2)
        return values
    for _ in range(iterations):
        refined = torch.zeros_like(values)
        for neighbour, weight in zip(_neighbours(values, dilations), weights.unbind(dim=2), strict=True):
            refined.addcmul_(neighbour, weight)
        values = refined
    return values


def sums_to_probabilities(values: torch.Tensor) -> torch.Tensor:
    """Converts the result of ``smooth_by_keys`` (B, P, h, w) to probabilities that sum to 1 over P.

    Negative sums count as 0; a place without positive sums gets equal probabilities.
    """
    positive = values.clamp(min=_NEVER_ZERO)
    return positive / positive.sum(dim=1, keepdim=True)


def _neighbours(x: torch.Tensor, dilations: Sequence[int]) -> Iterator[torch.Tensor]:
    """Yields the neighbours of every place of (B, C, H, W), 8 views of this shape for each dilation; borders repeat."""
    height, width = x.shape[2:]
    for distance in dilations:
        padded = F.pad(x, (distance,) * 4, mode="replicate")
        for row in (0, distance, 2 * distance):
            for column in (0, distance, 2 * distance):
                if (row, column) != (distance, distance):
                    yield padded[:, :, row : row + height, column : column + width]


def _neighbour_places(height: int, width: int, dilations: Sequence[int], device: torch.device) -> torch.Tensor:
    """Returns the places (K * height * width) of ``_neighbours`` in a flattened map, one neighbour after the other."""
    rows, columns = (torch.arange(side, device=device) for side in (height, width))
    places = []
    for distance in dilations:
        for down in (-distance, 0, distance):
            for right in (-distance, 0, distance):
                if (down, right) != (0, 0):
                    row, column = (rows + down).clamp(0, height - 1), (columns + right).clamp(0, width - 1)
                    places.append(row[:, None] * width + column)
    return torch.stack(places).flatten()
