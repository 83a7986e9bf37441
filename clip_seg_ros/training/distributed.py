# SPDX-License-Identifier: Apache-2.0
"""Training in several processes or on several machines, started by ``torchrun``.

Every process draws the same global batch from the same seed and works on its part of it. Gradients are averaged after
the backward pass, so that N processes take the same steps as one. In a single process, every function here does
nothing. N processes differ from one in two ways: BatchNorm in training mode sees only the part of its own process,
unless ``synchronise_norms`` changes that, and dropout differs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

T = TypeVar("T")
Batch = TypeVar("Batch", bound=Sequence)


class ProcessLost(RuntimeError):
    """Another process of the training stopped or does not respond."""


@contextmanager
def joined(device: torch.device, timeout_s: float = 600.0) -> Iterator[torch.device]:
    """Joins the processes that ``torchrun`` started, for as long as the context is open.

    Args:
        device: The CPU, whose processes communicate through gloo, or CUDA, whose processes communicate through NCCL;
            each process takes one GPU of its machine.
        timeout_s: How many seconds a process waits for the others before it gives up. Each step waits for the slowest
            process, and each save for the disk of the first one.

    Yields:
        The device of this process: ``device`` itself without ``torchrun``.

    Raises:
        ProcessLost: The processes did not find each other in time.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ or not dist.is_available():
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    _guarded(lambda: dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s)))
    # This is not done after an error, because it waits for the others, which would then never learn of the error.
    yield device
    dist.destroy_process_group()


def world_size() -> int:
    """Returns the number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Returns the number of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def share(items: Batch) -> Batch:
    """Returns this process's part of a global batch: anything with a length and slices, the same in every process.

    Raises:
        ValueError: The parts would differ in size, so that their mean would not be that of the batch.
    """
    count, parts = len(items), world_size()
    if count % parts:
        raise ValueError(f"a batch of {count} cannot be shared equally by {parts} processes: use a multiple of {parts}")
    size = count // parts
    return items[rank() * size : (rank() + 1) * size]


def broadcast_object(make: Callable[[], T]) -> T:
    """Calls ``make`` in the first process and returns its result, or raises its ValueError, in every process."""
    if world_size() == 1:
        return make()
    outcome: list = [None, None]
    if rank() == 0:
        try:
            outcome[0] = make()
        except ValueError as error:
            outcome[1] = str(error)
    _guarded(lambda: dist.broadcast_object_list(outcome))
    if outcome[1] is not None:
        raise ValueError(outcome[1])
    return outcome[0]


@torch.no_grad()
def broadcast_module(module: nn.Module) -> None:
    """Copies the first process's parameters and buffers to every process."""
    if world_size() > 1:
        for tensor in (*module.parameters(), *module.buffers()):
            _broadcast(tensor)


def _broadcast(tensor: torch.Tensor) -> None:
    # Collectives need contiguous memory; channels_last kernels have another order.
    dense = tensor.detach().contiguous()
    _guarded(lambda: dist.broadcast(dense, 0))
    tensor.copy_(dense)


@torch.no_grad()
def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replaces every gradient by its mean over the processes.

    A process in which a parameter has no gradient counts as zeros; a parameter without a gradient in any process stays
    without one, as in a single process. All gradients of a data type are sent in one message.
    """
    if world_size() == 1 or not parameters:
        return
    used = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32, device=parameters[0].device)
    _sum(used)
    by_type: dict[torch.dtype, list[nn.Parameter]] = {}
    for parameter, count in zip(parameters, used.tolist(), strict=True):
        if count:
            by_type.setdefault(parameter.dtype, []).append(parameter)
    for group in by_type.values():
        for parameter in group:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([parameter.grad.flatten() for parameter in group])
        _sum(flat)
        flat /= world_size()
        for parameter, part in zip(group, flat.split([p.numel() for p in group]), strict=True):
            parameter.grad.copy_(part.view(parameter.shape))


@torch.no_grad()
def mean(values: torch.Tensor) -> torch.Tensor:
    """Returns the mean of ``values`` (any shape, the same in every process) over the processes."""
    if world_size() == 1:
        return values
    total = values.clone()
    _sum(total)
    return total / world_size()


@torch.no_grad()
def average_statistics(module: nn.Module) -> None:
    """Replaces BatchNorm's running statistics, which each process computes on its own part, by their mean.

    They are running means themselves, so that it does not matter how often this happens: at the end they are the mean
    over all parts. The variance between parts is left out, as the variance between batches is.
    """
    if world_size() == 1:
        return
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._NormBase) and part.running_mean is not None:
            part.running_mean.copy_(mean(part.running_mean))
            part.running_var.copy_(mean(part.running_var))


def synchronise_norms(module: nn.Module, device: torch.device) -> None:
    """Makes every BatchNorm inside ``module`` normalise by the batch of all processes, in place.

    PyTorch can do so on GPUs alone: on a CPU and in a single process, nothing changes.
    """
    if world_size() > 1 and device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(module)


def decided_by_first(flag: bool, device: torch.device) -> bool:
    """Returns the first process's ``flag`` in every process."""
    if world_size() == 1:
        return flag
    vote = torch.tensor([float(flag and rank() == 0)], device=device)
    _sum(vote)
    return bool(vote.item())


def _sum(tensor: torch.Tensor) -> None:
    _guarded(lambda: dist.all_reduce(tensor))


def _guarded(collective: Callable[[], object]) -> None:
    try:
        collective()
    except RuntimeError as error:
        raise ProcessLost(
            f"process {os.environ.get('RANK')} of {os.environ.get('WORLD_SIZE')} waited for the others in vain: one of "
            f"them stopped (its own message says why) or does not answer in time ({error})"
        ) from error
