# SPDX-License-Identifier: Apache-2.0
"""Measures whether objects of one phrase are found one by one where they touch, and whether any is torn apart.

Every held-out scene is asked for the kinds of things in it ("cup"), and for their colours and kinds ("red cup"), and so
is a scene of the same seed in which most things stand close to others of their kind. In a third one stand things that
neither model nor separator ever saw; their true masks take the place of the model's. The depth has the noise and the
holes of a stereo camera's.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter

import numpy as np
import torch

from clip_seg_ros.data.rendered_instances import instance_sample
from clip_seg_ros.data.samples import InstanceSample
from clip_seg_ros.data.tabletop import is_unseen
from clip_seg_ros.evaluation.metrics.touching import found_objects, pieces_of, touching_objects
from clip_seg_ros.evaluation.pages.pictures import COLUMNS, Gallery, captioned, grid
from clip_seg_ros.evaluation.suite import Examiner, Figure
from clip_seg_ros.pipeline.answering import Question, answered, asked
from clip_seg_ros.pipeline.cell_maps import CellMaps
from clip_seg_ros.pipeline.overlay import PALETTE
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.pipeline.preprocess import Geometry
from clip_seg_ros.pipeline.separation import Separator
from clip_seg_ros.sim.renderer import RenderedView
from clip_seg_ros.sim.scene import KINDS, WORKSHOP_KINDS, Scene, SceneObject
from clip_seg_ros.sim.sequences import noisy_depth
from clip_seg_ros.types import CameraFrame, ObjectRegion

MIN_AREA_FRACTION = 0.002
"""The smallest object, as the nodes have it by default; smaller ones are neither asked for nor counted."""
_GROUPS = ("", "usual.", "unseen.", "kinds.", "pairs.", "strange.")
"""The groups of the figures: all, by the scenes, by the phrases, and of things of ``WORKSHOP_KINDS``, which are not
among all."""
_EVERY_KIND = (*KINDS, *WORKSHOP_KINDS)
_WAYS = ("", "_without_depth", "_together")
"""The ends of the figures' names: with depth, without, and not taken apart at all."""


@dataclass
class _Scores:
    """What became of the objects of some scenes, one way."""

    touching: list[bool] = field(default_factory=list)
    """Whether each object that touches another one that the phrase names was found."""
    apart: list[bool] = field(default_factory=list)
    """Whether each other object was found."""
    torn: list[bool] = field(default_factory=list)
    """Whether each of those others is in more pieces than before."""


class SeparationExaminer(Examiner):
    """Asks a model for all that is in a scene, by kind, and by colour and kind.

    Args:
        predictor: Predictor of a model of phrases.
        separator: Takes objects apart.
        threshold: Probability above which a pixel belongs to a phrase, 0..1.
    """

    def __init__(self, predictor: Predictor, separator: Separator, threshold: float = 0.5) -> None:
        self._predictor, self._separator, self._threshold = predictor, separator, threshold
        self._scores = {(group, way): _Scores() for group in _GROUPS for way in _WAYS}
        self._taken_ms: list[float] = []
        self._gallery = Gallery(COLUMNS, COLUMNS)
        self._images = 0

    def examine(self, scene: Scene, view: RenderedView) -> None:
        """Measures one scene; ``view`` is its image with depth."""
        self._images += 1
        depth_m = noisy_depth(view.depth_m, np.random.default_rng([scene.seed, 11]))
        frame = CameraFrame(view.rgb, 0, "", depth_m, view.intrinsics)
        if any(item.kind in WORKSHOP_KINDS for item in scene.objects):
            self._examine_strange(view, frame)
            return
        encoded = self._predictor.encode(view.rgb)
        place = "unseen." if is_unseen(scene.seed) else "usual."
        for group, phrase_of in (("kinds.", attrgetter("kind")), ("pairs.", attrgetter("name"))):
            sample, phrases = _named(view, phrase_of)
            if not phrases:
                continue
            question = Question(phrases, (), self._threshold, MIN_AREA_FRACTION)
            answers = self._answers(question, asked(self._predictor, encoded, question), frame)
            self._add(sample, phrases, answers, ("", group, place))
            if group == "kinds.":
                missed = int((~_found(sample, phrases, answers[""]) & ~sample.crowd).sum())
                self._gallery.add(missed, partial(_cell, view.rgb, answers[""], missed))

    def _examine_strange(self, view: RenderedView, frame: CameraFrame) -> None:
        sample, phrases = _named(view, lambda item: item.kind, WORKSHOP_KINDS)
        if phrases:
            size = view.labels.shape
            masks = np.stack([np.isin(view.labels, _labels_of(view, kind)) for kind in phrases]).astype(np.float32)
            question = Question(phrases, (), self._threshold, MIN_AREA_FRACTION)
            answers = self._answers(question, CellMaps(phrases, masks, Geometry(size, size)), frame)
            self._add(sample, phrases, answers, ("strange.",))

    def _answers(self, question: Question, maps: CellMaps, frame: CameraFrame) -> dict[str, list[ObjectRegion]]:
        """Returns the regions each way."""
        together = answered(question, maps, self._predictor.spec)
        answers = {"_together": list(together.regions)}
        least_px = round(MIN_AREA_FRACTION * frame.rgb.shape[0] * frame.rgb.shape[1])
        for way, seen in (("", frame), ("_without_depth", replace(frame, depth_m=None))):
            start_s = time.perf_counter()
            answers[way] = self._separator.separate(together.regions, together.maps, seen, least_px)
            self._taken_ms.append((time.perf_counter() - start_s) * 1e3)
        return answers

    def _add(
        self,
        sample: InstanceSample,
        phrases: Sequence[str],
        answers: dict[str, list[ObjectRegion]],
        groups: tuple[str, ...],
    ) -> None:
        touches = touching_objects(sample)
        apart = ~touches & ~sample.crowd
        touches &= ~sample.crowd
        before = pieces_of(sample, *_labelled(phrases, answers["_together"]))
        for way, regions in answers.items():
            found, pieces = _found(sample, phrases, regions), pieces_of(sample, *_labelled(phrases, regions))
            for group in groups:
                scores = self._scores[group, way]
                scores.touching += found[touches].tolist()
                scores.apart += found[apart].tolist()
                scores.torn += (pieces > np.maximum(before, 1))[apart].tolist()

    def figures(self) -> list[Figure]:
        figures = [Figure("instances.images", self._images, "images")]
        for (group, way), scores in self._scores.items():
            for name in ("touching", "apart"):
                if found := getattr(scores, name):
                    share = round(float(np.mean(found)), 4)
                    figures.append(Figure(f"instances.{group}{name}.found{way}", share, "share with IoU > 0.5"))
                    if not way:
                        figures.append(Figure(f"instances.{group}{name}.count", len(found), "objects"))
            if scores.torn and way != "_together":
                share = round(float(np.mean(scores.torn)), 4)
                figures.append(Figure(f"instances.{group}torn{way}", share, "share of the objects that stand apart"))
        if self._taken_ms:
            threads = torch.get_num_threads()
            unit = f"ms an image, {threads} thread{'s' if threads > 1 else ''}"
            figures.append(Figure("instances.ms", round(statistics.median(self._taken_ms), 2), unit))
        return figures

    def pictures(self) -> dict[str, np.ndarray]:
        """Returns a row of random answers and one of the worst: each object in a colour of its own."""
        cells = self._gallery.cells()
        return {"instances": grid(cells)} if cells else {}


def _named(
    view: RenderedView, phrase_of: Callable[[SceneObject], str], kinds: Sequence[str] = KINDS
) -> tuple[InstanceSample, tuple[str, ...]]:
    """Returns the objects of a view, labelled by their phrases, and the phrases of those that count.

    Objects that are not of ``kinds`` do not count.
    """
    sample = instance_sample(view.rgb, view.labels, [item.kind for item in view.objects], "", _EVERY_KIND)
    seen = np.flatnonzero(np.bincount(view.labels.ravel(), minlength=len(view.objects) + 1)[1:])
    other = np.array([view.objects[index].kind not in kinds for index in seen], np.bool_)
    sample = replace(sample, crowd=other | (sample.areas_px < round(MIN_AREA_FRACTION * view.labels.size)))
    names = [phrase_of(view.objects[index]) for index in seen]
    phrases = tuple(sorted({name for name, crowd in zip(names, sample.crowd, strict=True) if not crowd}))
    labels = [phrases.index(name) if name in phrases else len(phrases) for name in names]
    return replace(sample, labels=np.array(labels, np.int64)), phrases


def _labels_of(view: RenderedView, kind: str) -> list[int]:
    return [number for number, item in enumerate(view.objects, start=1) if item.kind == kind]


def _labelled(phrases: Sequence[str], regions: list[ObjectRegion]) -> tuple[list[int], list[ObjectRegion]]:
    return [phrases.index(region.prompt) for region in regions], regions


def _found(sample: InstanceSample, phrases: Sequence[str], regions: list[ObjectRegion]) -> np.ndarray:
    return found_objects(sample, *_labelled(phrases, regions))


def _cell(rgb: np.ndarray, regions: list[ObjectRegion], missed: int) -> np.ndarray:
    shown = rgb.copy()
    for number, region in enumerate(regions):
        part = shown[region.window]
        part[region.inside] = 0.4 * part[region.inside] + 0.6 * np.array(PALETTE[number % len(PALETTE)])
    return captioned(shown, f"{missed} missed of {', '.join(dict.fromkeys(region.prompt for region in regions))}")
