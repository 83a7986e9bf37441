# SPDX-License-Identifier: Apache-2.0
"""Decides the class of every pixel on the model's device, without the probabilities of all classes at all pixels.

A pixel's logits are a weighted mean of those of a few places (``mixing``). If one class is the best at all of these
places, it is the best at the pixel, too: most pixels are decided by this, many at once. Only the others, along the
borders between classes, are computed one by one, and only for the classes that are strong enough anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F

from clip_seg_ros.models.spec import ModelSpec
from clip_seg_ros.pipeline.class_labels import UNLABELLED
from clip_seg_ros.pipeline.mixing import Mixing

Probabilities = Callable[[torch.Tensor], torch.Tensor]
"""Makes probabilities (B, P, h, w) of logits of that shape, and keeps their order at each place."""
_OPEN = -1
"""The mark of places that do not decide anything."""
_AT_ONCE = 1 << 18
"""About how many logits are worked on at once; they should stay in the cache of a processor."""
_ROWS_OF_REST = 16
"""The number of rows of places, about, in which the probability of all that is left out is computed if it decides
nothing."""
_BYTE = 255


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

    @classmethod
    def of(
        cls, names: Sequence[str], asked: Sequence[str], spec: ModelSpec, min_confidence: float, device: torch.device
    ) -> Rules:
        """Makes the rules for the classes ``names`` among all phrases ``asked`` that a model decodes."""
        classes = len(names) if spec.class_names is None else len(asked)
        labels = _labels(tuple(names), tuple(asked), device)
        return cls(labels, classes, min_confidence, spec.competition == "softmax")

    @property
    def always_sure(self) -> bool:
        """Whether the best phrase at a place always decides it."""
        return self.min_confidence <= 0.0 and self.classes == len(self.labels)

    def part(self, kept: torch.Tensor) -> Rules:
        """Returns the rules for some of the phrases only, given by their indices in order."""
        classes = int((kept < self.classes).sum())
        return Rules(self.labels[kept], classes, self.min_confidence, self.compete)


@lru_cache(maxsize=16)  # the same classes are asked about each image, and to send labels makes a GPU wait
def _labels(names: tuple[str, ...], asked: tuple[str, ...], device: torch.device) -> torch.Tensor:
    place = {name: index for index, name in reversed(list(enumerate(names)))}
    return torch.tensor([place.get(phrase, UNLABELLED) for phrase in asked], dtype=torch.uint8, device=device)


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
    top, peaks = logits.amax(dim=1), logits.amax(dim=(0, 2, 3))
    winners = _not_below(peaks, top.amin())
    strong = logits[:, winners].contiguous()
    place = _first_equal(strong, top)
    agreed = _agreed(mixed.arranged(place), mixed)
    weakest = _weakest_rival(strong, place, agreed == _OPEN, mixed)
    kept = _not_below(peaks, torch.minimum(weakest, top.amin()), always_from=rules.classes)
    part, some = rules.part(kept), logits[:, kept].contiguous()
    left_out = torch.zeros_like(top)
    if rules.compete and len(kept) < logits.shape[1]:
        every = 1 if rules.min_confidence > 0.0 else max(1, logits.shape[2] // _ROWS_OF_REST)
        left_out = _left_out(logits, probabilities, kept, every)
    _, sure, best = _verdicts(probabilities(some), left_out, part)
    if not rules.always_sure:
        sure |= rules.labels[winners][place.clamp(min=0)] == UNLABELLED
        agreed = _agreed(mixed.arranged(place.masked_fill(~sure, _OPEN)), mixed)
    is_open = agreed == _OPEN
    labels = rules.labels[winners][agreed.clamp(min=0)].masked_fill(is_open, UNLABELLED)
    labels = _wide(labels, mixed).t().contiguous().index_select(0, mixed.rows.run)
    values = torch.cat([some, left_out[:, None]], dim=1)
    edges, edge_best = [kept[:0]], [best.flatten()[:0]]
    for pixels, pixel_values in _open_pixels(is_open, values, mixed):
        verdict, sure, confidence = _verdicts(probabilities(pixel_values[:, :-1]), pixel_values[:, -1], part)
        labels.view(-1).scatter_(0, pixels, part.labels[verdict].masked_fill(~sure, UNLABELLED).flatten())
        edges.append(pixels)
        edge_best.append(confidence.flatten())
    return Decision(labels, best, torch.cat(edges), torch.cat(edge_best))


def _not_below(peaks: torch.Tensor, level: torch.Tensor, always_from: int | None = None) -> torch.Tensor:
    """Returns the indices of the phrases whose ``peaks`` (A,) reach a level, and all from ``always_from`` on."""
    reached = ~(peaks < level)  # NaN stays
    if always_from is not None:
        reached[always_from:] = True
    return reached.nonzero()[:, 0]


def _first_equal(values: torch.Tensor, top: torch.Tensor) -> torch.Tensor:
    """Returns the first phrase (W, h, w) whose value (W, A, h, w) is ``top``, or ``_OPEN`` where that is NaN.

    This takes a quarter of the time of ``argmax`` on a processor.
    """
    found = torch.full(top.shape, _OPEN, device=top.device)
    for first in range(0, values.shape[1], _BYTE):
        equal = (values[:, first : first + _BYTE] >= top[:, None]).view(torch.uint8)
        # The first of several equal ones has the highest rank; 0 is for none.
        rank = torch.arange(_BYTE, _BYTE - equal.shape[1], -1, dtype=torch.uint8, device=top.device)
        highest = equal.mul_(rank[:, None, None]).amax(dim=1).long()
        found = torch.where((found == _OPEN) & (highest > 0), first + _BYTE - highest, found)
    return found


def _agreed(winners: torch.Tensor, mixed: Mixing) -> torch.Tensor:
    """Finds where all places of a pixel have the same winner.

    Args:
        winners: (rows, columns) of places.
        mixed: The mixing of the image.

    Returns:
        (runs of columns, runs of rows): that winner, or ``_OPEN``.
    """
    for axis in (mixed.rows, mixed.columns):
        # Whole rows are selected and then turned, because selecting columns takes several times as long.
        one, *others = (winners.index_select(0, places) for places in axis.places.unbind(1))
        for other in others:
            one = one.where(one == other, _OPEN)
        winners = one.t().contiguous()
    return winners.t()


def _wide(runs: torch.Tensor, mixed: Mixing) -> torch.Tensor:
    """Gives every column of the image its run: (runs of columns, runs of rows) -> (W, runs of rows)."""
    return runs.index_select(0, mixed.columns.run)


def _weakest_rival(logits: torch.Tensor, winner: torch.Tensor, is_open: torch.Tensor, mixed: Mixing) -> torch.Tensor:
    """Finds the logit that a phrase must reach somewhere in the image to win any pixel whose places disagree.

    At such a pixel, the winner of its first place has at least its lowest logit at all the places of this pixel.
    Another phrase can only do better if it has more than this at one of them.

    Args:
        logits: (W, A, h, w).
        winner: (W, h, w), the best phrase of each place.
        is_open: (runs of columns, runs of rows) bool, where places disagree.
        mixed: The mixing of the image.

    Returns:
        One number, infinite if nothing is open.
    """
    column_run, row_run = is_open.nonzero().unbind(1)
    windows, phrases, height, width = logits.shape
    size = height * width
    window = torch.arange(windows, device=logits.device)[:, None, None]
    # Where the logits of the first phrase lie; those of the others follow at distances of ``size``.
    start = mixed.arranged(window * phrases * size + torch.arange(size, device=logits.device).view(height, width))
    rows = (mixed.rows.places * start.shape[1]).index_select(0, row_run)
    columns = mixed.columns.places.index_select(0, column_run)
    places = (rows[:, :, None] + columns[:, None]).flatten(1)  # (n, k)
    rival = mixed.arranged(winner).take(places[:, :1]).clamp(min=0)
    lowest = logits.view(-1).take(start.take(places) + rival * size)
    return torch.cat([lowest.flatten(), lowest.new_full((1,), torch.inf)]).amin()


def _left_out(logits: torch.Tensor, probabilities: Probabilities, kept: torch.Tensor, every: int) -> torch.Tensor:
    """Returns the probability (W, h, w) that belongs to all phrases but those ``kept``.

    It is small and as smooth as the logits: between one in ``every`` rows of places it is interpolated.
    """
    rows = logits[:, :, ::every]
    step = max(1, _AT_ONCE // rows[:, :, 0].numel())
    kept_parts = [probabilities(band.contiguous())[:, kept].sum(dim=1) for band in rows.split(step, dim=2)]
    left_out = (1.0 - torch.cat(kept_parts, dim=1)).clamp(min=0.0)
    if every == 1:
        return left_out
    return F.interpolate(left_out[None], size=logits.shape[2:], mode="bilinear", align_corners=True)[0]


def _open_pixels(
    is_open: torch.Tensor, values: torch.Tensor, mixed: Mixing
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Mixes the values of the pixels that are open, some at a time.

    Args:
        is_open: (runs of columns, runs of rows) bool.
        values: (W, K, h, w), the values of the places.
        mixed: The mixing of the image.

    Yields:
        Indices of n pixels into the flat image, and their values (1, K, n, 1).
    """
    rows, columns = mixed.rows, mixed.columns
    width, kinds, depth, taps = len(columns.run), values.shape[1], rows.places.shape[1], columns.places.shape[1]
    table = torch.stack([window.flatten(1).t().contiguous() for window in values])  # (W, h * w, K)
    table = mixed.arranged(table.unflatten(1, values.shape[2:]))  # (rows, columns, K)
    # Every run of rows has ``depth`` places, and every column k of them. Short indices are enough, and faster.
    row_places = (rows.places * table.shape[1]).int().repeat_interleave(taps, dim=1)
    column_places = columns.places.int().repeat(1, depth).index_select(0, columns.run)
    column_weights = columns.weights.repeat(1, depth)
    table = table.flatten(0, 1)
    # A run of rows with one column makes a bar, whose pixels share what is mixed along the columns.
    every_column, every_run = _wide(is_open, mixed).nonzero().unbind(1)
    bars = max(1, _AT_ONCE // (kinds * depth))
    for run, column in zip(every_run.split(bars), every_column.split(bars)):
        places = row_places.index_select(0, run) + column_places.index_select(0, column)  # (n bars, depth * k)
        weights = column_weights.index_select(0, column)
        across = _mix(table, places.view(-1, taps), weights.view(-1, taps))
        lengths = rows.length.index_select(0, run)
        bar = torch.repeat_interleave(lengths)
        start = rows.first.index_select(0, run) - (lengths.cumsum(0) - lengths)
        row = start.index_select(0, bar) + torch.arange(len(bar), device=bar.device)
        below = (bar * depth).int()[:, None] + torch.arange(depth, dtype=torch.int32, device=bar.device)
        pixels = _mix(across, below, rows.weights.index_select(0, row))
        yield row * width + column.index_select(0, bar), pixels.t().contiguous()[None, :, :, None]


def _mix(values: torch.Tensor, places: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Returns (n, K), the weighted sums of k rows of ``values`` (N, K); the other two are (n, k)."""
    return F.embedding_bag(places, values, mode="sum", per_sample_weights=weights)


def _verdicts(
    shares: torch.Tensor, left_out: torch.Tensor, rules: Rules
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Finds the best class of all K phrases that are kept.

    Args:
        shares: (W, K, h, w), the probabilities of these phrases, as if there were no others.
        left_out: (W, h, w), the probability of the others.
        rules: For the K phrases.

    Returns:
        For each place (W, h, w) the best class, whether it is probable enough and more so than the background, and the
        probability of the best class that has a label.
    """
    classes = shares[:, : rules.classes]
    if rules.classes == 0:
        nothing = torch.zeros_like(left_out)
        return nothing.long(), nothing.bool(), nothing
    remaining = 1.0 - left_out
    top = classes.amax(dim=1)
    winner = _first_equal(classes, top).clamp(min=0)
    sure = top * remaining >= rules.min_confidence  # NaN is not sure
    if shares.shape[1] > rules.classes:
        sure &= shares[:, rules.classes :].sum(dim=1) <= top
    has_label = rules.labels[: rules.classes] != UNLABELLED
    if not bool(has_label.all()):
        top = classes[:, has_label].amax(dim=1) if bool(has_label.any()) else torch.zeros_like(top)
    return winner, sure, top * remaining
