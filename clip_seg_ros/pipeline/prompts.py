# SPDX-License-Identifier: Apache-2.0
"""Checks the prompts of a question before anything is computed."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch

from clip_seg_ros.models.spec import ModelSpec


def checked_prompts(prompts: Sequence[str], spec: ModelSpec) -> tuple[str, ...]:
    """Returns the prompts as a tuple.

    Raises:
        ValueError: There are none, they are one text instead of a list, or one is empty or not a class of the model.
    """
    if isinstance(prompts, str):
        raise ValueError(f'prompts must be a list of phrases, got the text "{prompts}": write ["{prompts}"]')
    prompts = tuple(prompts)
    if not prompts:
        raise ValueError("no prompts: ask about at least one phrase")
    known = spec.class_names
    classes = frozenset(known or ())
    for prompt in prompts:
        if not isinstance(prompt, str) or not prompt.strip():
            raise ValueError(f"a prompt must be a phrase, got {prompt!r}")
        if known is not None and prompt not in classes:
            some = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
            raise ValueError(f'"{prompt}" is not one of the {len(known)} classes of {spec.name}: {some}')
    return prompts


def competitors(prompts: tuple[str, ...], spec: ModelSpec) -> tuple[str, ...]:
    """Returns all phrases that must be decoded together to answer ``prompts``."""
    if spec.class_names is not None:
        return spec.class_names
    return prompts + tuple(phrase for phrase in spec.background_prompts if phrase not in prompts)


@functools.lru_cache(maxsize=16)  # the same prompts are asked about each image, and to send indices makes a GPU wait
def places(prompts: tuple[str, ...], asked: tuple[str, ...], device: torch.device) -> torch.Tensor:
    """Returns the indices (P,) int64 of ``prompts`` among the phrases ``asked``."""
    return torch.tensor([asked.index(prompt) for prompt in prompts], device=device)
