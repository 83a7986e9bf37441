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
from functools import cached_property, lru_cache

import torch
import torch.nn.functional as F

from clip_seg_ros.models.spec import ModelSpec
from clip_seg_ros.pipeline.blocks import Blocks, agreed, at_once
from clip_seg_ros.pipeline.class_labels import UNLABELLED
from clip_seg_ros.pipeline.mixing import Mixing
from clip_seg_ros.pipeline.rivals import OPEN, find_duels, first_equal, runner_up, taken, weakest_rival

Probabilities = Callable[[torch.Tensor], torch.Tensor]
"""Makes probabilities (B, P, h, w) of logits of that shape, and keeps their order at each place."""
_ROWS_OF_REST = 16
"""The number of rows of places, about, in which the probability of all that is left out is computed if it decides
nothing."""
_LIKELY = 24
"""How many phrases the lowest of the best logits is sought among; an image shows fewer of a model's many classes."""
_ROUNDED = 1e-7
"""How far the sum of probabilities may be from 1 by rounding."""
_NEVER_ZERO = 1e-30
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
        classes = len(names) if spec.class_names is None else len(asked)
        labels, all_labelled = _labels(tuple(names), tuple(asked), classes, device)
        return cls(labels, classes, min_confidence, spec.competition == "softmax", all_labelled)

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


@lru_cache(maxsize=16)  # the same classes are asked about each image, and to send labels makes a GPU wait
def _labels(
    names: tuple[str, ...], asked: tuple[str, ...], classes: int, device: torch.device
) -> tuple[torch.Tensor, bool]:
    """Returns (A,) uint8, the labels of the phrases, and whether the first ones, which are classes, all have one."""
    place = {name: index for index, name in reversed(list(enumerate(names)))}
    labels = [place.get(phrase, UNLABELLED) for phrase in asked]
    return torch.tensor(labels, dtype=torch.uint8, device=device), UNLABELLED not in labels[:classes]


@dataclass(frozen=True)
class Decision:
    """The classes of an image."""

    labels: torch.Tensor
    """(H, W) uint8."""
    best: torch.Tensor
    """(W, h, w) float32, the probability of the best class at each place of each window."""
    edges: torch.Tensor
    """(N,) int64, the pixels, as indices into the flat image, that were computed one by one; some of them repeat."""
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
    peaks = _peaks(logits)
    strong = _not_below(peaks, _floor(logits, peaks))
    values = mixed.arranged(logits.index_select(1, strong))
    top = values.amax(dim=0)
    winner, lowest_top = first_equal(values, top), top.amin()
    settled = agreed(winner, mixed, OPEN)
    blocks, duels = Blocks.of(settled == OPEN, mixed), None
    if rules.best_suffices:
        # A phrase that is not strong is below all winners, and below the second best ones that count.
        weak = peaks.index_fill(0, strong, -torch.inf).amax()
        duels, rivals, blocks = find_duels(blocks, winner, runner_up(values, winner, weak))
    level = torch.minimum(weakest_rival(values, winner, blocks), lowest_top)
    kept = _not_below(peaks, level, always_from=rules.classes)
    if len(kept) > len(strong):
        values = mixed.arranged(logits.index_select(1, kept))
    left_out = mixed.arranged(_left_out(logits, probabilities, kept, rules)[:, None])[0]
    places = _Places(values, left_out, probabilities, rules.part(kept))
    label_of = rules.labels.index_select(0, strong)
    if rules.best_suffices:
        best = places.shares.amax(dim=0) * (1.0 - left_out)
    else:
        _, sure, best = _verdicts(places.shares, left_out, places.rules)
        sure |= taken(label_of, winner.clamp(min=0)) == UNLABELLED
        settled = agreed(winner.masked_fill(~sure, OPEN), mixed, OPEN)
        blocks = Blocks.of(settled == OPEN, mixed)
    labels = mixed.spread(taken(label_of, settled.clamp(min=0)))
    parts = list(places.compared(blocks))
    if duels is not None:
        parts += places.fought(duels, torch.searchsorted(kept, strong)[rivals])
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

    def compared(self, blocks: Blocks) -> Iterator[_Pixels]:
        """Compares all phrases at the pixels of some blocks."""
        table = torch.cat([self.values, self.left_out[None]]).flatten(1)
        for window in blocks.windows(len(table)):
            part = blocks.within(window)
            of_places = table.index_select(1, part.places.flatten()).unflatten(1, part.places.shape)
            values = part.values(of_places).flatten(1)
            winner, sure, confidence = _verdicts(self._shares(values[:-1]), values[-1], self.rules)
            label = taken(self.rules.labels, winner).masked_fill_(~sure, UNLABELLED)
            yield part.pixels.flatten(), label, confidence

    def fought(self, blocks: Blocks, rivals: torch.Tensor) -> Iterator[_Pixels]:
        """Compares two phrases at the pixels of some blocks.

        Args:
            blocks: Some n blocks.
            rivals: (2, n) int64, the two of the K phrases that can win in each block.
        """
        labels = self.rules.labels[rivals]
        for window in blocks.windows(len(rivals) + 1):
            part = blocks.within(window)
            at = rivals[:, None, window] * self.left_out.numel() + part.places
            of_places = taken(self.values, at)
            if self.rules.compete:
                of_places = torch.cat([of_places, self._others(at, part.places)[None]])
            values = part.values(of_places)
            first, second = labels[:, window]
            # This takes a tenth of the time of "where" on a processor. Numbers of eight bits wrap around.
            label = (values[0] >= values[1]).view(torch.uint8).mul_(first - second).add_(second)
            shares = self._shares(values[:2].flatten(1))
            confidence = shares.amax(dim=0)
            if self.rules.compete:
                confidence /= 1.0 + shares[0] * values[2].flatten().exp()
            yield part.pixels.flatten(), label.flatten(), confidence

    def _others(self, at: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Compares all others with the first of two phrases.

        Args:
            at: (2, k, n) int64, the indices of both phrases in the flat ``values``.
            places: (k, n) int64, the places.

        Returns:
            (k, n), the log of the others' probability as a multiple of that of the first one. If there is one other, it
            is as linear between the places as the logits are.
        """
        shares = taken(self.shares, at) * (1.0 - taken(self.left_out, places))
        others = (1.0 - shares.sum(dim=0)).clamp(min=_ROUNDED)
        return others.log() - shares[0].clamp(min=_NEVER_ZERO).log()

    def _shares(self, values: torch.Tensor) -> torch.Tensor:
        """Makes probabilities (P, n) of logits of that shape."""
        return self.probabilities(values[None, :, :, None])[0, :, :, 0]


def _peaks(logits: torch.Tensor) -> torch.Tensor:
    """Returns the highest logit (A,) of each phrase, from (W, A, h, w)."""
    return logits.flatten(2).amax(dim=2).amax(dim=0)


def _floor(logits: torch.Tensor, peaks: torch.Tensor) -> torch.Tensor:
    """Returns one number that the best phrase reaches at every place, because some of the phrases do.

    Of (W, A, h, w) logits, only those of the phrases with the highest ``peaks`` (A,) are looked at.
    """
    likely = peaks.topk(min(_LIKELY, len(peaks))).indices
    return logits.index_select(1, likely).amax(dim=1).amin()


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
        rows, columns = (_spaced(side, every, logits.device) for side in size)
        some = rows[:, None] * size[1] + columns
        # Of two axes, which takes less time than of three.
        chosen = logits.flatten(2).flatten(0, 1).index_select(1, some.flatten())
        logits = chosen.unflatten(0, logits.shape[:2]).unflatten(2, some.shape)
    step = max(1, at_once(logits.device) // logits[:, :, 0].numel())
    kept_parts = [probabilities(band.contiguous())[:, kept].sum(dim=1) for band in logits.split(step, dim=2)]
    left_out = (1.0 - torch.cat(kept_parts, dim=1)).clamp(min=0.0)
    if left_out.shape[1:] == size:
        return left_out
    return F.interpolate(left_out[None], size=size, mode="bilinear", align_corners=True)[0]


def _spaced(side: int, every: int, device: torch.device) -> torch.Tensor:
    """Returns evenly spaced indices from 0 to ``side`` - 1, about one in ``every``."""
    return torch.linspace(0, side - 1, -(-side // every), device=device).round().long()


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
