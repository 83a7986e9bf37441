# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from clip_seg_ros.models.base import TextFeatures
from clip_seg_ros.models.spec import InputSpec, ModelSpec, SlidingWindow
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.runtime.engine import Engine
from color_segmenter import COLORS, ColorFeatures, ColorSegmenter, halves
from nearness import assert_near


@pytest.mark.parametrize("resize", ["short_side", "squash"])
@pytest.mark.parametrize("size", [(48, 64), (97, 131), (200, 30)])
def test_phrases_are_found_where_they_are(resize, size):
    predictor = Predictor.from_model(ColorSegmenter(resize=resize), "cpu")
    maps = predictor.predict(halves("red", "blue", size), ["blue", "green", "red"])
    assert maps.prompts == ("blue", "green", "red")
    assert maps.values.shape == (3, *size)
    assert maps.values.dtype == np.float32
    middle = size[1] // 2
    margin = 2 + size[1] // 20
    blue, green, red = maps.values > 0.5
    assert red[:, : middle - margin].all()
    assert not red[:, middle + margin :].any()
    assert blue[:, middle + margin :].all()
    assert not blue[:, : middle - margin].any()
    assert not green.any()


def test_one_encoding_answers_many_questions():
    model = ColorSegmenter()
    predictor = Predictor.from_model(model, "cpu")
    rgb = halves("red", "green")
    encoded = predictor.encode(rgb)
    together = predictor.ask(encoded, ["red", "green"])
    assert_near(predictor.ask(encoded, ("green",)).values[0], together.values[1])
    assert_near(predictor.predict(rgb, ["red", "green"]).values, together.values)
    assert model.images_encoded == 2
    assert model.texts_encoded == ["red", "green"]


def test_it_remembers_no_image():
    predictor = Predictor.from_model(ColorSegmenter(), "cpu")
    first = predictor.encode(halves("red", "blue"))
    expected = predictor.ask(first, ["red"]).values
    predictor.predict(halves("blue", "red", (20, 90)), ["red"])
    assert_near(predictor.ask(first, ["red"]).values, expected)


def test_competing_prompts_share_each_pixel():
    rgb = halves("red", "blue")
    maps = Predictor.from_model(ColorSegmenter("softmax"), "cpu").predict(rgb, ["red", "green", "blue"])
    assert_near(maps.values.sum(axis=0), 1.0)
    assert (maps.values.argmax(axis=0)[:, :28] == 0).all()
    assert (maps.values.argmax(axis=0)[:, 36:] == 2).all()


def test_the_model_is_evaluated_without_gradients():
    predictor = Predictor.from_model(ColorSegmenter(), "cpu")
    assert not predictor.engine.model.training  # dropout would make answers differ
    encoded = predictor.encode(halves("red", "blue"))
    assert encoded.features.rgb.is_inference()


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "no prompts"),
        ("red", r'write \["red"\]'),
        (["red", " "], "a prompt must be a phrase, got ' '"),
        ([None], "a prompt must be a phrase, got None"),
    ],
)
def test_prompts_are_checked_before_work_begins(prompts, message):
    model = ColorSegmenter()
    predictor = Predictor.from_model(model, "cpu")
    with pytest.raises(ValueError, match=message):
        predictor.predict(halves("red", "blue"), prompts)
    assert model.images_encoded == 0
    with pytest.raises(ValueError, match=message):
        predictor.ask(predictor.encode(halves("red", "blue")), prompts)


@pytest.mark.parametrize("rgb", [np.zeros((0, 0, 3), np.uint8), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), None])
def test_bad_images_are_refused(rgb):
    with pytest.raises(ValueError, match=r"an image needs at least one pixel|rgb must be a \(H, W, 3\) uint8 array"):
        Predictor.from_model(ColorSegmenter(), "cpu").predict(rgb, ["red"])


def test_a_single_pixel_is_an_image():
    maps = Predictor.from_model(ColorSegmenter(), "cpu").predict(np.array([[[255, 0, 0]]], np.uint8), ["red", "blue"])
    assert maps.values.shape == (2, 1, 1)
    assert maps.values[0, 0, 0] > 0.99
    assert maps.values[1, 0, 0] < 0.01


@pytest.mark.parametrize("resize", ["short_side", "squash", "letterbox"])
@pytest.mark.parametrize("size", [(480, 640), (375, 1242), (640, 480)])
def test_masks_lie_over_what_they_mean(resize, size):
    height, width = size
    rgb = np.zeros((height, width, 3), np.uint8)
    square = np.zeros(size, bool)
    square[height // 3 : 2 * height // 3, width // 2 : 3 * width // 4] = True
    rgb[square] = (255, 0, 0)
    predictor = Predictor.from_model(ColorSegmenter(resize=resize, size=224), "cpu")
    found = predictor.predict(rgb, ["red"]).values[0] > 0.5
    assert found.shape == size
    for axis, side in enumerate(size):
        cell = (max(size) if resize == "letterbox" else side if resize == "squash" else min(size)) / 224
        for mask_side in (0, -1):
            true_edge = np.flatnonzero(square.any(axis=1 - axis))[mask_side]
            edge = np.flatnonzero(found.any(axis=1 - axis))[mask_side]
            assert abs(edge - true_edge) <= 2 + cell / 2


def test_windows_answer_like_the_whole():
    rgb = halves("red", "blue", (96, 160))
    whole = Predictor.from_model(ColorSegmenter(size=96), "cpu").predict(rgb, ["red", "blue"])
    model = ColorSegmenter(size=96, window=SlidingWindow(64, 40))
    predictor = Predictor.from_model(model, "cpu")
    assert_near(predictor.predict(rgb, ["red", "blue"]).values, whole.values, relative=1e-2)
    assert model.images_encoded == 2 * 4


def test_a_batch_equals_its_images():
    images = [halves("red", "blue"), halves("blue", "green", (60, 40)), halves("green", "red")]
    model = ColorSegmenter(window=SlidingWindow(48, 32))
    predictor = Predictor.from_model(model, "cpu")
    together = predictor.predict_batch(images, ["red", "blue"])
    for rgb, maps in zip(images, together, strict=True):
        assert_near(maps.values, predictor.predict(rgb, ["red", "blue"]).values)


def test_a_background_competes_and_is_not_answered():
    model = ColorSegmenter("softmax")
    model.background_prompts = ("blue", "green")
    predictor = Predictor.from_model(model, "cpu")
    maps = predictor.predict(halves("red", "blue"), ["red"])
    assert maps.prompts == ("red",)
    assert maps.values[0, :, :28].min() > 0.9
    assert maps.values[0, :, 36:].max() < 0.1
    # A background phrase that is asked about is a prompt like any other.
    asked = predictor.predict(halves("red", "blue"), ["blue", "red"])
    assert asked.values[0, :, 36:].min() > 0.9


def test_a_fixed_list_of_classes_competes_whole():
    model = ColorSegmenter("softmax")
    model.class_names = ("red", "green", "blue")
    predictor = Predictor.from_model(model, "cpu")
    rgb = halves("red", "blue")
    every = predictor.predict(rgb, ["red", "green", "blue"]).values
    maps = predictor.predict(rgb, ["blue", "red"])
    assert maps.prompts == ("blue", "red")
    assert_near(maps.values, every[[2, 0]])
    with pytest.raises(ValueError, match='"pink" is not one of the 3 classes of color: red, green, blue'):
        predictor.predict(rgb, ["red", "pink"])


def test_each_thread_knows_how_long_it_was_in_the_model(monkeypatch):
    model = ColorSegmenter()
    encode_image, decode = model.encode_image, model.decode
    monkeypatch.setattr(model, "encode_image", lambda pixels: (time.sleep(0.05), encode_image(pixels))[1])
    monkeypatch.setattr(model, "decode", lambda image, text: (time.sleep(0.02), decode(image, text))[1])
    predictor = Predictor.from_model(model, "cpu")
    assert predictor.seconds == 0.0
    start_s = time.perf_counter()
    encoded = predictor.encode(halves("red", "blue"))
    assert 0.05 <= (encoding_s := predictor.seconds) <= time.perf_counter() - start_s
    predictor.ask(encoded, ["red"])
    assert predictor.seconds - encoding_s >= 0.02
    assert predictor.seconds <= time.perf_counter() - start_s
    elsewhere_s = []
    thread = threading.Thread(target=lambda: elsewhere_s.append(predictor.seconds))
    thread.start()
    thread.join()
    assert elsewhere_s == [0.0]


class TableEngine(Engine):
    """Answers by a table of colours, without any network of torch."""

    name, precision = "table", "float32"

    def __init__(self):
        self.spec = ModelSpec("table", InputSpec(32, "squash", 1, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), "sigmoid")
        self.device = torch.device("cpu")

    def encode_image(self, pixels):
        return ColorFeatures(pixels)

    def encode_text(self, prompts):
        return TextFeatures(torch.tensor([COLORS[prompt] for prompt in prompts]))

    def decode(self, image, text):
        near = [(image.rgb - color[:, None, None]).abs().sum(dim=1) < 0.5 for color in text.pooled]
        return torch.where(torch.stack(near, dim=1), 5.0, -5.0)

    def probabilities(self, logits):
        return logits.sigmoid()

    def fingerprint(self):
        return "0" * 16


def test_any_engine_can_be_asked():
    predictor = Predictor(TableEngine())
    maps = predictor.predict(halves("red", "blue"), ["red", "blue"])
    assert maps.values[0, :, :28].min() > 0.9
    assert maps.values[0, :, 36:].max() < 0.1
    assert maps.values[1, :, 36:].min() > 0.9
    assert predictor.spec.name == "table"
    assert predictor.precision == "float32"
    with pytest.raises(ValueError, match="table understands phrases alone: example images need a CLIPSeg"):
        predictor.add_image_prompt("mug", halves("red", "blue"), np.ones((48, 64), bool))


def test_whoever_asked_for_another_engine_is_warned_once():
    program = (
        "import warnings; from clip_seg_ros.api import EngineWarning, Predictor\n"
        "warnings.simplefilter('always', EngineWarning)\n"
        "for _ in range(2): found = Predictor.from_name('clipseg-pocket', 'cpu', engine='eager', precision='int8')\n"
        "print(found.chosen.engine, found.precision, found.chosen.as_asked)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "eager float32 False\n"
    assert result.stderr.count("EngineWarning") == 1
    assert "<string>:3: EngineWarning: the engine that was asked for cannot be had" in result.stderr
    assert "use the engine openvino or onnxruntime" in result.stderr


@pytest.mark.parametrize("wrong", [{"engine": "tensorrt"}, {"precision": "half"}])
def test_an_unknown_engine_or_precision_is_an_error_before_anything_is_loaded(wrong):
    with pytest.raises(ValueError, match=r"unknown (engine|precision)"):
        Predictor.from_name("no-such-model", "cpu", **wrong)


def test_what_runs_a_model_is_told():
    predictor = Predictor.from_model(ColorSegmenter(), "cpu", "bfloat16")
    assert str(predictor.chosen) == "eager in bfloat16"
    assert predictor.chosen.complaint == ""
