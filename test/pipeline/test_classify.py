# SPDX-License-Identifier: Apache-2.0
"""``Predictor.classify`` beside the obvious way: all probabilities at all pixels, and the largest of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clip_seg_ros.models.base import ImageFeatures, TextFeatures
from clip_seg_ros.models.maskclip.refinement import sums_to_probabilities
from clip_seg_ros.models.spec import InputSpec, ModelSpec, SlidingWindow
from clip_seg_ros.pipeline.class_labels import UNLABELLED, ClassMap
from clip_seg_ros.pipeline.deciding import Rules, decide
from clip_seg_ros.pipeline.mixing import mixing
from clip_seg_ros.pipeline.predictor import EncodedImage, Predictor
from clip_seg_ros.pipeline.preprocess import Geometry
from clip_seg_ros.pipeline.sliding import window_boxes
from clip_seg_ros.runtime.engine import Engine
from nearness import assert_near

TABLE = Path(__file__).parents[2] / "examples" / "table"
COLORS = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
WHOLE = InputSpec(64, "short_side", 16, *COLORS)
WINDOWS = replace(WHOLE, size=96, window=SlidingWindow(64, 43))


def names_of(count: int) -> tuple[str, ...]:
    return tuple(f"thing {number}" for number in range(count))


class Prepared(Engine):
    """Answers with the same smooth logits, whatever it is asked."""

    device, precision = torch.device("cpu"), "float32"

    def __init__(
        self, spec: ModelSpec, size: tuple[int, int], steepness: float, probabilities: Callable | None = None
    ) -> None:
        self.spec = spec
        self.geometry = Geometry.fit(size, spec.input)
        window = spec.input.window
        self.boxes = None if window is None else tuple(window_boxes(self.geometry.model_size, window))
        count = len(spec.class_names or ()) or 20 + len(spec.background_prompts)
        torch.manual_seed(0)
        coarse = steepness * torch.randn(len(self.boxes or [0]), count, 4, 5)
        top, left, bottom, right = (self.boxes or [(0, 0, *self.geometry.model_size)])[0]
        places = (-(-(bottom - top) // 4), -(-(right - left) // 4))
        self.logits = F.interpolate(coarse, size=places, mode="bicubic", align_corners=False)
        self._probabilities = probabilities

    def encode_image(self, pixels: torch.Tensor) -> ImageFeatures:
        return ImageFeatures()

    def encode_text(self, prompts: list[str]) -> TextFeatures:
        return TextFeatures(torch.zeros(len(prompts), 1))

    def decode(self, image: ImageFeatures, text: TextFeatures) -> torch.Tensor:
        return self.logits

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        if self._probabilities is not None:
            return self._probabilities(logits)
        return logits.softmax(dim=1) if self.spec.competition == "softmax" else logits.sigmoid()

    def fingerprint(self) -> str:
        return "0" * 16


def asked_of(engine: Prepared) -> tuple[Predictor, EncodedImage]:
    return Predictor(engine), EncodedImage(ImageFeatures(), engine.geometry, engine.boxes)


def obvious_way(
    predictor: Predictor, encoded: EncodedImage, names: tuple[str, ...], min_confidence: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the labels and the confidence by the probabilities of all classes at all pixels."""
    spec = predictor.spec
    maps = predictor.ask(encoded, spec.class_names or names)
    best = maps.values.max(axis=0)
    winner = maps.values.argmax(axis=0)
    labels = np.array([names.index(name) if name in names else UNLABELLED for name in maps.prompts])[winner]
    labels[~(best >= min_confidence)] = UNLABELLED
    if spec.background_prompts and spec.class_names is None:
        labels[1.0 - maps.values.sum(axis=0) > best] = UNLABELLED
    return labels, maps.values[[maps.prompts.index(name) for name in names]].max(axis=0)


def assert_same(found: ClassMap, labels: np.ndarray, confidence: np.ndarray) -> None:
    """Where one class is the best all around, probabilities are interpolated instead of logits."""
    assert found.labels.shape == labels.shape
    assert found.labels.dtype == np.uint8
    assert (found.labels == labels).mean() >= 0.999
    error = np.abs(found.confidence - confidence)
    assert error.mean() < 0.01
    assert np.quantile(error, 0.99) < 0.1


SPECS = {
    "fixed": ModelSpec("fixed", WHOLE, "softmax", class_names=names_of(20)),
    "windows": ModelSpec("windows", WINDOWS, "softmax", class_names=names_of(20)),
    "open": ModelSpec("open", WHOLE, "softmax", background_prompts=("wall", "sky", "floor")),
    "open windows": ModelSpec("open", WINDOWS, "softmax", background_prompts=("wall", "sky", "floor")),
    "alone": ModelSpec("alone", WHOLE, "sigmoid"),
    "alone in windows": ModelSpec("alone", WINDOWS, "sigmoid"),
    "letterbox": ModelSpec("letterbox", replace(WHOLE, resize="letterbox"), "sigmoid"),
    "many": ModelSpec("many", WHOLE, "softmax", class_names=names_of(255)),
}


@pytest.mark.parametrize("min_confidence", [0.0, 0.4])
@pytest.mark.parametrize("size", [(120, 160), (61, 83), (200, 90), (40, 50)])
@pytest.mark.parametrize("kind", SPECS)
def test_labels_are_those_of_all_probabilities(kind: str, size: tuple[int, int], min_confidence: float) -> None:
    engine = Prepared(SPECS[kind], size, steepness=2.0)
    predictor, encoded = asked_of(engine)
    names = names_of(255 if kind == "many" else 20)
    found = predictor.classify(encoded, names, min_confidence)
    labels, confidence = obvious_way(predictor, encoded, names, min_confidence)
    assert len(np.unique(labels)) > 3
    assert_same(found, labels, confidence)


@pytest.mark.parametrize("steepness", [0.05, 20.0])
@pytest.mark.parametrize("kind", ["fixed", "windows", "open"])
def test_flat_and_steep_logits(kind: str, steepness: float) -> None:
    predictor, encoded = asked_of(Prepared(SPECS[kind], (120, 160), steepness))
    labels, _ = obvious_way(predictor, encoded, names_of(20), 0.0)
    assert (predictor.classify(encoded, names_of(20)).labels == labels).mean() >= 0.999


def test_some_of_the_classes_of_a_fixed_list() -> None:
    predictor, encoded = asked_of(Prepared(SPECS["fixed"], (120, 160), 2.0))
    names = ("thing 7", "thing 2", "thing 11")
    found = predictor.classify(encoded, names)
    labels, confidence = obvious_way(predictor, encoded, names, 0.0)
    assert found.names == names
    assert set(np.unique(labels)) == {0, 1, 2, UNLABELLED}
    assert_same(found, labels, confidence)


def test_sums_of_key_smoothing() -> None:
    predictor, encoded = asked_of(Prepared(SPECS["open"], (120, 160), 1.0, sums_to_probabilities))
    labels, confidence = obvious_way(predictor, encoded, names_of(20), 0.0)
    assert_same(predictor.classify(encoded, names_of(20)), labels, confidence)


def test_pixels_that_are_computed_one_by_one_are_exact() -> None:
    predictor, encoded = asked_of(Prepared(SPECS["windows"], (120, 160), 2.0))
    found = predictor.classify(encoded, names_of(20), 0.4)
    _, confidence = obvious_way(predictor, encoded, names_of(20), 0.4)
    assert 0 < len(np.unique(found.edges)) < confidence.size
    assert_near(found.edge_best, confidence.flat[found.edges], relative=1e-3)


@pytest.mark.parametrize("kind", ["fixed", "windows", "open", "alone"])
def test_confidence_where_two_classes_meet(kind: str) -> None:
    predictor, encoded = asked_of(Prepared(SPECS[kind], (120, 160), 2.0))
    found = predictor.classify(encoded, names_of(20))
    _, confidence = obvious_way(predictor, encoded, names_of(20), 0.0)
    assert len(found.edges) > 1000
    error = np.abs(found.edge_best - confidence.flat[found.edges])
    assert error.mean() < 0.002
    assert np.quantile(error, 0.99) < 0.05


@pytest.mark.parametrize("kind", ["fixed", "open"])
def test_what_is_not_a_number_has_no_class(kind: str) -> None:
    engine = Prepared(SPECS[kind], (120, 160), 2.0)
    engine.logits[:, 3, 4:8, 6:9] = torch.nan
    predictor, encoded = asked_of(engine)
    found = predictor.classify(encoded, names_of(20))
    labels, _ = obvious_way(predictor, encoded, names_of(20), 0.0)
    unlabelled = labels == UNLABELLED
    assert unlabelled.any()
    assert (found.labels[unlabelled] == UNLABELLED).all()
    # As are all other pixels of its blocks, which are as large as the distance between two places.
    around = cv2.dilate(unlabelled.astype(np.uint8), np.ones((17, 17), np.uint8)) > 0
    assert (found.labels[~around] == labels[~around]).all()


def test_only_the_background_is_there() -> None:
    engine = Prepared(SPECS["open"], (60, 80), 1.0)
    engine.logits[:, 20] += 100.0
    predictor, encoded = asked_of(engine)
    found = predictor.classify(encoded, names_of(20))
    assert (found.labels == UNLABELLED).all()
    assert found.confidence.max() < 1e-6


def test_one_class_everywhere() -> None:
    engine = Prepared(SPECS["fixed"], (60, 80), 1.0)
    engine.logits[:, 7] += 100.0
    predictor, encoded = asked_of(engine)
    found = predictor.classify(encoded, names_of(20))
    assert (found.labels == 7).all()
    assert_near(found.confidence, 1.0)
    assert len(found.edges) == 0


def test_few_pixels_are_computed_one_by_one() -> None:
    geometry = Geometry.fit((240, 320), WHOLE)
    mixed = mixing((16, 21), None, geometry.model_size, geometry.source_size, torch.device("cpu"))
    logits = torch.zeros(1, 3, 16, 21)
    logits[:, 0, :, :10], logits[:, 1, :, 10:] = 5.0, 5.0
    rules = Rules.of(names_of(3), names_of(3), SPECS["fixed"], 0.0, logits.device)
    asked = []

    def probabilities(values: torch.Tensor) -> torch.Tensor:
        asked.append(values.numel())
        return values.softmax(dim=1)

    decision = decide(logits, probabilities, mixed, rules)
    # The border between the two classes is a column of places wide, or about 15 of 320 pixels.
    assert 0 < len(decision.edges) < 0.15 * 240 * 320
    assert sum(asked) < 0.5 * 3 * 240 * 320


@pytest.mark.parametrize(
    ("count", "message"), [(0, "no prompts"), (256, "a label image tells 1 to 255 classes apart, got 256")]
)
def test_there_is_room_for_so_many_classes(count: int, message: str) -> None:
    predictor, encoded = asked_of(Prepared(SPECS["open"], (40, 50), 1.0))
    with pytest.raises(ValueError, match=message):
        predictor.classify(encoded, names_of(count))


@pytest.mark.parametrize("picture", ["color.jpg", "large.jpg"])
@pytest.mark.parametrize("name", ["denseclip-pocket", "maskclip-pocket", "maskclip-plus-pocket"])
def test_the_embedded_models_on_rendered_scenes(name: str, picture: str) -> None:
    predictor = Predictor.from_name(name, "cpu", engine="eager")
    encoded = predictor.encode(cv2.imread(str(TABLE / picture))[..., ::-1].copy())
    names = predictor.spec.class_names or ("cup", "box", "bottle", "bowl", "plate", "table")
    for min_confidence in (0.0, 0.6):
        found = predictor.classify(encoded, names, min_confidence)
        labels, confidence = obvious_way(predictor, encoded, names, min_confidence)
        assert len(np.unique(labels)) > 3
        assert (found.labels == labels).mean() >= 0.999
        assert np.abs(found.confidence - confidence).mean() < 0.01
