# SPDX-License-Identifier: Apache-2.0
"""Measures phrases of colour and kind on scenes that training never saw.

Every scene is asked for each colour and kind pair in it, for its kinds and its colours, for a random pair that is not
there, and for a hard one: colour and kind are both on the table, but not on one object.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from clip_seg_ros.data.tabletop import is_unseen, present_pairs
from clip_seg_ros.evaluation.metrics.masks import ANSWERED_SHARE, mask_iou
from clip_seg_ros.evaluation.pages.pictures import COLUMNS, Gallery, answer_cell, grid
from clip_seg_ros.evaluation.suite import Examiner, Figure
from clip_seg_ros.pipeline import postprocess
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.sim.renderer import RenderedView
from clip_seg_ros.sim.scene import COLORS, HELD_OUT_PAIRS, KINDS, Pattern, Scene

MIN_NAMED_SHARE = 0.001
"""An object is asked for when it covers at least this share of the picture: 307 pixels of 640x480."""


@dataclass(frozen=True)
class Question:
    """One phrase asked of one scene."""

    seed: int
    group: str
    """``seen pair``, ``unseen pair``, ``kind``, ``colour``, ``absent random`` or ``absent hard``."""
    pattern: Pattern
    iou: float
    """0..1; NaN for absent phrases."""
    answered_share: float
    """Share of the picture that the mask covers."""


def phrase_of(pattern: Pattern) -> str:
    """The bare phrase for a (colour, kind); either may be ``None``."""
    color, kind = pattern
    return f"{color} {kind or 'object'}" if color else str(kind)


class PhraseExaminer(Examiner):
    """Asks every question of every scene.

    Args:
        predictor: The model to measure.
        threshold: A pixel belongs to a phrase above this probability.
        model: What the figures call it.
    """

    def __init__(self, predictor: Predictor, threshold: float = 0.5, model: str = "clipseg") -> None:
        self.questions: list[Question] = []
        self._predictor, self._threshold, self._model = predictor, threshold, model
        self._named, self._absent = Gallery(2 * COLUMNS, COLUMNS), Gallery(0, COLUMNS)

    def examine(self, scene: Scene, view: RenderedView) -> None:
        groups = scene_questions(view, np.random.default_rng([scene.seed, 5]))
        answers = answer(self._predictor, view.rgb, [pattern for _, pattern in groups], self._threshold)
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
        """Two rows at random, one of the worst, and one of absent phrases that got the largest masks."""
        return {self._model: grid([*self._named.cells(), *self._absent.cells()])}


def answer(predictor: Predictor, rgb: np.ndarray, patterns: list[Pattern], threshold: float) -> np.ndarray:
    """(P, H, W) bool: the mask of every pattern's phrase, tidied as the nodes' are."""
    maps = predictor.predict(rgb, [phrase_of(pattern) for pattern in patterns])
    return postprocess.tidied(maps, postprocess.masks(maps, threshold)).values


def scene_questions(view: RenderedView, rng: np.random.Generator) -> list[tuple[str, Pattern]]:
    """The (group, pattern) of every question for one scene; the absent ones are drawn from ``rng``."""
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
    """The figures of questions, called after ``model``."""
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
