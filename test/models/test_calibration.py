# SPDX-License-Identifier: Apache-2.0
"""Logits are corrected so that one threshold fits every phrase."""

import pytest
import torch

from clip_seg_ros.models.calibration import Calibration, phrase_key
from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.models.spec import NOTHING_CORRECTED
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.zoo.build import StoredModel
from clip_seg_ros.zoo.factory import read_stored


def test_nothing_is_corrected_by_default() -> None:
    logits = torch.randn(1, 2, 3, 4)
    assert NOTHING_CORRECTED.applied(logits, ["cup", "box"], 0.5) is logits


def test_the_temperature_divides() -> None:
    logits = torch.randn(1, 2, 3, 4)
    torch.testing.assert_close(Calibration(2.0).applied(logits, ["cup", "box"], 0.5), logits / 2)


def test_the_models_threshold_stands_for_that_of_the_phrase() -> None:
    calibration = Calibration(2.0, {"cup": 0.8})
    # Just at the phrase's threshold after the temperature.
    logits = 2.0 * torch.logit(torch.tensor([0.8, 0.35])).view(1, 2, 1, 1)
    found = calibration.applied(logits, ["The  Cup", "box"], 0.35).sigmoid().flatten()
    torch.testing.assert_close(found, torch.tensor([0.35, 0.35]))


@pytest.mark.parametrize(
    ("phrase", "key"), [("The red  Cup", "red cup"), ("a cup", "cup"), ("the", "the"), ("anchor", "anchor")]
)
def test_articles_and_capitals_do_not_count(phrase: str, key: str) -> None:
    assert phrase_key(phrase) == key


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_wrong_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be more than 0"):
        Calibration(temperature)


def test_a_wrong_least_score_is_refused() -> None:
    with pytest.raises(ValueError, match=r"least score must lie in 0\.\.1"):
        Calibration(least_score=1.5)


@pytest.mark.parametrize("threshold", [0.0, 1.0, 2.0, float("nan")])
def test_a_wrong_threshold_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match='threshold of "cup" must lie between'):
        Calibration(1.0, {"cup": threshold})


def with_calibration(values: object) -> StoredModel:
    stored = read_stored("clipseg-pocket")
    return StoredModel({**stored.config, "calibration": values}, stored.tensors, "my.safetensors")


def test_a_weight_file_keeps_it() -> None:
    plain = Predictor.from_model(read_stored("clipseg-pocket").build("plain"))
    stored = with_calibration({"temperature": 2.0, "thresholds": {"red cup": 0.7}})
    calibrated = Predictor.from_model(stored.build("mine"))
    rgb = torch.randint(256, (96, 128, 3), dtype=torch.uint8).numpy()
    before, after = (
        torch.from_numpy(one.ask_cells(one.encode(rgb), ["red cup", "box"]).values).logit()
        for one in (plain, calibrated)
    )
    assert (after[0] < before[0] / 2).all(), "0.5 stands for 0.7"
    torch.testing.assert_close(after[1], before[1] / 2, atol=1e-3, rtol=1e-3)
    assert calibrated.spec.calibration == Calibration(2.0, {"red cup": 0.7})


@pytest.mark.parametrize("values", [{"temperature": -1}, {"warmth": 1}, "hot", None, {"thresholds": {"cup": 3}}])
def test_a_wrong_one_in_a_file_is_told(values: object) -> None:
    with pytest.raises(WeightsError, match=r"calibration in my.safetensors cannot be used.*clip-seg calibrate"):
        with_calibration(values).build("mine")
