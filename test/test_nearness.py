# SPDX-License-Identifier: Apache-2.0
"""What the limits of the other tests let pass and what they catch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nearness import assert_near, assert_same_training

SUPPORT = Path(__file__).parent / "support"


def test_a_limit_goes_by_the_largest_value() -> None:
    expected = torch.tensor([100.0, 1e-3])
    assert_near(expected + torch.tensor([0.0, 9e-4]), expected, relative=1e-5)
    with pytest.raises(AssertionError, match=r"1.1e-05 of them, 1e-05 is allowed; 1 of 2"):
        assert_near(expected + torch.tensor([0.0, 1.1e-3]), expected, relative=1e-5)
    with pytest.raises(AssertionError, match="is allowed"):
        assert_near(expected + 1e-4, expected, relative=1e-5, scale=1.0)


@pytest.mark.parametrize("wrong", [[1.0], [[1.0, np.nan]], [1.0, 2.0], [np.inf, np.nan], [np.nan, np.nan]])
def test_shapes_and_what_is_not_finite_must_be_equal(wrong: list) -> None:
    assert_near(np.array([1.0, np.nan]), np.array([1.0, np.nan]))
    with pytest.raises(AssertionError):
        assert_near(np.array(wrong), np.array([1.0, np.nan]))


@torch.no_grad()
def test_small_mistakes_are_caught() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 8, 6, 6)
    norm, shallow = nn.GroupNorm(1, 8, eps=1e-5), nn.GroupNorm(1, 8, eps=1e-4)
    with pytest.raises(AssertionError):
        assert_near(shallow(x), norm(x))
    right, wrong = (
        nn.functional.interpolate(x, size=(9, 9), mode="bilinear", align_corners=corners) for corners in (False, True)
    )
    with pytest.raises(AssertionError):
        assert_near(wrong, right)
    with pytest.raises(AssertionError):
        assert_near(nn.functional.gelu(x, approximate="tanh"), nn.functional.gelu(x))


def trained(seed: int, forget_at: int | None = None) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(the weights of a small training, those it began with); ``forget_at`` drops the optimizer's state."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
    start = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    generator = torch.Generator().manual_seed(seed)
    for step in range(12):
        if step == forget_at:
            optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
        optimizer.zero_grad()
        model(torch.randn(8, 4, generator=generator)).square().mean().backward()
        optimizer.step()
    return dict(model.state_dict()), start


def test_trainings_that_went_another_way_are_told_apart() -> None:
    whole, start = trained(seed=0)
    assert_same_training(whole, {name: value + 1e-7 * torch.randn(value.shape) for name, value in whole.items()}, start)
    for other, _ in (trained(seed=1), trained(seed=0, forget_at=6)):
        with pytest.raises(AssertionError, match="were trained to other values"):
            assert_same_training(whole, other, start)


def test_rounding_changes_bits_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "test_products.py").write_text(
        "import torch\n"
        "def product():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.randn(20, 30) @ torch.randn(30, 20)\n"
        "def test_bits():\n"
        "    assert not torch.equal(product(), product())\n"
        "def test_values():\n"
        "    assert (product() - product()).abs().max() < 1e-5 * product().abs().max()\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "rounding", str(tmp_path)]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(SUPPORT)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
