# SPDX-License-Identifier: Apache-2.0
"""Checks the prompts of a question before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence

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
