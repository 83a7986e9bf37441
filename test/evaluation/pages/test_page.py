# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from clip_seg_ros.data.samples import SemanticSample
from clip_seg_ros.evaluation.answers import LabelAnswers, PhraseAnswers
from clip_seg_ros.evaluation.pages.page import verdict, write_phrase_page, write_semantic_page
from clip_seg_ros.evaluation.protocols import PhraseResult, evaluate_phrases, evaluate_semantic
from clip_seg_ros.pipeline.predictor import Predictor

VOID = {"meta", "img", "line", "rect", "polyline"}


class Reader(HTMLParser):
    """Collects pictures and checks that tags close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pictures: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag == "img":
            self.pictures.append(dict(attrs)["src"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        assert tag in VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


class Labelled(list):
    class_names = ("background", "cup", "ball")


def test_the_worst_phrases_come_first_with_their_pictures(clipseg: Predictor, scenes: list, tmp_path: Path) -> None:
    answers = PhraseAnswers(clipseg)
    evaluation = evaluate_phrases(answers, scenes, range(len(scenes)))
    run = {"model": "<pocket>", "data": "here", "threshold": 0.3}
    page = write_phrase_page(tmp_path / "page", run, evaluation, answers, scenes, shown=4)
    text = page.read_text(encoding="utf-8")
    reader = Reader(text)
    ious = sorted(result.iou for result in evaluation.samples if result.true_share)
    assert re.findall(r">IoU ([\d.]+)<", text) == [f"{iou:.2f}" for iou in ious]
    assert len(reader.pictures) == 16
    assert {path.name for path in page.parent.glob("*.jpg")} == set(reader.pictures)
    assert all(cv2.imread(str(page.parent / name)).shape == (300, 400, 3) for name in reader.pictures)
    assert "The 4 worst of 6" in text
    assert "&lt;pocket&gt;" in text
    assert "<pocket>" not in text
    assert not re.search(r"https?://|<script|<link", text), "nothing from elsewhere"
    again = write_phrase_page(tmp_path / "page", run, evaluation, answers, scenes)
    said = again.read_text(encoding="utf-8")
    assert "All 6, the worst first" in said
    assert "rightly found nothing" in said
    assert "never learnt: giraffe" in said


def test_the_worst_pictures_come_first_with_a_legend(clipseg: Predictor, scenes: list, tmp_path: Path) -> None:
    samples = Labelled()
    for sample in scenes[:3]:
        labels = np.where(sample.mask, 1, 0).astype(np.uint8)
        labels[:5] = 255
        samples.append(SemanticSample(sample.rgb, labels, f"<{sample.name}>"))
    answers = LabelAnswers(clipseg, samples.class_names, threshold=0.5)
    evaluation = evaluate_semantic(answers, samples, range(3))
    page = write_semantic_page(tmp_path, {"model": "pocket", "data": "here"}, evaluation, answers, samples)
    text = page.read_text(encoding="utf-8")
    reader = Reader(text)
    assert len(reader.pictures) == 12
    assert all((tmp_path / name).is_file() for name in reader.pictures)
    found = re.findall(r">mIoU ([\d.]+)<", text)
    assert found == sorted(f"{result.mean_iou:.2f}" for result in evaluation.samples)
    assert text.count('class="legend"') == 3
    assert "black is not labelled" in text
    assert "taken for" in text
    assert f"&lt;{scenes[0].name}&gt;" in text


@pytest.mark.parametrize(
    ("true", "answered", "precision", "recall", "said"),
    [
        (0.0, 0.0, np.nan, np.nan, "rightly found nothing"),
        (0.0, 0.2, 0.0, np.nan, "named nothing here, but 20% of the picture was answered"),
        (0.1, 0.0, np.nan, 0.0, "nothing found: no pixel above 0.3"),
        (0.1, 0.1, 0.0, 0.0, "something else was found"),
        (0.1, 0.1, 0.2, 0.2, "mostly something else was found"),
        (0.1, 0.05, 1.0, 0.5, "50% of it was missed"),
        (0.1, 0.2, 0.5, 1.0, "too much: 50% of the answer is something else"),
        (0.1, 0.1, 0.9, 0.9, "found; the outline differs"),
        (0.1, 0.1, 0.99, 0.99, "found"),
    ],
)
def test_what_went_wrong_is_said_in_words(
    true: float, answered: float, precision: float, recall: float, said: str
) -> None:
    iou = 1 / (1 / precision + 1 / recall - 1) if precision and recall else 0.0
    result = PhraseResult(0, "n", "p", iou, 0.5, precision, recall, 0.9, true, answered)
    assert verdict(result, 0.3) == said
