"""Pictures of what a model answered, beside what was true."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from clip_seg_ros.data.tabletop import held_out_scene
from clip_seg_ros.evaluation.embedded import Question, answer, phrase_of
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer

_CELL = (320, 240)
_ANSWER_RGB, _TRUE_RGB = (230, 60, 160), (255, 255, 255)


def answer_grid(
    predictor: Predictor, questions: list[Question], threshold: float, columns: int = 4, seed: int = 0
) -> np.ndarray:
    """Draws two rows of random answers, then one of the worst named ones and one of absent phrases answered.

    The answer is tinted, the outline of the truth is white.

    Returns:
        (rows * 240, columns * 320, 3) uint8, RGB.
    """
    rng = np.random.default_rng(seed)
    named = [q for q in questions if q.group in ("seen pair", "unseen pair")]
    picks = [named[i] for i in rng.choice(len(named), min(2 * columns, len(named)), replace=False)]
    picks += sorted(named, key=lambda q: q.iou)[:columns]
    wrong = [q for q in questions if q.group.startswith("absent")]
    picks += sorted(wrong, key=lambda q: -q.answered_share)[:columns]
    cells = []
    with SceneRenderer() as renderer:
        for question in picks:
            view = renderer.render(held_out_scene(question.seed), depth=False)
            mask = answer(predictor, view.rgb, [question.pattern], threshold)[0]
            cells.append(_cell(view, question, mask))
    blank = np.zeros_like(cells[0])
    cells += [blank] * (-len(cells) % columns)
    return np.concatenate([np.concatenate(cells[i : i + columns], axis=1) for i in range(0, len(cells), columns)])


def write_picture(path: Path, rgb: np.ndarray) -> None:
    """Writes an (H, W, 3) uint8 RGB image as PNG, whatever the file is called.

    Raises:
        OSError: the file cannot be written.
    """
    _, content = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    path.write_bytes(content.tobytes())


def _cell(view: RenderedView, question: Question, mask: np.ndarray) -> np.ndarray:
    picture = view.rgb.copy()
    picture[mask] = (0.35 * picture[mask] + 0.65 * np.array(_ANSWER_RGB)).astype(np.uint8)
    true = view.mask_of(*question.pattern).astype(np.uint8)
    contours, _ = cv2.findContours(true, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, _TRUE_RGB, 2, cv2.LINE_AA)
    picture = cv2.resize(picture, _CELL, interpolation=cv2.INTER_AREA)
    verdict = "not there" if question.group.startswith("absent") else f"IoU {question.iou:.2f}"
    unseen = " (unseen pair)" if question.group == "unseen pair" else ""
    cv2.rectangle(picture, (0, 0), (_CELL[0], 20), (0, 0, 0), -1)
    text = f"{phrase_of(question.pattern)}{unseen}: {verdict}"
    cv2.putText(picture, text, (5, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return picture
