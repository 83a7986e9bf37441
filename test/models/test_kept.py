# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import threading
from collections.abc import Callable

import pytest
import torch
from torch import nn

from clip_seg_ros.models import kept
from clip_seg_ros.models.kept import KeptTensors
from nearness import assert_near

CPU = torch.device("cpu")


class Doubled:
    """Doubles a weight, and counts how often it had to."""

    def __init__(self, capacity: int = 8) -> None:
        self.layer = nn.Linear(3, 2)
        self.kept = KeptTensors(capacity)
        self.made = 0

    def __call__(self, key: object = "all") -> torch.Tensor:
        weight = self.layer.weight

        def make() -> torch.Tensor:
            self.made += 1
            return 2 * weight

        found = self.kept(key, make, weight.device, weight)
        assert torch.equal(found, 2 * weight), "an old weight was doubled"
        return found


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_is_made_once_for_each_key(mode: Callable) -> None:
    doubled = Doubled()
    with mode():
        assert doubled("a") is doubled("a")
        doubled("b")
        doubled("a")
    assert doubled.made == 2


def step(layer: nn.Linear) -> None:
    layer.weight.grad = torch.ones_like(layer.weight)
    torch.optim.SGD(layer.parameters(), lr=0.1).step()


def replace_weight(layer: nn.Linear) -> None:
    layer.weight = nn.Parameter(layer.weight.detach() + 1)


CHANGES = {
    "an optimizer's step": step,
    "load_state_dict": lambda layer: layer.load_state_dict(nn.Linear(3, 2).state_dict()),
    "load_state_dict with assign": lambda layer: layer.load_state_dict(nn.Linear(3, 2).state_dict(), assign=True),
    "another precision": lambda layer: layer.double(),
    "another parameter": replace_weight,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@torch.no_grad()
def test_it_is_made_anew_when_the_weight_changes(change: Callable[[nn.Linear], None]) -> None:
    doubled = Doubled()
    doubled()
    change(doubled.layer)
    doubled()
    doubled()
    assert doubled.made == 2


def test_gradients_reach_the_weight() -> None:
    doubled = Doubled()
    with torch.inference_mode():
        doubled()
    doubled().sum().backward()
    assert torch.equal(doubled.layer.weight.grad, torch.full((2, 3), 2.0))
    assert doubled.made == 2


@torch.no_grad()
def test_the_one_that_was_made_first_goes_first() -> None:
    doubled = Doubled(capacity=2)
    for key in ("a", "b", "a", "c", "b", "c"):
        doubled(key)
    assert doubled.made == 3
    doubled("a")
    assert doubled.made == 4


def test_a_copy_keeps_what_is_its_own() -> None:
    doubled = Doubled()
    with torch.inference_mode():
        doubled()
    other = copy.deepcopy(doubled)
    with torch.no_grad():
        other.layer.weight += 1
        other()
        doubled()
    assert (doubled.made, other.made) == (1, 2)


@torch.no_grad()
def test_what_a_recorded_graph_uses_stays_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    doubled = Doubled()
    before = doubled("a")
    with monkeypatch.context() as patch:
        patch.setattr(kept, "_recorded", lambda device: True)
        with kept.noting_use() as used:
            assert doubled("a") is before
            inside = doubled("b")  # its memory belongs to the graph
        assert [id(tensor) for tensor in used] == [id(before)]
        assert doubled("a") is not before
    assert doubled("b") is not inside
    assert doubled("a") is before
    assert [id(tensor) for tensor in used] == [id(before)]


def test_nothing_kept_enters_an_exported_program() -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))
            self.kept = KeptTensors()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.kept("twice", lambda: 2 * self.weight, x.device, self.weight)

    layer = Layer()
    x = torch.zeros(3)
    with torch.no_grad():
        layer(x)
        program = torch.export.export(layer, (x,)).module()
        assert_near(program(x), layer(x))  # nothing of the export was kept, either
    assert not program.state_dict().keys() - {"weight"}


def test_threads_share_it() -> None:
    shared, wrong = KeptTensors(capacity=2), []

    def ask(offset: int) -> None:
        with torch.inference_mode():
            for index in range(300):
                number = (offset * index) % 5
                if shared(number, lambda: torch.tensor(number), CPU).item() != number:
                    wrong.append(number)

    threads = [threading.Thread(target=ask, args=(offset,)) for offset in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
