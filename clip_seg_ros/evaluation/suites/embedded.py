# SPDX-License-Identifier: Apache-2.0
"""Evaluates phrases of colour and kind on scenes that training never saw.

The phrases for every scene name each (colour, kind) pair in it, its kinds and its colours, a random absent pair, and a
hard absent pair: its colour and its kind are both on the table, but not on one object.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from clip_seg_ros.data.tabletop import is_unseen, present_pairs
from clip_seg_ros.evaluation.metrics.masks import ANSWERED_SHARE, mask_iou
from clip_seg_ros.evaluation.pages.pictures import COLUMNS, Gallery, answer_cell, grid
from clip_seg_ros.evaluation.suite import Examiner, Figure
from clip_seg_ros.pipeline import answering, postprocess
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.sim.renderer import RenderedView
from clip_seg_ros.sim.scene import COLORS, HELD_OUT_PAIRS, KINDS, Pattern, Scene

MIN_NAMED_SHARE = 0.001
"""The least share of the image that an object must cover for phrases to name it: 307 pixels of 640x480."""


@dataclass(frozen=True)
class Question:
    """One phrase for one scene, with the scores of its answer."""

    seed: int
    group: str
    """The group of phrases: seen pair, unseen pair, kind, colour, absent random or absent hard."""
    pattern: Pattern
    iou: float
    """The IoU of the mask, 0..1; NaN for absent phrases."""
    answered_share: float
    """The share of the image that the mask covers."""


def phrase_of(pattern: Pattern) -> str:
    """Returns the phrase for a (colour, kind), one of which may be ``None``."""
    color, kind = pattern
    return f"{color} {kind or 'object'}" if color else str(kind)


class PhraseExaminer(Examiner):
    """Asks a model every question about every scene.

    Args:
        predictor: Predictor of the model to evaluate.
        threshold: Probability above which a pixel belongs to a phrase.
        model: Name of the model in the figures.
        refine_edges: Whether masks are fitted to the edges of the image.
    """

    def __init__(
        self, predictor: Predictor, threshold: float = 0.5, model: str = "clipseg", refine_edges: bool = False
    ) -> None:
        self.questions: list[Question] = []
        self._predictor, self._threshold, self._model = predictor, threshold, model
        self._refine_edges = refine_edges
        self._named, self._absent = Gallery(2 * COLUMNS, COLUMNS), Gallery(0, COLUMNS)

    def examine(self, scene: Scene, view: RenderedView) -> None:
        groups = scene_questions(view, np.random.default_rng([scene.seed, 5]))
        patterns = [pattern for _, pattern in groups]
        answers = answer(self._predictor, view.rgb, patterns, self._threshold, self._refine_edges)
        for (group, pattern), mask in zip(groups, answers, strict=True):
            truth, absent = view.mask_of(*pattern), group.startswith("absent")
            iou = float("nan") if absent else mask_iou(mask, truth)
            self.questions.append(Question(scene.seed, group, pattern, iou, float(mask.mean())))
            if absent or group.endswith("pair"):
                verdict = "not there" if absent else f"IoU {iou:.2f}"
                caption = f"{phrase_of(pattern)}{' (unseen pair)' if group == 'unseen pair' else ''}: {verdict}"
                gallery, badness = (self._absent, mask.mean()) if absent else (self._named, -iou)
                gallery.add(badness, partial(answer_cell, view.rgb, mask, truth, caption))

    def figures(self) -> list[Figure]:
        return summarise(self.questions, self._model)

    def pictures(self) -> dict[str, np.ndarray]:
        """Returns two rows of random answers, one of the worst, and one of the largest masks of absent phrases."""
        return {self._model: grid([*self._named.cells(), *self._absent.cells()])}


def answer(
    predictor: Predictor, rgb: np.ndarray, patterns: list[Pattern], threshold: float, refine_edges: bool = False
) -> np.ndarray:
    """Returns the masks of the patterns' phrases, tidied as in the nodes, (P, H, W) bool."""
    phrases = tuple(phrase_of(pattern) for pattern in patterns)
    if refine_edges:
        question = answering.Question(phrases, (), threshold)
        masks = np.zeros((len(phrases), *rgb.shape[:2]), bool)
        for region in answering.answer(predictor, predictor.encode(rgb), question, rgb).regions:
            masks[phrases.index(region.prompt)][region.window] |= region.inside
        return masks
    maps = predictor.predict(rgb, phrases)
    found = postprocess.tidied(maps, postprocess.masks(maps, threshold))
    least_score = predictor.spec.calibration.least_score
    if least_score > 0:
        place = {prompt: index for index, prompt in enumerate(maps.prompts)}
        for region in postprocess.regions(maps, found, tidy=False):
            if region.score < least_score:
                found.values[place[region.prompt]][region.window] &= ~region.inside
    return found.values


def scene_questions(view: RenderedView, rng: np.random.Generator) -> list[tuple[str, Pattern]]:
    """Returns the (group, pattern) of every question about one scene; absent ones are drawn with ``rng``."""
    everything = [(item.color, item.kind) for item in view.objects]
    visible = sorted(present_pairs(everything, view.labels, MIN_NAMED_SHARE))
    questions: list[tuple[str, Pattern]] = [
        ("unseen pair" if pair in HELD_OUT_PAIRS else "seen pair", pair) for pair in visible
    ]
    questions += [("kind", (None, kind)) for kind in sorted({k for _, k in visible})]
    questions += [("colour", (color, None)) for color in sorted({c for c, _ in visible})]
    absent = [(c, k) for c in COLORS for k in KINDS if (c, k) not in everything]
    questions.append(("absent random", absent[rng.integers(len(absent))]))
    colors, kinds = {c for c, _ in visible}, {k for _, k in visible}
    hard = [(c, k) for c, k in absent if c in colors and k in kinds]
    if hard:
        questions.append(("absent hard", hard[rng.integers(len(hard))]))
    return questions


def summarise(questions: list[Question], model: str = "clipseg") -> list[Figure]:
    """Returns the figures of questions, whose names contain ``model``."""
    figures: list[Figure] = []

    def add(name: str, value: float, unit: str) -> None:
        figures.append(Figure(f"embedded.{model}.{name}", round(float(value), 4), unit))

    def add_ious(name: str, asked: list[Question]) -> None:
        if asked:
            values = np.array([q.iou for q in asked])
            add(f"{name}.mean_iou", values.mean(), "IoU")
            add(f"{name}.over_half", (values > 0.5).mean(), "share with IoU > 0.5")
            add(f"{name}.count", len(values), "phrases")

    add("scenes", len({q.seed for q in questions}), "scenes")
    named = [q for q in questions if q.group in ("seen pair", "unseen pair")]
    add_ious("named", named)
    add_ious("named_usual_scenes", [q for q in named if not is_unseen(q.seed)])
    add_ious("named_unseen_scenes", [q for q in named if is_unseen(q.seed)])
    for name, group in (
        ("seen_pairs", "seen pair"),
        ("unseen_pairs", "unseen pair"),
        ("kind_only", "kind"),
        ("color_only", "colour"),
    ):
        add_ious(name, [q for q in questions if q.group == group])
    for name, group in (("absent_random", "absent random"), ("absent_hard", "absent hard")):
        answered = [q.answered_share > ANSWERED_SHARE for q in questions if q.group == group]
        if answered:
            add(f"{name}.answered", np.mean(answered), "share answered")
            add(f"{name}.count", len(answered), "phrases")
    return figures
