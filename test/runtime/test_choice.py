# SPDX-License-Identifier: Apache-2.0
"""Which engine is taken, with engines of known speed and known faults."""

from __future__ import annotations

import importlib.util
import json
import time
from pathlib import Path

import pytest
import torch

from clip_seg_ros.models.folding import fold_batch_norms
from clip_seg_ros.runtime import choice, gate
from clip_seg_ros.runtime.agreement import answers, compare
from clip_seg_ros.runtime.choice import Candidate, build_engine, plan
from clip_seg_ros.runtime.eager import EagerEngine
from clip_seg_ros.runtime.engine import EngineUnavailable
from clip_seg_ros.runtime.samples import sample_pixels
from clip_seg_ros.zoo.factory import build_segmenter
from color_segmenter import COLORS, ColorSegmenter
from small_models import small_detector

SLOW_S = 0.05
OPENVINO = "openvino int8, openvino bfloat16, openvino float16, openvino float32"


class SlowSegmenter(ColorSegmenter):
    """Takes its time, unless an engine runs it that need not."""

    def __init__(self):
        super().__init__(size=48)
        self.class_names = tuple(COLORS)
        self.pause_s = SLOW_S

    def encode_image(self, pixels):
        time.sleep(self.pause_s)
        return super().encode_image(pixels)


class Pretender(EagerEngine):
    """An engine that adds ``error`` to the logits and takes ``pause_s``."""

    def __init__(self, name, precision, error=0.0, pause_s=0.0):
        model = SlowSegmenter()
        model.pause_s = pause_s
        super().__init__(model, "cpu")
        self.name, self.precision, self._error = name, precision, error

    def decode(self, image, text):
        return super().decode(image, text) + self._error


def unavailable(candidate):
    raise EngineUnavailable(f"{candidate.engine} is not installed: pip install it")


@pytest.fixture
def offered(monkeypatch):
    """What the two engines of files are here: "openvino float32" -> what makes one. All others cannot be had."""
    offers = {}

    def make(candidate, model, device):
        offer = offers.get(f"{candidate.engine} {candidate.precision}")
        return offer() if offer else unavailable(candidate)

    monkeypatch.setattr(choice, "_exported", make)
    return offers


def build(folder, engine="auto", precision="auto"):
    built, chosen = build_engine(SlowSegmenter(), "cpu", engine, precision, folder)
    assert (built.name, built.precision) == (chosen.engine, chosen.precision)
    return chosen


@pytest.mark.parametrize(
    ("asked", "tiers", "last"),
    [
        ("cpu auto auto", f"{OPENVINO}; onnxruntime float32", "float32"),
        ("cpu auto float32", "openvino float32; onnxruntime float32", "float32"),
        ("cpu auto bfloat16", "openvino bfloat16", "bfloat16"),
        ("cpu auto int8", "openvino int8, onnxruntime int8", "float32"),
        ("cpu eager auto", "", "float32"),
        ("cpu eager bfloat16", "", "bfloat16"),
        ("cpu openvino auto", OPENVINO, "float32"),
        ("cpu openvino bfloat16", "openvino bfloat16", "bfloat16"),
        ("cpu onnxruntime int8", "onnxruntime int8", "float32"),
        ("cuda auto auto", "cuda_graph float16; eager float16", "float32"),
        ("cuda auto bfloat16", "cuda_graph bfloat16", "bfloat16"),
        ("cuda cuda_graph auto", "cuda_graph float16; cuda_graph float32", "float32"),
    ],
)
def test_what_is_tried(asked, tiers, last):
    device, engine, precision = asked.split()
    planned = plan(device == "cuda", engine, precision)
    assert "; ".join(", ".join(f"{each.engine} {each.precision}" for each in tier) for tier in planned.tiers) == tiers
    assert planned.last == Candidate("eager", last)


def test_at_once_nothing_is_measured(offered, tmp_path):
    offered["openvino float32"] = lambda: pytest.fail("this takes long")
    built, chosen = build_engine(SlowSegmenter(), "cpu", verdicts_dir=tmp_path, at_once=True)
    assert (built.name, chosen.engine, chosen.precision) == ("eager", "eager", "float32")
    assert chosen.is_provisional
    assert chosen.as_asked
    assert "still being measured" in str(chosen)


def test_at_once_what_was_measured_before_is_taken(offered, tmp_path):
    offered["openvino float32"] = lambda: Pretender("openvino", "float32")
    assert build(tmp_path).engine == "openvino"
    _, chosen = build_engine(SlowSegmenter(), "cpu", verdicts_dir=tmp_path, at_once=True)
    assert chosen.engine == "openvino"
    assert not chosen.is_provisional


@pytest.mark.parametrize("engine", ["eager", "openvino"])
def test_at_once_an_engine_that_was_asked_for_is_waited_for(offered, tmp_path, engine):
    offered["openvino float32"] = lambda: Pretender("openvino", "float32")
    _, chosen = build_engine(SlowSegmenter(), "cpu", engine, verdicts_dir=tmp_path, at_once=True)
    assert chosen.engine == engine
    assert not chosen.is_provisional


def test_without_other_engines_the_model_runs_all_the_same(offered, tmp_path):
    chosen = build(tmp_path)
    assert (chosen.engine, chosen.precision) == ("eager", "float32")
    assert chosen.as_asked
    assert chosen.complaint == ""
    assert "openvino in bfloat16: openvino is not installed: pip install it" in chosen.note
    assert "int8" not in chosen.note, "that nobody has exported it is no news"
    assert "float16" not in chosen.note.replace("bfloat16", ""), "that few processors have it, either"


def test_a_faster_engine_that_agrees_is_taken(offered, tmp_path):
    offered["openvino float32"] = lambda: Pretender("openvino", "float32")
    chosen = build(tmp_path)
    assert (chosen.engine, chosen.precision) == ("openvino", "float32")
    assert "times as fast as eager in float32, mean mask IoU 1.000" in chosen.note
    assert "openvino in bfloat16: openvino is not installed" in chosen.note


def test_the_fastest_of_a_tier_is_taken_whatever_its_place(offered, tmp_path):
    offered["openvino int8"] = lambda: Pretender("openvino", "int8", pause_s=SLOW_S / 2)
    offered["openvino bfloat16"] = lambda: Pretender("openvino", "bfloat16")
    offered["openvino float32"] = lambda: Pretender("openvino", "float32", pause_s=SLOW_S / 2)
    assert build(tmp_path).precision == "bfloat16"
    assert build(tmp_path).precision == "bfloat16", "also by what was measured before"


def test_halves_that_are_slower_than_float32_are_not_taken(offered, tmp_path):
    offered["openvino bfloat16"] = lambda: Pretender("openvino", "bfloat16", pause_s=SLOW_S / 2)
    offered["openvino float32"] = lambda: Pretender("openvino", "float32")
    assert build(tmp_path).precision == "float32"
    assert build(tmp_path, "openvino").precision == "float32"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"error": 3.0}, "openvino in bfloat16 does not agree with eager in float32: mean mask IoU 0."),
        ({"error": float("nan")}, "openvino in bfloat16 does not agree with eager in float32: mean mask IoU 0.000"),
        ({"pause_s": 2 * SLOW_S}, "openvino in bfloat16 is no faster: 0."),
    ],
)
def test_an_engine_that_errs_or_is_slow_is_not_taken(offered, tmp_path, fault, words):
    offered["openvino bfloat16"] = lambda: Pretender("openvino", "bfloat16", **fault)
    for _ in range(2):
        chosen = build(tmp_path)
        assert chosen.engine == "eager"
        assert words in chosen.note


def test_an_engine_that_dies_is_not_taken(offered, tmp_path):
    def dies():
        raise RuntimeError("no such operation\nand ten lines more")

    offered["openvino float32"] = dies
    chosen = build(tmp_path)
    assert chosen.engine == "eager"
    assert "openvino in float32: no such operation;" in chosen.note
    assert "ten lines" not in chosen.note


def test_the_second_start_measures_nothing(offered, tmp_path, monkeypatch):
    offered["openvino bfloat16"] = lambda: Pretender("openvino", "bfloat16")
    offered["openvino float32"] = lambda: Pretender("openvino", "float32", error=3.0)
    first = build(tmp_path)
    monkeypatch.setattr(gate.Gate, "__init__", lambda *_: pytest.fail("it measures again"))
    assert build(tmp_path) == first


def test_other_weights_are_measured_again(offered, tmp_path, monkeypatch):
    offered["openvino bfloat16"] = lambda: Pretender("openvino", "bfloat16")
    build(tmp_path)
    other = SlowSegmenter()
    other.sharpness.data += 1.0
    measured, measure = [], gate.Gate.measure
    monkeypatch.setattr(gate.Gate, "measure", lambda self, engine: measured.append(engine) or measure(self, engine))
    build(tmp_path)
    assert not measured
    build_engine(other, "cpu", verdicts_dir=tmp_path)
    assert measured


@pytest.mark.parametrize("content", ["", "[1, 2]", "{", '{"openvino in bfloat16": {"speedup": 9}}', "\ufffd"])
def test_a_damaged_file_is_measured_again(offered, tmp_path, content):
    offered["openvino bfloat16"] = lambda: Pretender("openvino", "bfloat16")
    build(tmp_path)
    (kept,) = tmp_path.iterdir()
    whole = kept.read_text()
    kept.write_text(content)
    assert build(tmp_path).engine == "openvino"
    assert json.loads(kept.read_text()).keys() == json.loads(whole).keys()


def test_a_folder_that_cannot_be_written_harms_nobody(offered, tmp_path):
    offered["openvino bfloat16"] = lambda: Pretender("openvino", "bfloat16")
    (tmp_path / "file").write_text("")
    assert build(tmp_path / "file").engine == "openvino"


def test_an_engine_that_was_asked_for_need_not_be_faster(offered, tmp_path):
    offered["openvino float32"] = lambda: Pretender("openvino", "float32", pause_s=2 * SLOW_S)
    assert build(tmp_path).engine == "eager"
    chosen = build(tmp_path, "openvino", "float32")
    assert chosen.engine == "openvino"
    assert chosen.as_asked


@pytest.mark.parametrize(
    ("engine", "precision", "words"),
    [
        ("openvino", "auto", "openvino in bfloat16: openvino is not installed"),
        ("onnxruntime", "float32", "onnxruntime in float32: onnxruntime is not installed"),
        ("auto", "int8", "openvino in int8: openvino is not installed"),
        ("eager", "int8", "the eager engine has no int8: use the engine openvino or onnxruntime"),
        pytest.param(
            "cuda_graph",
            "auto",
            "cuda_graph in float16: CUDA graphs need a CUDA device",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_what_was_asked_for_and_cannot_be_had_is_complained_of(offered, tmp_path, engine, precision, words):
    chosen = build(tmp_path, engine, precision)
    assert (chosen.engine, chosen.precision) == ("eager", "float32")
    assert not chosen.as_asked
    assert words in chosen.complaint


def test_the_eager_engine_is_not_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(gate.Gate, "__init__", lambda *_: pytest.fail("it measures"))
    for precision in ("float32", "bfloat16", "float16"):
        assert build(tmp_path, "eager", precision).note == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("cpu", "tensorrt", "auto"),
            'unknown engine "tensorrt": use auto, eager, cuda_graph',
        ),
        (("cpu", "auto", "half"), 'unknown precision "half": use auto, float32, bfloat16, float16 or int8'),
        (("tpu", "auto", "auto"), 'unknown device "tpu"'),
    ],
)
def test_unknown_names_are_errors(arguments, words):
    with pytest.raises(ValueError, match=words):
        build_engine(SlowSegmenter(), *arguments)


def test_what_is_kept_is_small(offered, tmp_path: Path):
    offered["openvino bfloat16"] = lambda: Pretender("openvino", "bfloat16")
    build(tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2000
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]


def test_another_export_of_int8_is_measured_again(offered, tmp_path, monkeypatch):
    def exported(identity, error):
        engine = Pretender("openvino", "int8", error)
        engine.identity = identity
        return engine

    offered["openvino int8"] = lambda: exported("good", 0.0)
    assert build(tmp_path).precision == "int8"
    offered["openvino int8"] = lambda: exported("bad", 3.0)
    chosen = build(tmp_path)
    assert chosen.engine == "eager"
    assert "openvino in int8 does not agree" in chosen.note
    offered["openvino int8"] = lambda: exported("good", 0.0)
    monkeypatch.setattr(gate.Gate, "__init__", lambda *_: pytest.fail("it measures again"))
    assert build(tmp_path).precision == "int8"


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")
@torch.inference_mode()
def test_what_is_chosen_on_this_machine_agrees_and_starts_soon_again(tmp_path, monkeypatch):
    def built():
        model = build_segmenter("clipseg-pocket")
        fold_batch_norms(model)
        return build_engine(model, "cpu", verdicts_dir=tmp_path)

    exact = EagerEngine(build_segmenter("clipseg-pocket"), "cpu")
    engine, chosen = built()
    assert chosen.engine in ("openvino", "onnxruntime", "eager"), chosen.note
    assert chosen.as_asked
    pixels, text = sample_pixels(exact.spec.input), exact.encode_text(["red cup", "blue box"])
    found = compare(answers(exact, pixels, text), answers(engine, pixels, text), "sigmoid", 0.5)
    assert found.is_good, found
    monkeypatch.setattr(gate.Gate, "__init__", lambda *_: pytest.fail("it measures again"))
    assert built()[1] == chosen


@pytest.mark.parametrize(
    ("engine", "precision", "met"), [("auto", "auto", True), ("eager", "float16", False), ("openvino", "auto", False)]
)
def test_a_detector_is_run_by_the_eager_engine_alone(tmp_path, monkeypatch, engine, precision, met):
    monkeypatch.setattr(gate.Gate, "__init__", lambda *_: pytest.fail("it measures other engines"))
    built, chosen = build_engine(small_detector(), "cpu", engine, precision, tmp_path)
    assert isinstance(built, EagerEngine)
    assert (chosen.engine, chosen.precision, chosen.as_asked) == ("eager", "float32", met)
    assert ("run by the eager engine in float32 alone" in chosen.note) != met
