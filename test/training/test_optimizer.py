# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import nn

from clip_seg_ros.training.optimizer import (
    SMALL_RUN,
    MixedPrecision,
    Schedule,
    Warmup,
    load_optimizer,
    make_adamw,
    rising,
    set_rates,
)


def test_cosine_goes_from_one_to_the_floor() -> None:
    schedule = Schedule("cosine", floor=0.1)
    shares = [schedule.share(step, 100) for step in range(101)]
    assert shares[0] == 1
    assert shares[100] == pytest.approx(0.1)
    assert shares[50] == pytest.approx(0.55)
    assert shares == sorted(shares, reverse=True)


def test_cosine_is_that_of_torch() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-3)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40, eta_min=1e-4)
    for step in range(40):
        assert 1e-3 * Schedule("cosine", floor=0.1).share(step, 40) == pytest.approx(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()


def test_milestones_are_those_of_torch() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.MultiStepLR(optimizer, [7, 12], gamma=0.1)
    for step in range(20):
        assert Schedule("milestones", milestones=(7, 12)).share(step, 20) == pytest.approx(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()


def test_poly_is_the_formula() -> None:
    # (rate - least) * (1 - step / steps) ** 0.9 + least, with 1e-4 and 1e-6.
    schedule = Schedule("poly", floor=0.01)
    for step in (0, 1, 40, 79):
        expected = (1e-4 - 1e-6) * (1 - step / 80) ** 0.9 + 1e-6
        assert 1e-4 * schedule.share(step, 80) == pytest.approx(expected)


def test_the_least_rate_is_that_of_every_trained_group() -> None:
    """As in the framework of DenseCLIP's authors, where it is no share of a group's own rate."""
    optimizer = make_adamw(tower_and_head(), 0.0, [("tower.", 0.1), ("tower.b.", 0.0)])
    for step in (0, 17, 80):
        share = (1 - step / 80) ** 0.9
        set_rates(optimizer, 1e-4, share, least=1e-6)
        rates = {group["rate_factor"]: group["lr"] for group in optimizer.param_groups}
        assert rates[1.0] == pytest.approx((1e-4 - 1e-6) * share + 1e-6)
        assert rates[0.1] == pytest.approx((1e-5 - 1e-6) * share + 1e-6)
        assert rates[0.0] == 0, "frozen"
    set_rates(optimizer, 1e-4, with_factors=False)
    assert {group["rate_factor"]: group["lr"] for group in optimizer.param_groups} == {1.0: 1e-4, 0.1: 1e-4, 0.0: 0.0}


@pytest.mark.parametrize(
    ("kind", "shares"),
    [
        ("linear", [0.01, 0.01 + 0.99 / 4, 0.01 + 0.99 / 2, 0.01 + 0.99 * 3 / 4, 1.0]),
        ("constant", [0.01, 0.01, 0.01, 0.01, 1.0]),
        ("exponential", [0.01, 0.01**0.75, 0.1, 0.01**0.25, 1.0]),
    ],
)
def test_a_warmup_rises_from_its_ratio(kind: str, shares: list[float]) -> None:
    warmup = Warmup(4, kind, 0.01)
    assert [warmup.share(step) for step in range(5)] == pytest.approx(shares)
    assert warmup.share(1000) == 1
    assert Warmup().share(0) == 1, "none by default"


def test_rising_counts_from_one() -> None:
    assert [rising(4).share(step) for step in range(6)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])
    assert rising(1).share(0) == 1
    assert SMALL_RUN["warmup"] == rising(100)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kind": "cosine"}, 'no warm-up "cosine"'),
        ({"steps": -1}, "-1"),
        ({"ratio": 0.0}, "0..1"),
        ({"ratio": 2.0}, "2"),
    ],
)
def test_warmups_that_make_no_sense_are_refused(values: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Warmup(**values)


@pytest.mark.parametrize(
    ("decay", "decayed"),
    [
        ("all", {"norm1.weight", "norm1.bias", "fc.weight", "fc.bias"}),
        ("without_norms", {"fc.weight", "fc.bias"}),
        ("matrices", {"fc.weight"}),
    ],
)
def test_the_rule_says_what_decays(decay: str, decayed: set[str]) -> None:
    model = nn.ModuleDict({"norm1": nn.LayerNorm(2), "fc": nn.Linear(2, 2)})
    optimizer = make_adamw(model, 0.5, decay=decay)
    found = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {name for name, p in model.named_parameters() if found[id(p)] == 0.5} == decayed
    assert optimizer.defaults["betas"] == (0.9, 0.999), "those of PyTorch"


def test_constant_stays() -> None:
    assert {Schedule("constant").share(step, 9) for step in range(9)} == {1.0}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kind": "linear"}, 'no schedule "linear"'),
        ({"kind": "milestones"}, "at least one"),
        ({"milestones": (3,)}, "milestones belong to"),
        ({"floor": 2.0}, "0..1"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(values: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Schedule(**values)


def tower_and_head() -> nn.Module:
    torch.manual_seed(0)
    tower = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    model = nn.ModuleDict({"tower": tower, "head": nn.Linear(2, 1)})
    model["tower"]["b"].bias.requires_grad_(False)
    return model


def test_the_longest_start_of_a_name_gives_the_factor() -> None:
    model = tower_and_head()
    optimizer = make_adamw(model, 0.5, [("tower.", 0.1), ("tower.b.", 0.0)], decay="matrices")
    set_rates(optimizer, 2.0)
    found = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    named = {name: found.get(id(p)) for name, p in model.named_parameters()}
    assert named == {
        "tower.a.weight": (0.2, 0.5),
        "tower.a.bias": (0.2, 0.0),
        "tower.b.weight": (0.0, 0.5),
        "tower.b.bias": None,
        "head.weight": (2.0, 0.5),
        "head.bias": (2.0, 0.0),
    }


def test_a_factor_for_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r'starts with "towr."'):
        make_adamw(tower_and_head(), 0.0, [("towr.", 0.1)])
    with pytest.raises(ValueError, match="nothing to train"):
        make_adamw(tower_and_head().requires_grad_(False), 0.0)


def test_a_state_without_factors_keeps_those_of_the_optimizer() -> None:
    model = tower_and_head()
    old = make_adamw(model, 0.1)
    state = old.state_dict()
    for group in state["param_groups"]:
        del group["rate_factor"]
    optimizer = make_adamw(model, 0.1)
    load_optimizer(optimizer, state)
    assert [group["rate_factor"] for group in optimizer.param_groups] == [1.0, 1.0]
    with pytest.raises(ValueError, match="parameter groups"):
        load_optimizer(make_adamw(model, 0.1, [("head.", 0.1)]), state)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_losses_are_computed_in_the_precision(precision: str) -> None:
    amp = MixedPrecision(precision, torch.device("cpu"))
    layer = nn.Linear(4, 4)
    with amp.autocast():
        assert layer(torch.ones(1, 4)).dtype == getattr(torch, precision)
    assert layer.weight.dtype == torch.float32


def test_float16_keeps_gradients_that_would_vanish() -> None:
    amp = MixedPrecision("float16", torch.device("cpu"))
    layer = nn.Linear(4, 1, bias=False)
    nn.init.ones_(layer.weight)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    with amp.autocast():
        loss = layer(torch.ones(1, 4)).float().sum() * 1e-8
    amp.backward(loss)
    amp.step(optimizer, list(layer.parameters()), None)
    assert torch.allclose(layer.weight.grad, torch.full((1, 4), 1e-8), rtol=1e-2)


def test_a_float16_step_that_overflows_is_left_out() -> None:
    amp = MixedPrecision("float16", torch.device("cpu"))
    layer = nn.Linear(2, 1)
    before, scale = layer.weight.clone(), amp.state_dict()["scale"]
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    amp.backward(layer(torch.ones(1, 2)).sum() * 1e38)
    amp.step(optimizer, list(layer.parameters()), 1.0)
    assert torch.equal(layer.weight, before)
    assert amp.state_dict()["scale"] == scale / 2
    again = MixedPrecision("float16", torch.device("cpu"))
    again.load_state_dict(amp.state_dict())
    assert again.state_dict() == amp.state_dict()


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match='no precision "int8"'):
        MixedPrecision("int8", torch.device("cpu"))
