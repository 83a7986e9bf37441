# SPDX-License-Identifier: Apache-2.0
"""How near two computations of floats must come, on whatever processor.

Processors add products in other orders, so that no two computations need be equal bit by bit, and a value near zero
carries the rounding of the large ones that it was summed from. Limits therefore go by the largest value. Equality is
for integers and for values that were only copied, loaded or moved.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

Array = torch.Tensor | np.ndarray | float

UNSETTLED_SHARE = 0.2
"""Tensors whose gradient is rounding alone, as of a bias ahead of a norm: Adam moves them as far as any, either way."""


def assert_near(
    actual: Array, expected: Array, relative: float = 1e-5, scale: float | None = None, message: str = ""
) -> None:
    """Fails unless every value lies within ``relative * scale`` of the expected one.

    Args:
        actual: Values of any shape.
        expected: Values of the same shape, or one number for all.
        relative: Largest allowed error as a share of ``scale``. Single precision rounds to 6e-8; networks of a few
            layers come within 2e-6.
        scale: Size of the numbers, by default the largest absolute value of ``expected``.
        message: Says what is compared.
    """
    found, wanted = _values(actual), _values(expected)
    if wanted.ndim == 0:
        wanted = np.broadcast_to(wanted, found.shape)
    assert found.shape == wanted.shape, f"{message} has the shape {found.shape}, expected {wanted.shape}"
    finite = np.isfinite(wanted)
    same = np.where(np.isnan(wanted), np.isnan(found), found == wanted)[~finite]
    assert same.all(), f"{message}: {np.size(same) - np.count_nonzero(same)} values that are not finite differ"
    if scale is None:
        scale = float(np.abs(wanted[finite]).max(initial=0.0))
    error = np.abs(found - wanted)[finite]
    worst = float(error.max(initial=0.0))
    assert worst <= relative * scale, (
        f"{message}: an error of {worst:.3g} among values up to {scale:.3g} is {worst / max(scale, 1e-300):.3g} of "
        f"them, {relative:.3g} is allowed; {np.count_nonzero(~(error <= relative * scale))} of {error.size} values "
        "differ by more"
    )


def assert_same_training(
    first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor], start: Mapping[str, torch.Tensor]
) -> None:
    """Fails unless two trainings from ``start`` went the same way.

    Rounding errors grow in a training, so that weights are compared by how far they moved: in four of five tensors,
    nearly all values must lie within a hundredth of the tensor's largest step. A training with another order of
    batches, or without the optimizer's state, moves nearly all tensors elsewhere.
    """
    assert first.keys() == second.keys() == start.keys()
    trained, apart = [], []
    for name, begun in start.items():
        step = (first[name] - begun).abs().max() if begun.is_floating_point() else 0
        if step > 0:
            trained.append(name)
            if ((first[name] - second[name]).abs() > 0.01 * step).float().mean() > 0.1:
                apart.append(name)
        else:
            assert torch.equal(first[name], second[name]), f"{name} was not trained but differs"
    assert trained, "nothing was trained"
    assert len(apart) <= UNSETTLED_SHARE * len(trained), (
        f"{len(apart)} of {len(trained)} tensors were trained to other values: {', '.join(apart[:5])}, ..."
    )


def _values(values: Array) -> np.ndarray:
    """Double precision: the comparison itself must not round."""
    if isinstance(values, torch.Tensor):
        return values.detach().cpu().double().numpy()
    return np.asarray(values, np.float64)
