# SPDX-License-Identifier: Apache-2.0
"""The thresholds of several prompts, which are mostly one and the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from clip_seg_ros.pipeline.postprocess import require_threshold


@dataclass(frozen=True)
class Thresholds:
    """Above which probability a pixel belongs to a prompt.

    Raises:
        ValueError: A threshold does not lie in 0..1.
    """

    usual: float
    """That of all prompts without one of their own, 0..1."""
    own: tuple[tuple[str, float], ...] = ()
    """Prompts with thresholds of their own, 0..1."""

    def __post_init__(self) -> None:
        require_threshold(self.usual)
        for _, threshold in self.own:
            require_threshold(threshold)

    def of(self, prompt: str) -> float:
        """Returns the threshold of a prompt, 0..1."""
        return next((threshold for name, threshold in self.own if name == prompt), self.usual)

    def groups(self, prompts: Iterable[str]) -> list[tuple[float, list[str]]]:
        """Returns the prompts that share a threshold, with it; there is always a first group, which may be empty."""
        if not self.own:
            return [(self.usual, list(prompts))]
        found: dict[float, list[str]] = {}
        for prompt in prompts:
            found.setdefault(self.of(prompt), []).append(prompt)
        return list(found.items()) or [(self.usual, [])]
