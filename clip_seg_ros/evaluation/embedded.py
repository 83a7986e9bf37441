"""Measures the embedded weights on scenes that training never saw.

Every scene is asked for each colour and kind pair in it, for its kinds and its colours, for a random pair that is not
there, and for a hard one: colour and kind are both on the table, but not on one object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from clip_seg_ros.data.tabletop import present_pairs
from clip_seg_ros.evaluation.metrics import mask_iou
from clip_seg_ros.pipeline import postprocess
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import COLORS, HELD_OUT_PAIRS, KINDS, Pattern, sample_scene

MIN_NAMED_SHARE = 0.001
"""An object is asked for when it covers at least this share of the picture: 307 pixels of 640x480."""
ANSWERED_SHARE = 0.005
"""A phrase counts as answered when its mask covers more than this share of the picture."""


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


def evaluate_embedded(
    predictor: Predictor, seeds: Iterable[int], threshold: float = 0.5, progress: Callable[[Iterable], Iterable] = iter
) -> list[Question]:
    """Asks every question of every scene, on pictures of 640x480 as the simulated camera sends them.

    Args:
        predictor: the model to measure.
        seeds: scenes; they must not be among the training scenes.
        threshold: a pixel belongs to a phrase above this probability.
        progress: wraps the seeds, for a progress bar.
    """
    questions: list[Question] = []
    with SceneRenderer() as renderer:
        for seed in progress(seeds):
            view = renderer.render(sample_scene(seed), depth=False)
            groups = scene_questions(view, np.random.default_rng([seed, 5]))
            answers = answer(predictor, view.rgb, [pattern for _, pattern in groups], threshold)
            for (group, pattern), mask in zip(groups, answers, strict=True):
                absent = group.startswith("absent")
                iou = float("nan") if absent else mask_iou(mask, view.mask_of(*pattern))
                questions.append(Question(seed, group, pattern, iou, float(mask.mean())))
    return questions


def answer(predictor: Predictor, rgb: np.ndarray, patterns: list[Pattern], threshold: float) -> np.ndarray:
    """(P, H, W) bool: the mask of every pattern's phrase."""
    maps = predictor.predict(rgb, [phrase_of(pattern) for pattern in patterns])
    return postprocess.masks(maps, threshold).values


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


def summarise(questions: list[Question]) -> list[dict[str, object]]:
    """The figures, each ``{"name", "value", "unit"}``."""
    figures: list[dict[str, object]] = []

    def add(name: str, value: float, unit: str) -> None:
        figures.append({"name": f"embedded.clipseg.{name}", "value": round(float(value), 4), "unit": unit})

    def ious(*groups: str) -> np.ndarray:
        return np.array([q.iou for q in questions if q.group in groups])

    def answered(group: str) -> np.ndarray:
        return np.array([q.answered_share > ANSWERED_SHARE for q in questions if q.group == group])

    add("scenes", len({q.seed for q in questions}), "scenes")
    for name, groups in {
        "named": ("seen pair", "unseen pair"),
        "seen_pairs": ("seen pair",),
        "unseen_pairs": ("unseen pair",),
        "kind_only": ("kind",),
        "color_only": ("colour",),
    }.items():
        values = ious(*groups)
        if len(values):
            add(f"{name}.mean_iou", values.mean(), "IoU")
            add(f"{name}.over_half", (values > 0.5).mean(), "share with IoU > 0.5")
            add(f"{name}.count", len(values), "phrases")
    for name, group in {"absent_random": "absent random", "absent_hard": "absent hard"}.items():
        values = answered(group)
        if len(values):
            add(f"{name}.answered", values.mean(), "share answered")
            add(f"{name}.count", len(values), "phrases")
    return figures
