# SPDX-License-Identifier: Apache-2.0
"""From phrases to the objects that they mean, where places, order or number decide.

A phrase such as "two cups left of the box" is asked as its names, "cups" and "box"; ``understand`` then chooses among
the objects of these names. Phrases that are names alone are left as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from clip_seg_ros.commands.references import Reference
from clip_seg_ros.pipeline.cell_maps import CellMaps
from clip_seg_ros.pipeline.space.agreeing import agree
from clip_seg_ros.pipeline.space.localization import Measurement
from clip_seg_ros.pipeline.space.relations import Fit, Resolution, resolve
from clip_seg_ros.pipeline.space.solids import SpaceFrame, Speaker
from clip_seg_ros.pipeline.ties import NO_TIES, Tie, Ties
from clip_seg_ros.types import CameraFrame, ObjectRegion

FAINT = 0.3
"""The threshold where all phrases need space. What a model hardly sees is needed, too: a cup that is missed makes the
third one from the left the second. Which objects count is decided by their scores then (``relations.DOUBTED``)."""


def needs_space(reference: Reference) -> bool:
    """Returns whether a reference means more than all objects of its name, less those of other names."""
    numbered = reference.count is not None or reference.is_count_asked
    return reference.is_placed or numbered or any(map(needs_space, reference.exclusions))


def _is_own(reference: Reference) -> bool:
    """Returns whether a reference, or a part of it, is about the place of the person who speaks."""
    best = reference.superlative
    anchors = [anchor for relation in reference.relations for anchor in relation.anchors]
    return (
        any(not relation.anchors for relation in reference.relations)
        or (best is not None and best.kind in ("nearest", "farthest") and not best.anchors)
        or any(map(_is_own, (*anchors, *(best.anchors if best else ()), *reference.exclusions)))
    )


@dataclass(frozen=True)
class Asking:
    """What a model is asked for, so that the phrases of a command can be understood."""

    prompts: tuple[str, ...]
    """The phrases as they were typed."""
    references: tuple[Reference, ...]
    """What each of them refers to."""
    negatives: tuple[str, ...]
    """The names whose objects a model leaves out, of phrases that need no space."""
    in_space: tuple[bool, ...]
    """Of each phrase, whether ``understand`` decides it."""
    is_whole_asked: bool = False
    """Whether the model is asked for whole phrases, too, which ``agreeing`` compares with what is found in space."""

    @classmethod
    def of(
        cls,
        prompts: Sequence[str],
        references: Sequence[Reference],
        negatives: Sequence[str],
        by_model: bool = False,
        is_whole_asked: bool = False,
    ) -> Asking:
        """Sorts the phrases of a command.

        Args:
            prompts: The phrases as they were typed.
            references: What each of them refers to.
            negatives: The phrases to leave out, as they were typed.
            by_model: Whether the model decides whole phrases, because it understands relations itself.
            is_whole_asked: The attribute of this name.
        """
        in_space = tuple(not by_model and needs_space(reference) for reference in references)
        if any(in_space) and any(reference.exclusions for reference in references):
            plain = [each for each, decided in zip(references, in_space, strict=True) if not decided]
            left_out = {name for each in plain for other in each.exclusions for name in other.names()}
            negatives = [name for name in negatives if name in left_out]
        return cls(tuple(prompts), tuple(references), tuple(negatives), in_space, is_whole_asked and any(in_space))

    @property
    def is_plain(self) -> bool:
        """Whether no phrase needs space."""
        return not any(self.in_space)

    def threshold(self, asked: float | None, own: float) -> float | None:
        """Returns the threshold to ask with, 0..1; ``None`` for the model's own.

        Args:
            asked: The threshold that the user asks for, if any.
            own: The model's own.
        """
        return min(own, FAINT) if asked is None and self.in_space and all(self.in_space) else asked

    @property
    def needs_speaker(self) -> bool:
        """Whether it matters where the person stands who speaks: "on my left"."""
        return any(map(_is_own, self.references))

    @property
    def names(self) -> tuple[str, ...]:
        """The phrases to ask the model for, each once."""
        asked = [
            (*reference.names(), *((prompt,) if self.is_whole_asked else ())) if decided else (prompt,)
            for prompt, reference, decided in zip(self.prompts, self.references, self.in_space, strict=True)
        ]
        return tuple(dict.fromkeys(name for names in asked for name in names))


@dataclass(frozen=True)
class Understood:
    """The objects that the phrases of a command mean in one image."""

    measured: tuple[Measurement, ...]
    """The objects, with the phrases as their prompts, the best first."""
    maps: CellMaps
    """The probabilities of the phrases; of one that needs space, those of its name."""
    sentences: dict[str, str] = field(default_factory=dict)
    """What was found for phrases that need space, or why nothing, for people."""
    ties: Ties = NO_TIES
    """What the objects relate to."""


def understand(
    asking: Asking,
    measured: Sequence[Measurement],
    maps: CellMaps,
    frame: CameraFrame,
    up: tuple[float, float, float] | None = None,
    speaker: Speaker = "camera",
) -> Understood:
    """Chooses the objects that the phrases mean.

    Args:
        asking: The phrases.
        measured: What the model found for ``asking.names`` in one image.
        maps: The probabilities of these names.
        frame: The image; with depth, objects are compared in metres.
        up: The direction against gravity, a unit vector of the optical frame; ``None`` if only the depth tells it.
        speaker: Who says "on my left".
    """
    if asking.is_plain:
        return Understood(tuple(measured), maps)
    space = SpaceFrame.of(frame, measured, up, speaker)
    by_id = {each.region.id: each for each in measured}
    chosen: list[Measurement] = []
    sentences: dict[str, str] = {}
    collected = _TieCollector()
    for prompt, reference, in_space in zip(asking.prompts, asking.references, asking.in_space, strict=True):
        own = [each.region for each in measured if each.region.prompt == prompt]
        if not in_space:
            chosen += [by_id[region.id] for region in own]
            continue
        answer = _resolved(reference, measured, space)
        fits, sentences[prompt] = answer.fits, answer.sentence
        if asking.is_whole_asked:
            agreement = agree(answer, own)
            fits, sentences[prompt] = agreement.fits, agreement.sentence
        for fit in fits:
            region = replace(fit.region, prompt=prompt)
            collected.add(region, fit)
            chosen.append(replace(by_id[region.id], region=region))
    chosen.sort(key=lambda each: -each.region.score)
    return Understood(tuple(chosen), _of_phrases(asking, maps), sentences, collected.ties())


class _TieCollector:
    """Collects what objects relate to, each thing once in an image."""

    def __init__(self) -> None:
        self._ties: list[Tie] = []
        self._walked: set[int] = set()

    def add(self, region: ObjectRegion, fit: Fit) -> None:
        """Adds what a found object relates to, and what that relates to in turn."""
        for link in fit.links:
            anchor = link.anchor.region
            self._ties.append(Tie(region, anchor, link.words, link.gap_m))
            if link.anchor.links and anchor.id not in self._walked:
                self._walked.add(anchor.id)
                self.add(anchor, link.anchor)

    def ties(self) -> Ties:
        return Ties(tuple(self._ties)) if self._ties else NO_TIES


def _resolved(reference: Reference, measured: Sequence[Measurement], space: SpaceFrame) -> Resolution:
    named = {name: [each.region for each in measured if each.region.prompt == name] for name in reference.names()}
    return resolve(reference, named, space)


def _of_phrases(asking: Asking, maps: CellMaps) -> CellMaps:
    pairs = zip(asking.prompts, asking.references, asking.in_space, strict=True)
    names = [reference.name if in_space else prompt for prompt, reference, in_space in pairs]
    return replace(maps.part(tuple(names)), prompts=asking.prompts)
