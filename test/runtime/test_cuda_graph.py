# SPDX-License-Identifier: Apache-2.0
"""What surrounds the CUDA graphs, with a stand-in that overwrites its memory; and the graphs, where there is a GPU."""

from __future__ import annotations

import threading

import pytest
import torch

from clip_seg_ros.runtime import cuda_graph
from clip_seg_ros.runtime.capturing import CAPTURING
from clip_seg_ros.runtime.cuda_graph import CudaGraphEngine, bucket
from clip_seg_ros.runtime.eager import EagerEngine
from clip_seg_ros.runtime.engine import EngineUnavailable
from clip_seg_ros.zoo.factory import build_segmenter
from color_segmenter import COLORS, ColorSegmenter
from nearness import assert_near
from stand_in_graphs import StandIn, tensors_of

EMBEDDED = ("clipseg-pocket", "cris-pocket", "denseclip-pocket", "maskclip-pocket", "maskclip-plus-pocket")


def engine_of(model=None, **options):
    stand_in = StandIn(**options)
    return CudaGraphEngine(model or ColorSegmenter(), "cpu", "float32", stand_in), stand_in


def pixels(height=32, width=48, seed=0):
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", EMBEDDED)
@torch.inference_mode()
def test_all_models_answer_as_without_graphs(name):
    model = build_segmenter(name)
    plain, (engine, stand_in) = EagerEngine(model, "cpu"), engine_of(model)
    prompts = model.class_names or ("red cup", "blue box", "ball")
    text = engine.encode_text(prompts)
    for seed in range(3):
        image = pixels(64, 64, seed)
        features, expected = engine.encode_image(image), plain.encode_image(image)
        for one, other in zip(tensors_of(features), tensors_of(expected)):
            assert_near(one, other)
        assert_near(engine.decode(features, text), plain.decode(expected, text))
    assert stand_in.captured == 2
    assert stand_in.replays == [3, 3]


@pytest.mark.parametrize(("count", "filled"), [(1, 1), (2, 2), (3, 4), (5, 8), (16, 16), (17, 32), (33, 48)])
def test_prompts_are_filled_up(count, filled):
    assert bucket(count) == filled


@torch.inference_mode()
def test_one_graph_serves_all_numbers_of_prompts_that_fill_it():
    engine, stand_in = engine_of()
    features = engine.encode_image(pixels())
    for names in (["red", "green", "blue"], ["red", "green", "blue", "red"], ["blue", "blue", "red"]):
        text = engine.encode_text(names)
        logits = engine.decode(features, text)
        assert logits.shape == (1, len(names), 32, 48)
        assert_near(logits, EagerEngine(engine.model, "cpu").decode(features, text))
    assert stand_in.captured == 2


@torch.inference_mode()
def test_competing_prompts_are_not_filled_up():
    engine, stand_in = engine_of(ColorSegmenter("softmax"))
    features = engine.encode_image(pixels())
    for names in (["red", "green", "blue"], ["red", "green", "blue", "red"]):
        engine.decode(features, engine.encode_text(names))
    assert stand_in.captured == 3, "the image, three prompts and four prompts"


@torch.inference_mode()
def test_answers_outlive_later_calls():
    engine, _ = engine_of()
    red = engine.encode_text(["red"])
    first = engine.encode_image(pixels(seed=1))
    kept, answer = first.rgb.clone(), engine.decode(first, red)
    before = answer.clone()
    second = engine.encode_image(pixels(seed=2))
    assert torch.equal(first.rgb, kept)
    assert (engine.decode(second, red) - before).abs().max() > 0.01 * before.abs().max()
    assert torch.equal(answer, before)
    assert_near(engine.decode(first, red), before, message="an image can be asked again after another one")


@torch.inference_mode()
def test_four_sizes_are_kept_and_one_more_is_computed_without_a_graph():
    engine, stand_in = engine_of()
    sizes = [16 * (1 + index) for index in range(cuda_graph.KEPT + 1)]
    for _ in range(3):
        for side in sizes:
            assert engine.encode_image(pixels(side)).rgb.shape[2] == side
    assert stand_in.captured == cuda_graph.KEPT
    assert stand_in.replays == [3] * cuda_graph.KEPT


@torch.inference_mode()
def test_a_size_that_rests_makes_room():
    engine, stand_in = engine_of()
    for side in range(16, 16 * (cuda_graph.KEPT + 1), 16):
        engine.encode_image(pixels(side))
    for _ in range(cuda_graph.RESTED):
        engine.encode_image(pixels(32))
    engine.encode_image(pixels(160))
    assert stand_in.captured == cuda_graph.KEPT + 1
    engine.encode_image(pixels(16))
    assert stand_in.captured == cuda_graph.KEPT + 2, "the one that rested longest was dropped"


def test_threads_do_not_disturb_one_another():
    engine, _ = engine_of(pause_s=0.002)
    names = list(COLORS)
    with torch.inference_mode():
        text = engine.encode_text(names)
        images = [pixels(seed=seed) for seed in range(4)]
        plain = EagerEngine(engine.model, "cpu")
        expected = [plain.decode(plain.encode_image(image), text) for image in images]
    wrong = []

    def ask(image, right):
        with torch.inference_mode():
            for _ in range(8):
                answer = engine.decode(engine.encode_image(image), text)
                if not torch.allclose(answer, right, atol=1e-4):
                    wrong.append(answer)

    threads = [threading.Thread(target=ask, args=pair) for pair in zip(images, expected)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@torch.inference_mode()
def test_what_cannot_be_captured_is_computed_all_the_same(caplog):
    tried = []

    def refuses(step):
        tried.append(step)
        raise RuntimeError("operation not permitted when stream is capturing\nmore lines")

    engine = CudaGraphEngine(ColorSegmenter(), "cpu", "float32", refuses)
    assert engine.fault == ""
    for seed in range(3):
        image = pixels(seed=seed)
        assert_near(engine.encode_image(image).rgb, EagerEngine(engine.model, "cpu").encode_image(image).rgb)
    assert len(tried) == 1, "it is not tried again for every image"
    assert "operation not permitted when stream is capturing" in engine.fault
    assert "more lines" not in caplog.text
    assert caplog.text.count("computed without one") == 1


def test_half_precision_and_the_rest_are_those_of_the_eager_engine():
    model = ColorSegmenter()
    engine = CudaGraphEngine(model, "cpu", "bfloat16", StandIn())
    assert model.sharpness.dtype == torch.bfloat16
    assert (engine.name, engine.precision, engine.device.type) == ("cuda_graph", "bfloat16", "cpu")
    assert engine.fingerprint() == EagerEngine(model, "cpu", "bfloat16").fingerprint()
    assert_near(engine.probabilities(torch.zeros(1, 1, 2, 2)), 0.5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_without_a_gpu_there_is_a_clear_message(device):
    with pytest.raises(EngineUnavailable, match="need a CUDA device"):
        CudaGraphEngine(ColorSegmenter(), device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", EMBEDDED)
@torch.inference_mode()
def test_real_graphs_answer_as_without_graphs(name):
    model = build_segmenter(name)
    plain = EagerEngine(model, "cuda")
    engine = CudaGraphEngine(model, "cuda", "float32")
    text = engine.encode_text(model.class_names or ("red cup", "blue box", "ball"))
    for seed in range(3):
        image = pixels(64, 64, seed).cuda()
        assert_near(
            engine.decode(engine.encode_image(image), text), plain.decode(plain.encode_image(image), text), 1e-3
        )
    assert not engine.fault
    assert not CAPTURING.locked()
