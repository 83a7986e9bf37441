# SPDX-License-Identifier: Apache-2.0
"""Writes a page of images with the worst answers first, so that a person finds out why a model failed.

The page is one HTML file, ``index.html``, with JPEG images beside it; it loads nothing from elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from clip_seg_ros.data.samples import IGNORED, ReferringDataset, SemanticDataset
from clip_seg_ros.evaluation.answers import LabelAnswers, PhraseAnswers
from clip_seg_ros.evaluation.metrics.classes import ConfusionMatrix
from clip_seg_ros.evaluation.pages import charts, panels
from clip_seg_ros.evaluation.pages.report import Evaluation, confusions, package_version, worst_classes
from clip_seg_ros.evaluation.pages.style import STYLE
from clip_seg_ros.evaluation.protocols import ImageResult, PhraseEvaluation, PhraseResult, SemanticEvaluation

SHOWN = 40
"""The number of the worst answers on the page."""
_LEGEND_SHARE = 0.002  # the least share of the image; smaller classes would only lengthen the legend
_MANY_CLASSES = 40


def write_phrase_page(
    folder: Path,
    run: Mapping[str, Any],
    evaluation: PhraseEvaluation,
    answers: PhraseAnswers,
    dataset: ReferringDataset,
    shown: int = SHOWN,
) -> Path:
    """Computes the worst answers again, draws them and writes the page.

    Args:
        folder: Folder for the page, created if missing; files of an earlier page are overwritten.
        run: Description of the run, plain values.
        evaluation: Evaluation of ``answers`` on ``dataset``.
        answers: Model that was evaluated.
        dataset: Data set of the evaluation.
        shown: Number of answers to draw.

    Returns:
        The path of the page.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cards = []
    for rank, result in enumerate(sorted(evaluation.samples, key=_phrase_order)[:shown], start=1):
        sample = dataset[result.index]
        pictures = panels.phrase_panels(
            sample.rgb, sample.mask, answers.probabilities(sample), sample.phrase, evaluation.threshold, sample.ignored
        )
        captions = {
            "truth": "what is meant" if result.true_share else "the picture: nothing is meant",
            "answer": "the answer, with scores",
            "errors": f"{_swatch(panels.HIT)} right {_swatch(panels.MISSED)} missed {_swatch(panels.FALSE)} too much",
            "probability": f"probability, dark 0 to yellow 1, highest {result.highest_probability:.2f}",
        }
        if sample.ignored is not None and sample.ignored.any():
            captions["errors"] += "; black does not count"
        figures = _figures_of(folder, rank, pictures, captions)
        iou = "-" if math.isnan(result.iou) else f"{result.iou:.2f}"
        facts = f"{verdict(result, evaluation.threshold)}; boundary F {result.boundary_f:.2f}"
        unknown = answers.predictor.spec.unknown_words(result.phrase) if answers.prompt != "image" else ()
        if unknown:
            facts += f"; words that the model never learnt: {', '.join(unknown)}"
        cards.append(_card(rank, f"“{result.phrase}”", f"IoU {iou}", facts, result.name, figures))
    drawn = [charts.histogram([result.iou for result in evaluation.samples], "IoU of a phrase")]
    if evaluation.sweep is not None:
        drawn.insert(0, charts.sweep_chart(evaluation.sweep, evaluation.threshold))
    return _write(folder, run, evaluation, drawn, cards, len(evaluation.samples))


def write_semantic_page(
    folder: Path,
    run: Mapping[str, Any],
    evaluation: SemanticEvaluation,
    answers: LabelAnswers,
    dataset: SemanticDataset,
    shown: int = SHOWN,
) -> Path:
    """Labels the worst images again, draws them and writes the page; the arguments are as in ``write_phrase_page``."""
    folder.mkdir(parents=True, exist_ok=True)
    colors = panels.class_colors(evaluation.class_names)
    cards = []
    for rank, result in enumerate(sorted(evaluation.samples, key=_image_order)[:shown], start=1):
        sample = dataset[result.index]
        predicted = answers.labels(sample.rgb)
        pictures = panels.label_panels(sample.rgb, sample.labels, predicted, colors)
        captions = {
            "picture": "the picture",
            "truth": "the true classes" + ("; black is not labelled" if (sample.labels == IGNORED).any() else ""),
            "answer": "the answer",
            "errors": f"{_swatch(panels.FALSE)} wrong",
        }
        figures = _figures_of(folder, rank, pictures, captions)
        figures += _legend(sample.labels, predicted, evaluation.class_names, colors)
        facts = f"{_percent(result.pixel_accuracy)} of the pixels right; boundary F {result.boundary_f:.2f}"
        cards.append(_card(rank, result.name, f"mIoU {result.mean_iou:.2f}", facts, "", figures))
    drawn = [charts.histogram([result.mean_iou for result in evaluation.samples], "mIoU of a picture")]
    tables = [_class_table(evaluation), _confusion_table(evaluation)]
    return _write(folder, run, evaluation, [*drawn, *tables], cards, len(evaluation.samples))


def verdict(result: PhraseResult, threshold: float) -> str:
    """Returns in words how an answer is wrong, or that it is right."""
    if not result.true_share:
        if not result.answered_share:
            return "rightly found nothing"
        return f"named nothing here, but {_percent(result.answered_share)} of the picture was answered"
    if not result.answered_share:
        return f"nothing found: no pixel above {threshold:g}"
    if not result.precision:
        return "something else was found"
    if result.recall < 0.5 and result.precision < 0.5:
        return "mostly something else was found"
    if result.recall < 0.75 and result.recall <= result.precision:
        return f"{_percent(1 - result.recall)} of it was missed"
    if result.precision < 0.75:
        return f"too much: {_percent(1 - result.precision)} of the answer is something else"
    return "found; the outline differs" if result.iou < 0.9 else "found"


def _phrase_order(result: PhraseResult) -> tuple[float, float]:
    """Returns a key that sorts the lowest IoU first, and of equal ones the largest error."""
    return (math.inf if math.isnan(result.iou) else result.iou, -max(result.true_share, result.answered_share))


def _image_order(result: ImageResult) -> float:
    return math.inf if math.isnan(result.mean_iou) else result.mean_iou


def _write(
    folder: Path,
    run: Mapping[str, Any],
    evaluation: Evaluation,
    drawn: Sequence[str],
    cards: Sequence[str],
    measured: int,
) -> Path:
    title = f"{run['model']} on {run['data']}"
    settings = {**run, "version": package_version()}
    said = " · ".join(f"{escape(name)} <b>{escape(_setting(value))}</b>" for name, value in settings.items())
    worst = f"The {len(cards)} worst of {measured}" if len(cards) < measured else f"All {measured}, the worst first"
    figures = [(figure.name, _value(figure.value), figure.unit) for figure in evaluation.figures]
    body = "\n".join(
        [
            f"<h1>{escape(title)}</h1>",
            f'<p class="run">{said}</p>',
            '<div class="summary">',
            _table(("figure", "value", ""), figures),
            *drawn,
            "</div>",
            f"<h2>{worst}</h2>",
            *cards,
        ]
    )
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    page = folder / "index.html"
    page.write_text(
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n',
        encoding="utf-8",
    )
    return page


def _figures_of(folder: Path, rank: int, pictures: Mapping[str, np.ndarray], captions: Mapping[str, str]) -> str:
    """Writes the images of one card and returns their HTML. The captions are HTML already."""
    parts = []
    for name, rgb in pictures.items():
        file = f"{rank:03d}_{name}.jpg"
        _, content = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])
        (folder / file).write_bytes(content.tobytes())
        size = f'width="{rgb.shape[1]}" height="{rgb.shape[0]}"'
        image = f'<img src="{file}" {size} loading="lazy" alt="{name}">'
        parts.append(f"<figure>{image}<figcaption>{captions[name]}</figcaption></figure>")
    return f'<div class="panels">{"".join(parts)}</div>'


def _card(rank: int, title: str, score: str, facts: str, name: str, content: str) -> str:
    heading = f'<span class="rank">{rank}</span><b>{escape(title)}</b><span class="score">{escape(score)}</span>'
    rest = f'<span>{escape(facts)}</span><span class="name">{escape(name)}</span>'
    return f"<article><header>{heading}{rest}</header>{content}</article>"


def _legend(true: np.ndarray, predicted: np.ndarray, class_names: Sequence[str], colors: np.ndarray) -> str:
    """Returns the legend of one image: its classes with their colours and IoU, the largest first."""
    matrix = ConfusionMatrix(len(class_names))
    matrix.add(predicted, true)
    iou = matrix.scores().iou
    areas = {}
    for index in np.union1d(np.unique(true[true != IGNORED]), np.unique(predicted)):
        areas[int(index)] = max(np.mean(true == index), np.mean(predicted == index))
    shown = [index for index in sorted(areas, key=lambda index: -areas[index]) if areas[index] >= _LEGEND_SHARE]
    items = (
        f"<li>{_swatch(colors[index])} {escape(class_names[index])} <small>{_value(float(iou[index]), 2)}</small></li>"
        for index in shown
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def _class_table(evaluation: SemanticEvaluation) -> str:
    rows = worst_classes(evaluation)
    left_out = f"<p>and {len(rows) - _MANY_CLASSES} better ones</p>" if len(rows) > _MANY_CLASSES else ""
    cells = [(name, _value(iou, 3), _value(accuracy, 3)) for name, iou, accuracy in rows[:_MANY_CLASSES]]
    return f"<div>{_table(('class, worst first', 'IoU', 'accuracy'), cells)}{left_out}</div>"


def _confusion_table(evaluation: SemanticEvaluation) -> str:
    rows = [(true, answer, _percent(share)) for true, answer, share in confusions(evaluation)]
    return _table(("true class", "taken for", "of its pixels"), rows)


def _table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _swatch(color: Sequence[int]) -> str:
    red, green, blue = (int(channel) for channel in color)
    return f'<i style="background:rgb({red},{green},{blue})"></i>'


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def _value(value: float, digits: int = 4) -> str:
    if math.isnan(value):
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.{digits}f}"


def _percent(share: float) -> str:
    if math.isnan(share):
        return "-"
    return "less than 1%" if 0 < share < 0.005 else f"{100 * share:.0f}%"
