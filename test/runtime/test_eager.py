# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from torch import nn

from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.runtime.eager import EagerEngine
from clip_seg_ros.zoo.factory import build_segmenter
from color_segmenter import ColorSegmenter, halves
from nearness import assert_near


def test_the_model_moves_to_the_device():
    engine = EagerEngine(ColorSegmenter(), "auto")
    assert engine.model.sharpness.device.type == engine.device.type
    assert not engine.model.training  # dropout would make answers differ
    maps = Predictor(engine).predict(halves("red", "blue"), ["red"])
    assert isinstance(maps.values, np.ndarray)
    assert maps.values[0, :, :28].min() > 0.5 > maps.values[0, :, 36:].max()


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision(precision):
    engine = EagerEngine(ColorSegmenter(), "cpu", precision)
    assert engine.model.sharpness.dtype == getattr(torch, precision)
    maps = Predictor(engine).predict(halves("red", "blue"), ["red"])
    assert maps.values.dtype == np.float32
    assert maps.values[0, :, :28].min() > 0.9
    assert maps.values[0, :, 36:].max() < 0.1


@pytest.mark.parametrize(("device", "precision"), [("tpu", "float32"), ("cpu", "half")])
def test_an_unknown_device_or_precision_is_refused(device, precision):
    with pytest.raises(ValueError, match=r'unknown (device "tpu"|precision "half")'):
        EagerEngine(ColorSegmenter(), device, precision)


def test_other_weights_have_another_fingerprint():
    engine, same = EagerEngine(ColorSegmenter(), "cpu"), EagerEngine(ColorSegmenter(), "cpu")
    assert engine.fingerprint() == same.fingerprint()
    assert len(engine.fingerprint()) == 16
    same.model.sharpness.data += 1
    assert engine.fingerprint() != same.fingerprint()


def test_the_spec_is_what_the_model_says():
    model = ColorSegmenter("softmax")
    model.background_prompts = ("green",)
    spec = EagerEngine(model, "cpu").spec
    assert (spec.name, spec.input, spec.competition) == ("color", model.input_spec, "softmax")
    assert spec.background_prompts == ("green",)
    assert spec.class_names is None
    assert not spec.takes_examples
    assert spec.known_words == ()
    assert spec.unknown_words("anything") == ()


def test_kernels_have_the_memory_format_of_the_pixels():
    model = build_segmenter("clipseg-pocket")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain = EagerEngine(build_segmenter("clipseg-pocket"), "cpu").fingerprint()
    engine = EagerEngine(model, "cpu")
    kinds = {type(module) for module in engine.model.modules() if getattr(module, "kernel_size", None) == (3, 3)}
    assert kinds == {nn.Conv2d}
    for module in engine.model.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.is_contiguous(memory_format=torch.channels_last)
        if isinstance(module, nn.ConvTranspose2d):
            assert module.weight.is_contiguous()
    assert all(torch.equal(value, before[name]) for name, value in engine.model.state_dict().items())
    assert engine.fingerprint() == plain


def test_the_memory_format_of_the_pixels_makes_no_difference():
    engine = EagerEngine(build_segmenter("clipseg-pocket"), "cpu")
    pixels = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = engine.encode_image(pixels)
        found = engine.encode_image(pixels.contiguous(memory_format=torch.channels_last))
    for one, other in zip(found.taps, expected.taps, strict=True):
        assert_near(one, other)
