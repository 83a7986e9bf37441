# SPDX-License-Identifier: Apache-2.0
"""The devices that models run on, and the precisions that they compute in."""

from __future__ import annotations

import re

import torch

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def require_precision(name: str) -> torch.dtype:
    """Returns the torch dtype of the precision ``name``. Raises ValueError if it is not one of ``PRECISIONS``."""
    if name not in PRECISIONS:
        raise ValueError(f'unknown precision "{name}": use {" or ".join(PRECISIONS)}')
    return PRECISIONS[name]


def resolve_device(name: str) -> torch.device:
    """Returns the device that ``name`` ("auto", "cpu", "cuda" or "cuda:N") stands for on this machine.

    Raises:
        ValueError: The name is unknown, or torch sees no such device on this machine.
    """
    cuda_count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if cuda_count else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    match = re.fullmatch(r"cuda(?::(\d{1,2}))?", name)
    if match is None:
        raise ValueError(f'unknown device "{name}": use auto, cpu, cuda or cuda:N')
    if int(match[1] or 0) >= cuda_count:
        raise ValueError(f'device "{name}" is not available: torch sees {cuda_count} CUDA devices; use auto or cpu')
    return torch.device(name)
