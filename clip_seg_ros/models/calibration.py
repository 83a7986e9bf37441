# SPDX-License-Identifier: Apache-2.0
"""Corrects the probabilities of trained weights: they mean what they say, and one threshold fits every phrase."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the nodes read specifications before torch is there
    import torch

_LEAST_DOUBT = 1e-4
"""How far from 0 and from 1 the threshold of a phrase must stay."""


@dataclass(frozen=True)
class Calibration:
    """What is done to the answers of a model whose phrases are decided alone.

    Logits are divided by ``temperature`` (Guo et al., ICML 2017, section 4.2). Those of a phrase with a threshold of
    its own are then shifted so that the model's threshold stands for it.
    """

    temperature: float = 1.0
    """More than 0."""
    thresholds: Mapping[str, float] = field(default_factory=dict, hash=False)
    """For some phrases, as ``phrase_key`` returns them, their thresholds on probabilities, between 0 and 1."""
    least_score: float = 0.0
    """An object whose mean probability is lower does not count, 0..1."""

    def __post_init__(self) -> None:
        if not 0 <= self.least_score <= 1:
            raise ValueError(f"a least score must lie in 0..1, got {self.least_score}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"a temperature must be more than 0, got {self.temperature}")
        for phrase, threshold in self.thresholds.items():
            if not _LEAST_DOUBT <= threshold <= 1 - _LEAST_DOUBT:
                raise ValueError(f'the threshold of "{phrase}" must lie between 0 and 1, got {threshold}')

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Makes it from its ``dataclasses.asdict`` after JSON. Raises TypeError or ValueError if that is wrong."""
        return cls(**{**values, "thresholds": dict(values.get("thresholds", {}))})

    def applied(self, logits: torch.Tensor, phrases: Sequence[str], threshold: float) -> torch.Tensor:
        """Returns corrected logits.

        Args:
            logits: (B, P, h, w).
            phrases: The P phrases.
            threshold: The model's threshold, 0..1.
        """
        own = [self.thresholds.get(phrase_key(phrase)) for phrase in phrases]
        if self.temperature != 1.0:
            logits = logits / self.temperature
        if any(each is not None for each in own):
            common = _logit(min(max(threshold, _LEAST_DOUBT), 1 - _LEAST_DOUBT))
            shifts = [0.0 if each is None else common - _logit(each) for each in own]
            logits = logits + logits.new_tensor(shifts).view(-1, 1, 1)
        return logits


def phrase_key(phrase: str) -> str:
    """Returns a phrase in small letters, without an article and without needless spaces."""
    words = phrase.lower().split()
    return " ".join(words[1:] if len(words) > 1 and words[0] in ("a", "an", "the") else words)


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))
