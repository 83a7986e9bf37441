# SPDX-License-Identifier: Apache-2.0
"""The protocols against plain loops over the samples."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest

from clip_seg_ros.data.samples import DataError, ReferringSample, SemanticSample
from clip_seg_ros.evaluation.answers import LabelAnswers, PhraseAnswers
from clip_seg_ros.evaluation.metrics.boundary import boundary_score, class_boundary_f
from clip_seg_ros.evaluation.protocols import evaluate_phrases, evaluate_referring, evaluate_semantic
from clip_seg_ros.evaluation.suite import Figure
from clip_seg_ros.pipeline.predictor import Predictor

CLASSES = ("background", "cup", "bowl", "ball", "box")


class Labelled(list):
    class_names = CLASSES


@pytest.fixture(scope="module")
def labelled(scenes: list) -> Labelled:
    """The scenes' objects as classes; the top of every picture is ignored."""
    samples = Labelled()
    for sample in scenes:
        labels = np.zeros(sample.mask.shape, np.uint8)
        labels[sample.mask] = CLASSES.index(sample.phrase.split()[-1]) if sample.phrase.split()[-1] in CLASSES else 0
        labels[:10] = 255
        samples.append(SemanticSample(sample.rgb, labels, sample.name))
    return samples


def values(figures: tuple[Figure, ...]) -> dict[str, float]:
    return {figure.name.split(".", 1)[1]: figure.value for figure in figures}


def looped_iou(answered: np.ndarray, true: np.ndarray) -> tuple[int, int]:
    """(intersection, union) in pixels, one after the other."""
    pairs = list(zip(answered.ravel().tolist(), true.ravel().tolist(), strict=True))
    return sum(a and t for a, t in pairs), sum(a or t for a, t in pairs)


def test_referring_equals_plain_loops(clipseg: Predictor, scenes: list) -> None:
    evaluation = evaluate_referring(PhraseAnswers(clipseg), scenes, range(len(scenes)), threshold=0.5)
    areas, f = [], []
    for sample in scenes:
        answered = clipseg.predict(sample.rgb, [sample.phrase]).values[0] > 0.5
        areas.append((looped_iou(answered, sample.mask), sample.mask.any()))
        f.append(boundary_score(answered, sample.mask).f)
    named = [both / (either + 1e-6) for (both, either), there in areas if there]
    found = values(evaluation.figures)
    assert found["mean_iou"] == pytest.approx(np.mean(named))
    assert found["overall_iou"] == pytest.approx(
        sum(both for (both, _), _ in areas) / sum(either for (_, either), _ in areas)
    )
    for level in (50, 60, 70, 80, 90):
        assert found[f"precision_at_{level}"] == np.mean([100 * iou > level for iou in named])
    assert found["boundary_f"] == pytest.approx(np.mean([one for one, (_, there) in zip(f, areas) if there]))
    assert found["count"] == 6
    assert found["absent.count"] == 2
    for result, ((both, either), _) in zip(evaluation.samples, areas, strict=True):
        assert result.iou == pytest.approx(both / either) if either else math.isnan(result.iou)


def test_phrases_equal_plain_loops(clipseg: Predictor, scenes: list) -> None:
    evaluation = evaluate_phrases(PhraseAnswers(clipseg), scenes, range(len(scenes)), threshold=0.35)
    tp = fp = fn = tn = 0
    own = []
    for sample in scenes:
        answered = clipseg.predict(sample.rgb, [sample.phrase]).values[0] > np.float32(0.35)
        both, either = looped_iou(answered, sample.mask)
        tp, fp = tp + both, fp + answered.sum() - both
        fn, tn = fn + sample.mask.sum() - both, tn + answered.size - either
        if sample.mask.any():
            own.append(both / (1 + either))
    found = values(evaluation.figures)
    foreground, background = tp / (1 + tp + fp + fn), tn / (1 + tn + fp + fn)
    assert found["mean_iou"] == pytest.approx(np.mean(own))
    assert found["iou_fg"] == pytest.approx(foreground)
    assert found["iou_bin"] == pytest.approx((foreground + background) / 2)
    assert found["best_iou_fg"] == max(evaluation.sweep.foreground_iou) >= foreground - 0.01
    assert found["ap"] == evaluation.sweep.average_precision
    assert len(evaluation.sweep.thresholds) == 49


def test_phrases_that_are_classes_are_summed_before_the_mean(clipseg: Predictor, scenes: list) -> None:
    named = [replace(sample, phrase="cup") for sample in scenes if sample.mask.any()]
    evaluation = evaluate_phrases(PhraseAnswers(clipseg), named, range(len(named)), phrases_are_classes=True)
    np.testing.assert_allclose(evaluation.sweep.mean_iou, evaluation.sweep.foreground_iou)
    apart = evaluate_phrases(PhraseAnswers(clipseg), named, range(len(named)))
    assert not np.allclose(apart.sweep.mean_iou, apart.sweep.foreground_iou)


def test_only_the_samples_that_were_named_are_measured(clipseg: Predictor, scenes: list) -> None:
    seen = []
    evaluation = evaluate_phrases(
        PhraseAnswers(clipseg), scenes, [1, 4], progress=lambda samples: (seen.append(s) or s for s in samples)
    )
    assert [result.index for result in evaluation.samples] == [1, 4]
    assert [index for index, _ in seen] == [1, 4]


def test_phrases_that_mean_nothing_are_reported_apart(clipseg: Predictor, scenes: list) -> None:
    # "giraffe" finds nothing, and an object whose mask was taken away is an answer to nothing.
    absent = [scenes[2], replace(scenes[0], mask=np.zeros_like(scenes[0].mask))]
    for evaluate in (evaluate_referring, evaluate_phrases):
        found = values(evaluate(PhraseAnswers(clipseg), absent, [0, 1]).figures)
        assert found["absent.count"] == 2
        assert found["absent.answered"] == 0.5
        assert math.isnan(found.get("mean_iou", math.nan))
        assert math.isnan(found["boundary_f"])


def test_semantic_equals_plain_loops(clipseg: Predictor, labelled: Labelled) -> None:
    answers = LabelAnswers(clipseg, CLASSES, threshold=0.5)
    evaluation = evaluate_semantic(answers, labelled, range(len(labelled)))
    looped = [[0] * 5 for _ in range(5)]
    f = []
    for sample in labelled:
        predicted = answers.labels(sample.rgb)
        for true, answer in zip(sample.labels.ravel().tolist(), predicted.ravel().tolist(), strict=True):
            if true != 255:
                looped[true][answer] += 1
        f.append(np.mean(list(class_boundary_f(predicted, sample.labels).values())))
    counts = np.array(looped)
    np.testing.assert_array_equal(evaluation.confusion, counts)
    iou = [counts[c, c] / (counts[c].sum() + counts[:, c].sum() - counts[c, c]) for c in range(5) if counts[c].sum()]
    found = values(evaluation.figures)
    there = counts.sum(axis=0) + counts.sum(axis=1) > 0
    assert np.isnan(evaluation.class_iou).tolist() == (~there).tolist()
    assert found["mean_iou"] == pytest.approx(sum(iou) / there.sum())
    assert found["pixel_accuracy"] == pytest.approx(np.trace(counts) / counts.sum())
    assert found["boundary_f"] == pytest.approx(np.mean(f))
    assert found["count"] == len(evaluation.samples) == 6


def test_a_mask_of_another_size_is_named(clipseg: Predictor, scenes: list, labelled: Labelled) -> None:
    wrong = [replace(scenes[0], mask=scenes[0].mask[1:])]
    for evaluate in (evaluate_referring, evaluate_phrases):
        with pytest.raises(DataError, match=scenes[0].name):
            evaluate(PhraseAnswers(clipseg), wrong, [0])
    with pytest.raises(DataError, match=r"\(120, 160\).*\(119, 160\)"):
        evaluate_semantic(LabelAnswers(clipseg, CLASSES), [replace(labelled[0], labels=labelled[0].labels[1:])], [0])


def with_edges(scenes: list) -> list:
    """The named scenes, with a rim around each object and a part of it ignored; and one that ignores nothing."""
    edged = []
    for sample in [sample for sample in scenes if sample.mask.any()]:
        around = cv2.dilate(sample.mask.astype(np.uint8), np.ones((15, 15))) > 0
        ignored = around & ~sample.mask
        ignored[:, : np.nonzero(sample.mask.any(axis=0))[0][3]] = True
        edged.append(replace(sample, ignored=ignored))
    return [*edged, scenes[0]]


def looped_counts(answered: np.ndarray, sample: ReferringSample) -> tuple[int, int, int, int]:
    """(tp, fp, fn, tn) of the pixels that count, one after the other."""
    tp = fp = fn = tn = 0
    for y in range(answered.shape[0]):
        for x in range(answered.shape[1]):
            if sample.ignored is not None and sample.ignored[y, x]:
                continue
            tp += bool(answered[y, x] and sample.mask[y, x])
            fp += bool(answered[y, x] and not sample.mask[y, x])
            fn += bool(not answered[y, x] and sample.mask[y, x])
            tn += bool(not answered[y, x] and not sample.mask[y, x])
    return tp, fp, fn, tn


def test_ignored_pixels_count_in_no_figure(clipseg: Predictor, scenes: list) -> None:
    samples, threshold = with_edges(scenes), 0.35
    indices = range(len(samples))
    referring = evaluate_referring(PhraseAnswers(clipseg), samples, indices, threshold)
    phrases = evaluate_phrases(PhraseAnswers(clipseg), samples, indices, threshold)
    classes = evaluate_phrases(PhraseAnswers(clipseg), samples, indices, threshold, phrases_are_classes=True)
    each, edges = [], []
    for sample in samples:
        answered = clipseg.predict(sample.rgb, [sample.phrase]).values[0] > np.float32(threshold)
        each.append(looped_counts(answered, sample))
        edges.append(boundary_score(answered, sample.mask, ignored=sample.ignored).f)
    tp, fp, fn, tn = (sum(column) for column in zip(*each))
    found, swept, by_class = (values(evaluation.figures) for evaluation in (referring, phrases, classes))
    assert found["overall_iou"] == pytest.approx(tp / (tp + fp + fn))
    assert found["mean_iou"] == pytest.approx(np.mean([a / (a + b + c + 1e-6) for a, b, c, _ in each]))
    foreground, background = tp / (1 + tp + fp + fn), tn / (1 + tn + fp + fn)
    assert swept["iou_fg"] == pytest.approx(foreground)
    assert swept["iou_bin"] == pytest.approx((foreground + background) / 2)
    assert swept["mean_iou"] == pytest.approx(np.mean([a / (1 + a + b + c) for a, b, c, _ in each]))
    of_class = {}
    for sample, counts in zip(samples, each):
        of_class[sample.phrase] = np.add(of_class.get(sample.phrase, 0), counts)
    assert len(of_class) < len(samples)
    assert by_class["mean_iou"] == pytest.approx(np.mean([a / (1 + a + b + c) for a, b, c, _ in of_class.values()]))
    assert found["boundary_f"] == swept["boundary_f"] == pytest.approx(np.mean(edges))
    for evaluation in (referring, phrases):
        for result, (a, b, c, d) in zip(evaluation.samples, each, strict=True):
            assert result.iou == pytest.approx(a / (a + b + c))
            assert (result.precision, result.recall) == pytest.approx((a / (a + b), a / (a + c)))
            assert result.true_share == pytest.approx((a + c) / (a + b + c + d))
            assert result.answered_share == pytest.approx((a + b) / (a + b + c + d))
    as_background = [replace(sample, ignored=None) for sample in samples]
    counted = values(evaluate_phrases(PhraseAnswers(clipseg), as_background, indices, threshold).figures)
    assert abs(counted["iou_fg"] - swept["iou_fg"]) > 0.01, "it makes a difference here"


def test_a_sample_that_ignores_all_or_another_size_is_named(clipseg: Predictor, scenes: list) -> None:
    for ignored in (np.ones_like(scenes[0].mask), np.zeros((3, 3), bool)):
        with pytest.raises(DataError, match=scenes[0].name):
            evaluate_phrases(PhraseAnswers(clipseg), [replace(scenes[0], ignored=ignored)], [0])


def test_unseen_classes_are_measured_apart(clipseg: Predictor, labelled: Labelled) -> None:
    answers = LabelAnswers(clipseg, CLASSES, threshold=0.5)
    evaluation = evaluate_semantic(answers, labelled, range(len(labelled)), unseen=("cup", "ball"))
    iou = dict(zip(CLASSES, evaluation.class_iou))
    seen = np.nanmean([iou[name] for name in ("background", "bowl", "box")])
    unseen = np.nanmean([iou[name] for name in ("cup", "ball")])
    found = values(evaluation.figures)
    assert found["seen_iou"] == pytest.approx(seen)
    assert found["unseen_iou"] == pytest.approx(unseen)
    assert found["harmonic_iou"] == pytest.approx(2 / (1 / seen + 1 / unseen))
    units = {figure.name: figure.unit for figure in evaluation.figures}
    assert units["semantic.unseen_iou"] == "mIoU of 2 unseen classes"
    assert "seen_iou" not in values(evaluate_semantic(answers, labelled, [0]).figures)


def test_the_harmonic_mean_of_nothing_right_is_zero(clipseg: Predictor, labelled: Labelled) -> None:
    wrong = [replace(labelled[0], labels=np.full_like(labelled[0].labels, CLASSES.index("box")))]
    evaluation = evaluate_semantic(LabelAnswers(clipseg, CLASSES, threshold=1.0), wrong, [0], unseen=("box",))
    found = values(evaluation.figures)
    assert (found["seen_iou"], found["unseen_iou"], found["harmonic_iou"]) == (0, 0, 0)
