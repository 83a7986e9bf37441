# SPDX-License-Identifier: Apache-2.0
"""The optimiser: learning rates over time and for parts of a model, weight decay, mixed precision, and clipping."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

Precision = Literal["float32", "bfloat16", "float16"]
Decay = Literal["all", "without_norms", "matrices"]
"""Which parameters decay: ``all``, as in PyTorch's AdamW; ``without_norms``, all but those with "norm" in their names,
as in DenseCLIP's configuration; ``matrices``, matrices and kernels, but no vectors and scalars (biases, norms)."""
_KINDS = ("cosine", "milestones", "poly", "constant")
_WARMUPS = ("linear", "constant", "exponential")


@dataclass(frozen=True)
class Warmup:
    """The factor on the learning rate over the first steps of a stage; afterwards it is 1.

    With the share ``ratio`` of the first step, ``linear`` rises evenly, ``exponential`` by the same factor at each
    step, and ``constant`` stays until the warm-up ends.
    """

    steps: int = 0
    """The number of steps; 0: no warm-up."""
    kind: Literal["linear", "constant", "exponential"] = "linear"
    ratio: float = 1e-6

    def __post_init__(self) -> None:
        if self.kind not in _WARMUPS:
            raise ValueError(f'there is no warm-up "{self.kind}": use one of {", ".join(_WARMUPS)}')
        if self.steps < 0 or not 0 < self.ratio <= 1:
            raise ValueError(
                f"a warm-up takes 0 steps or more from a ratio in 0..1, not {self.steps} from {self.ratio}"
            )

    def share(self, step: int) -> float:
        """Returns the factor on the learning rate, 0..1, at ``step``, counted from 0."""
        if step >= self.steps:
            return 1.0
        if self.kind == "constant":
            return self.ratio
        done = step / self.steps
        return self.ratio + (1 - self.ratio) * done if self.kind == "linear" else self.ratio ** (1 - done)


def rising(steps: int) -> Warmup:
    """Returns the warm-up in which step n of ``steps``, counted from 1, has the share n / ``steps``."""
    return Warmup(steps - 1, ratio=1 / steps)


SMALL_RUN: dict[str, Any] = {"warmup": rising(100), "betas": (0.9, 0.98), "clip_norm": 1.0, "decay": "matrices"}
"""The settings of a ``Stage`` with which small models learn in a few thousand steps of small batches; the embedded
models and students are trained with them."""


@dataclass(frozen=True)
class Schedule:
    """The factor on the learning rate over the steps of a stage.

    ``cosine`` falls from 1 to ``floor`` along half a cosine; CLIPSeg's 1e-3 to 1e-4 is a floor of 0.1.
    ``milestones`` multiplies by ``factor`` at each of the steps ``milestones``, as CRIS does.
    ``poly`` is ``floor + (1 - floor) * (1 - step / steps) ** power``, as in DenseCLIP.
    ``constant`` stays at 1.
    """

    kind: Literal["cosine", "milestones", "poly", "constant"] = "cosine"
    floor: float = 0.02
    milestones: tuple[int, ...] = ()
    factor: float = 0.1
    power: float = 0.9
    least: float = 0.0
    """The lowest learning rate of every parameter that is trained, whatever its own factor: a rate r becomes
    ``least + (r - least) * factor``. DenseCLIP's is 1e-6."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "milestones", tuple(self.milestones))
        if self.kind not in _KINDS:
            raise ValueError(f'there is no schedule "{self.kind}": use one of {", ".join(_KINDS)}')
        if not 0 <= self.floor <= 1:
            raise ValueError(f"the floor of a schedule is a share of the learning rate, 0..1, not {self.floor}")
        if (self.kind == "milestones") != bool(self.milestones):
            raise ValueError('milestones belong to the schedule "milestones", and it needs at least one')

    def share(self, step: int, steps: int) -> float:
        """Returns the factor on the learning rate, 0..1, at ``step`` of ``steps``, counted from 0."""
        if self.kind == "cosine":
            return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * step / steps))
        if self.kind == "poly":
            return self.floor + (1 - self.floor) * (1 - step / steps) ** self.power
        return self.factor ** sum(step >= milestone for milestone in self.milestones)


def make_adamw(
    module: nn.Module,
    weight_decay: float,
    rate_factors: Sequence[tuple[str, float]] = (),
    betas: tuple[float, float] = (0.9, 0.999),
    decay: Decay = "all",
) -> torch.optim.AdamW:
    """Builds AdamW over the parameters of ``module`` that require gradients; ``set_rates`` sets its rates.

    Args:
        module: The module to train.
        weight_decay: The weight decay; with 0, AdamW is Adam.
        rate_factors: (start of the parameters' names, factor on their learning rate); the longest match counts, and
            the factor is 1 without a match. ``[("backbone.", 0.1)]`` trains DenseCLIP's image tower at a tenth of the
            rate; 0 freezes parameters.
        betas: The betas of AdamW.
        decay: The parameters to which weight decay applies.

    Raises:
        ValueError: No parameter is to be trained, or a start matches no trained parameter.
    """
    return torch.optim.AdamW(_groups(module, weight_decay, rate_factors, decay), betas=betas)


def make_sgd(
    module: nn.Module,
    weight_decay: float,
    momentum: float,
    rate_factors: Sequence[tuple[str, float]] = (),
    decay: Decay = "all",
) -> torch.optim.SGD:
    """Builds stochastic gradient descent; the arguments and errors are ``make_adamw``'s.

    Args:
        module, weight_decay, rate_factors, decay: As for ``make_adamw``.
        momentum: The share of the last step that the next one keeps, 0..1.
    """
    # The rate is set before each step; PyTorch before 2.2 has no default for it.
    return torch.optim.SGD(_groups(module, weight_decay, rate_factors, decay), lr=1e-3, momentum=momentum)


def _groups(
    module: nn.Module, weight_decay: float, rate_factors: Sequence[tuple[str, float]], decay: Decay
) -> list[dict[str, Any]]:
    """Returns the parameters in groups of one factor and one weight decay."""
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    if not named:
        raise ValueError("no parameter requires a gradient: there is nothing to train")
    for prefix, _ in rate_factors:
        if not any(name.startswith(prefix) for name, _ in named):
            raise ValueError(f'no trained parameter starts with "{prefix}", for which a learning rate is given')
    parts: dict[float, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in named:
        fitting = [(len(prefix), factor) for prefix, factor in rate_factors if name.startswith(prefix)]
        parts.setdefault(max(fitting)[1] if fitting else 1.0, []).append((name, parameter))
    groups = []
    for factor in sorted(parts, reverse=True):
        decayed = [p for name, p in parts[factor] if _decays(name, p, decay)]
        plain = [p for name, p in parts[factor] if not _decays(name, p, decay)]
        groups.append({"params": decayed, "weight_decay": weight_decay, "rate_factor": factor})
        groups.append({"params": plain, "weight_decay": 0.0, "rate_factor": factor})
    return groups


def _decays(name: str, parameter: nn.Parameter, decay: Decay) -> bool:
    if decay == "matrices":
        return parameter.ndim > 1
    return decay == "all" or "norm" not in name


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Loads a saved state into ``optimizer``, but keeps the factors of its groups, which older states do not have.

    Raises:
        ValueError: The state belongs to other parameters.
    """
    factors = [group["rate_factor"] for group in optimizer.param_groups]
    optimizer.load_state_dict(dict(state))
    for group, factor in zip(optimizer.param_groups, factors, strict=True):
        group["rate_factor"] = factor


def set_rates(
    optimizer: torch.optim.Optimizer, rate: float, share: float = 1.0, least: float = 0.0, with_factors: bool = True
) -> None:
    """Sets every group's learning rate: ``rate`` times the group's factor, which falls to ``share`` of the way to
    ``least``.

    Args:
        optimizer: The optimiser of ``make_adamw``.
        rate: The learning rate without factors.
        share: The share of the schedule, 0..1.
        least: The lowest rate of a group; a group with the factor 0 stays at 0.
        with_factors: Whether the factors count; otherwise all trained groups have the same rate.
    """
    for group in optimizer.param_groups:
        factor = group["rate_factor"]
        own = rate * (factor if with_factors else float(factor > 0))
        group["lr"] = least + (own - least) * share if own else 0.0


class MixedPrecision:
    """Autocast on one device, and for float16 the scaling of the loss, so that small gradients do not vanish.

    Args:
        precision: The precision of activations; weights keep theirs.
        device: The device of the model.

    Raises:
        ValueError: There is no such precision, or this PyTorch is too old for it.
    """

    def __init__(self, precision: Precision, device: torch.device) -> None:
        if precision not in ("float32", "bfloat16", "float16"):
            raise ValueError(f'there is no precision "{precision}": use float32, bfloat16 or float16')
        self._device_type = device.type
        self._dtype = getattr(torch, precision)
        self._scaler = None
        if precision == "float16":
            if not hasattr(torch.amp, "GradScaler"):
                raise ValueError("float16 needs PyTorch 2.3 or newer: use bfloat16 or float32")
            self._scaler = torch.amp.GradScaler(device.type)

    def autocast(self) -> AbstractContextManager:
        """Returns the context in which losses are computed."""
        if self._dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self._device_type, self._dtype)

    def backward(self, loss: torch.Tensor) -> None:
        """Adds the gradients of ``loss``, scaled if the precision needs it."""
        (loss if self._scaler is None else self._scaler.scale(loss)).backward()

    def step(
        self, optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], clip_norm: float | None
    ) -> None:
        """Clips the common norm of the gradients of ``parameters`` to ``clip_norm``, if it is given, and takes a step.

        With float16, a step whose gradients overflow is left out, and the scale is halved.
        """
        if clip_norm is not None:
            if self._scaler is not None:
                self._scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(parameters, clip_norm)
        if self._scaler is None:
            optimizer.step()
            return
        self._scaler.step(optimizer)
        self._scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """Returns the state for a resumed run: the scale, if there is one."""
        return {} if self._scaler is None else self._scaler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Loads the result of ``state_dict``, which may be empty."""
        if self._scaler is not None and state:
            self._scaler.load_state_dict(dict(state))
