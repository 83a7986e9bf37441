# SPDX-License-Identifier: Apache-2.0
"""Temperatures and thresholds are found again that were put into the samples."""

from dataclasses import dataclass

import numpy as np
import pytest

from clip_seg_ros.data.samples import DataError, ReferringSample
from clip_seg_ros.evaluation.calibrating import LOGITS, Asked, collect, fit, measure, reliability
from clip_seg_ros.evaluation.metrics.masks import mask_iou
from clip_seg_ros.models.calibration import Calibration

SIDE = 40


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


@dataclass
class Given:
    """Answers what each sample has as its image: a logit for every pixel."""

    logits: dict[str, np.ndarray]

    def probabilities(self, sample: ReferringSample) -> np.ndarray:
        return sigmoid(self.logits[sample.name]).astype(np.float32)


def asked(samples: list[tuple[str, np.ndarray, np.ndarray]]) -> list[Asked]:
    """Collects (phrase, mask, logits)."""
    rgb = np.zeros((SIDE, SIDE, 3), np.uint8)
    dataset = [ReferringSample(rgb, phrase, mask, str(place)) for place, (phrase, mask, _) in enumerate(samples)]
    given = Given({str(place): logits for place, (_, _, logits) in enumerate(samples)})
    return collect(given, dataset, range(len(dataset)))


def blob(rng: np.random.Generator, threshold: float, phrase: str = "cup") -> tuple[str, np.ndarray, np.ndarray]:
    """A sample that is answered without a fault at ``threshold``, and with faults at any other one."""
    logits = rng.uniform(-6, 6, (SIDE, SIDE))
    return phrase, sigmoid(logits) > threshold, logits


def test_scores_are_those_of_masks_at_each_threshold() -> None:
    rng = np.random.default_rng(0)
    mask, logits = rng.random((SIDE, SIDE)) < 0.3, rng.normal(0, 3, (SIDE, SIDE))
    (one,) = asked([("cup", mask, logits)])
    for place in (0, 100, 200, 300, 400):
        assert one.scores()[place] == pytest.approx(mask_iou(logits >= LOGITS[place], mask), abs=0.02)
    (absent,) = asked([("cup", np.zeros_like(mask), np.where(rng.random(mask.shape) < 0.1, 1.0, -1.0))])
    assert absent.scores()[LOGITS < -1.1].max() == 0
    assert absent.scores()[(LOGITS > -0.9) & (LOGITS < 0.9)].max() == 0, "a tenth of the image is answered"
    assert absent.scores()[LOGITS > 1.1].min() == 1


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.85])
def test_the_best_threshold_is_found(threshold: float) -> None:
    rng = np.random.default_rng(1)
    found, at = fit(asked([blob(rng, threshold) for _ in range(6)]))
    # At this temperature, which is that of the samples.
    logit = found.temperature * np.log(at / (1 - at))
    assert sigmoid(logit) == pytest.approx(threshold, abs=0.03)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_found(temperature: float) -> None:
    rng = np.random.default_rng(2)
    samples = []
    for _ in range(20):
        logits = rng.normal(0, 3, (SIDE, SIDE))
        samples.append(("cup", rng.random((SIDE, SIDE)) < sigmoid(logits / temperature), logits))
    collected = asked(samples)
    found, _ = fit(collected)
    assert found.temperature == pytest.approx(temperature, rel=0.1)
    predicted, right, share = reliability(collected, found.temperature)
    np.testing.assert_allclose(predicted, right, atol=0.04)
    assert share.sum() == pytest.approx(1)
    plain, corrected = measure(collected, Calibration(), 0.5), measure(collected, found, 0.5)
    assert corrected.error < 0.02
    assert corrected.error <= plain.error + 1e-6


def test_frequent_phrases_get_thresholds_of_their_own() -> None:
    rng = np.random.default_rng(3)
    samples = [blob(rng, 0.3, "cup") for _ in range(60)] + [blob(rng, 0.7, "box") for _ in range(60)]
    collected = asked([*samples, blob(rng, 0.7, "ball")])
    together, alone = fit(collected), fit(collected, per_phrase=True)
    assert set(alone[0].thresholds) == {"box", "cup"}, "one sample does not suffice"
    assert alone[0].thresholds["cup"] < alone[0].thresholds["box"]
    assert measure(collected, *alone).named_iou > measure(collected, *together).named_iou + 0.02


def test_fewer_absent_phrases_are_answered_where_that_is_asked() -> None:
    rng = np.random.default_rng(4)
    samples = [blob(rng, 0.4) for _ in range(100)]
    nothing = np.zeros((SIDE, SIDE), bool)
    # Each of these is answered up to a probability of its own.
    for peak in np.linspace(0.45, 0.99, 20):
        samples.append(("box", nothing, np.full((SIDE, SIDE), np.log(peak / (1 - peak)))))
    collected = asked(samples)
    free, bound = fit(collected), fit(collected, most_answered=0.1)
    assert measure(collected, *bound).absent_answered <= 0.1
    assert measure(collected, *free).absent_answered > 0.1
    assert measure(collected, *bound).named_iou < measure(collected, *free).named_iou
    own, at = fit(collected, per_phrase=True, most_answered=0.1)
    assert min(own.thresholds.values()) >= at - 1e-9


def test_ignored_pixels_do_not_count() -> None:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[:10] = True
    ignored = np.zeros_like(mask)
    ignored[10:20] = True
    sample = ReferringSample(np.zeros((SIDE, SIDE, 3), np.uint8), "cup", mask, "one", ignored=ignored)
    (one,) = collect(Given({"one": np.where(mask | ignored, 5.0, -5.0)}), [sample], [0])
    assert one.scores()[200] == 1
    assert one.inside.sum() + one.outside.sum() == SIDE * SIDE - 10 * SIDE


def test_a_mask_of_another_size_is_told() -> None:
    sample = ReferringSample(np.zeros((SIDE, SIDE, 3), np.uint8), "cup", np.zeros((3, 3), bool), "one")
    with pytest.raises(DataError, match="one: its mask"):
        collect(Given({"one": np.zeros((SIDE, SIDE))}), [sample], [0])
