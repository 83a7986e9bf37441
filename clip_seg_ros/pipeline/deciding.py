# SPDX-License-Identifier: Apache-2.0
"""Decides the class of every pixel on the model's device, without the probabilities of all classes at all pixels.

A pixel's logits are a weighted mean of those of a few places (``mixing``). If one class is the best at all of these
places, it is the best at the pixel, too: most pixels are decided by this, many at once (``blocks``). Only the others,
along the borders between classes, are computed one by one, and only for the classes that can win there: often these are
no more than two (``rivals``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F

from clip_seg_ros.models.spec import ModelSpec
from clip_seg_ros.pipeline.blocks import Blocks, agreed
from clip_seg_ros.pipeline.class_labels import UNLABELLED
from clip_seg_ros.pipeline.mixing import Mixing
from clip_seg_ros.pipeline.rivals import OPEN, Duels, find_duels, first_equal, runner_up, taken, weakest_rival

Probabilities = Callable[[torch.Tensor], torch.Tensor]
"""Makes probabilities (B, P, h, w) of logits of that shape, and keeps their order at each place."""
_AT_ONCE = 1 << 18
"""About how many logits are worked on at once; they should stay in the cache of a processor."""
_ROWS_OF_REST = 16
"""The number of rows of places, about, in which the probability of all that is left out is computed if it decides
nothing."""
_Pixels = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""(n,) each of some pixels: their indices in the flat image, labels, and probabilities of the best class."""
_Verdicts = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""(...) each of some places or pixels: the best class, whether it is probable enough and more so than the background,
and the probability of the best class that has a label."""


@dataclass(frozen=True)
class Rules:
    """Who competes, and what makes a pixel sure."""

    labels: torch.Tensor
    """(A,) uint8, the label of each phrase that was decoded, or ``UNLABELLED``."""
    classes: int
    """How many phrases are classes; those after them are the background, which the best class must beat together."""
    min_confidence: float
    """The least probability of a class, 0..1."""
    compete: bool
    """Whether the probabilities of all phrases sum to 1."""
    all_labelled: bool
    """Whether every class has a label."""

    @classmethod
    def of(
        cls, names: Sequence[str], asked: Sequence[str], spec: ModelSpec, min_confidence: float, device: torch.device
    ) -> Rules:
        """Makes the rules for the classes ``names`` among all phrases ``asked`` that a model decodes."""
        place = {name: index for index, name in reversed(list(enumerate(names)))}
        labels = [place.get(phrase, UNLABELLED) for phrase in asked]
        classes = len(names) if spec.class_names is None else len(asked)
        table = torch.tensor(labels, dtype=torch.uint8, device=device)
        all_labelled = UNLABELLED not in labels[:classes]
        return cls(table, classes, min_confidence, spec.competition == "softmax", all_labelled)

    @property
    def always_sure(self) -> bool:
        """Whether the best phrase at a place always decides it."""
        return self.min_confidence <= 0.0 and self.classes == len(self.labels)

    @property
    def best_suffices(self) -> bool:
        """Whether nothing but the best phrase at a place needs to be known."""
        return self.always_sure and self.all_labelled

    def part(self, kept: torch.Tensor) -> Rules:
        """Returns the rules for some of the phrases only, given by their indices in order."""
        classes = int((kept < self.classes).sum())
        return Rules(self.labels[kept], classes, self.min_confidence, self.compete, self.all_labelled)


@dataclass(frozen=True)
class Decision:
    """The classes of an image."""

    labels: torch.Tensor
    """(H, W) uint8."""
    best: torch.Tensor
    """(W, h, w) float32, the probability of the best class at each place of each window."""
    edges: torch.Tensor
    """(N,) int64, the pixels, as indices into the flat image, that were computed one by one."""
    edge_best: torch.Tensor
    """(N,) float32, the probability of the best class at these pixels."""


def decide(logits: torch.Tensor, probabilities: Probabilities, mixed: Mixing, rules: Rules) -> Decision:
    """Gives every pixel its best class.

    Args:
        logits: (W, A, h, w) of all windows.
        probabilities: Makes probabilities of them.
        mixed: How pixels are mixed of the logits' places.
        rules: For the A phrases.
    """
    lowest_top, peaks = logits.amax(dim=1).amin(), logits.amax(dim=(0, 2, 3))
    strong = _not_below(peaks, lowest_top)
    values = mixed.arranged(logits.index_select(1, strong))
    winner = first_equal(values, values.amax(dim=0))
    settled = agreed(winner, mixed, OPEN)
    blocks, duels = Blocks.of(settled == OPEN, mixed), None
    if rules.best_suffices:
        weak = peaks.index_fill(0, strong, -torch.inf).amax()
        duels, blocks = find_duels(blocks, winner, runner_up(values, winner, weak))
    kept = _not_below(peaks, torch.minimum(weakest_rival(values, winner, blocks), lowest_top), rules.classes)
    if len(kept) > len(strong):
        values = mixed.arranged(logits.index_select(1, kept))
    left_out = mixed.arranged(_left_out(logits, probabilities, kept, rules)[:, None])[0]
    places = _Places(values, left_out, probabilities, rules.part(kept))
    _, sure, best = places.verdicts
    label_of = rules.labels.index_select(0, strong)
    if not rules.always_sure:
        sure |= label_of[winner.clamp(min=0)] == UNLABELLED
        settled = agreed(winner.masked_fill(~sure, OPEN), mixed, OPEN)
        blocks = Blocks.of(settled == OPEN, mixed)
    labels = mixed.spread(label_of[settled.clamp(min=0)])
    parts = list(places.compared(blocks))
    if duels is not None:
        parts += places.fought(duels, torch.searchsorted(kept, strong))
    for pixels, label, _ in parts:
        labels.view(-1).scatter_(0, pixels, label)
    edges = torch.cat([kept[:0], *(pixels for pixels, _, _ in parts)])
    edge_best = torch.cat([best.flatten()[:0], *(confidence for _, _, confidence in parts)])
    return Decision(labels, mixed.by_window(best), edges, edge_best)


@dataclass(frozen=True)
class _Places:
    """The arranged places of an image, and the K phrases that can win anywhere."""

    values: torch.Tensor
    """(K, rows, columns), their logits."""
    left_out: torch.Tensor
    """(rows, columns), the probability of all other phrases."""
    probabilities: Probabilities
    rules: Rules
    """For the K phrases."""

    @cached_property
    def shares(self) -> torch.Tensor:
        """(K, rows, columns), the probabilities of the K phrases, as if there were no others."""
        return self.probabilities(self.values[None])[0]

    @cached_property
    def verdicts(self) -> _Verdicts:
        """The verdicts at the places themselves."""
        return _verdicts(self.shares, self.left_out, self.rules)

    def compared(self, blocks: Blocks) -> Iterator[_Pixels]:
        """Compares all phrases at the pixels of some blocks."""
        table = torch.cat([self.values, self.left_out[None]]).flatten(1).t().contiguous()
        for pixels, _, values in blocks.pixels(table, blocks.places):
            winner, sure, confidence = _verdicts(self._shares(values[:-1]), values[-1], self.rules)
            yield pixels, self.rules.labels[winner].masked_fill(~sure, UNLABELLED), confidence

    def fought(self, duels: Duels, rank: torch.Tensor) -> Iterator[_Pixels]:
        """Compares at the pixels of some blocks only the two phrases that can win there.

        The probability of all others is interpolated between the places.

        Args:
            duels: The blocks, and their two phrases among those that ``rank`` has for them.
            rank: The indices, among the K phrases, of the phrases that ``duels`` counts.
        """
        blocks, phrases = duels.blocks, [rank[phrase] for phrase in (duels.one, duels.other)]
        at = [phrase[:, None] * self.left_out.numel() + blocks.places for phrase in phrases]
        columns = [taken(self.values, index) for index in at]
        columns.append(torch.zeros_like(columns[0]))
        if self.rules.compete:
            share = taken(self.shares, at[0]) + taken(self.shares, at[1])
            columns[2] = 1.0 - share * (1.0 - taken(self.left_out, blocks.places))
        table = torch.stack(columns, dim=2).flatten(0, 1)
        places = torch.arange(len(table), device=table.device).view_as(blocks.places)
        one, other = (self.rules.labels.index_select(0, phrase) for phrase in phrases)
        for pixels, block, (*two, rest) in blocks.pixels(table, places):
            one_wins = two[0] >= two[1]
            label = torch.where(one_wins, one.index_select(0, block), other.index_select(0, block))
            yield pixels, label, self._shares(torch.stack(two)).amax(dim=0) * (1.0 - rest)

    def _shares(self, values: torch.Tensor) -> torch.Tensor:
        """Makes probabilities of (P, n) logits."""
        return self.probabilities(values[None, :, :, None])[0, :, :, 0]


def _not_below(peaks: torch.Tensor, level: torch.Tensor, always_from: int | None = None) -> torch.Tensor:
    """Returns the indices of the phrases whose ``peaks`` (A,) reach a level, and all from ``always_from`` on."""
    reached = ~(peaks < level)  # NaN stays
    if always_from is not None:
        reached[always_from:] = True
    return reached.nonzero()[:, 0]


def _left_out(logits: torch.Tensor, probabilities: Probabilities, kept: torch.Tensor, rules: Rules) -> torch.Tensor:
    """Returns the probability (W, h, w) that belongs to all phrases but those ``kept``.

    It is small and as smooth as the logits: if it decides nothing, it is computed at some places only, and interpolated
    between them.
    """
    if not rules.compete or len(kept) == logits.shape[1]:
        return torch.zeros_like(logits[:, 0])
    size = logits.shape[2:]
    if rules.min_confidence <= 0.0:
        every = max(1, size[0] // _ROWS_OF_REST)
        for axis, side in zip((2, 3), size):
            some = torch.linspace(0, side - 1, -(-side // every), device=logits.device).round().long()
            logits = logits.index_select(axis, some)
    step = max(1, _AT_ONCE // logits[:, :, 0].numel())
    kept_parts = [probabilities(band.contiguous())[:, kept].sum(dim=1) for band in logits.split(step, dim=2)]
    left_out = (1.0 - torch.cat(kept_parts, dim=1)).clamp(min=0.0)
    if left_out.shape[1:] == size:
        return left_out
    return F.interpolate(left_out[None], size=size, mode="bilinear", align_corners=True)[0]


def _verdicts(shares: torch.Tensor, left_out: torch.Tensor, rules: Rules) -> _Verdicts:
    """Finds the best class of all K phrases that are kept.

    Args:
        shares: (K, ...), the probabilities of these phrases, as if there were no others.
        left_out: (...), the probability of the others.
        rules: For the K phrases.
    """
    classes = shares[: rules.classes]
    if rules.classes == 0:
        nothing = torch.zeros_like(left_out)
        return nothing.long(), nothing.bool(), nothing
    remaining = 1.0 - left_out
    top = classes.amax(dim=0)
    winner = first_equal(classes, top).clamp(min=0)
    sure = top * remaining >= rules.min_confidence  # NaN is not sure
    if shares.shape[0] > rules.classes:
        sure &= shares[rules.classes :].sum(dim=0) <= top
    if not rules.all_labelled:
        unlabelled = (rules.labels[: rules.classes] == UNLABELLED).view(-1, *[1] * left_out.ndim)
        top = classes.masked_fill(unlabelled, 0.0).amax(dim=0)
    return winner, sure, top * remaining
