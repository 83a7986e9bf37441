# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from clip_seg_ros.models.folding import fold_batch_norms
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.runtime import converted
from clip_seg_ros.runtime.converted import PROMPTS_AT_ONCE, Network
from clip_seg_ros.runtime.eager import EagerEngine
from clip_seg_ros.runtime.engine import EngineUnavailable
from clip_seg_ros.runtime.engine_cache import EngineCache, engine_key
from clip_seg_ros.runtime.gate import Gate
from clip_seg_ros.runtime.graphs import image_graphs, usual_size
from clip_seg_ros.runtime.openvino_engine import OpenVINOEngine, save_graph, to_openvino
from clip_seg_ros.runtime.optional_packages import optional_package
from clip_seg_ros.zoo.factory import build_segmenter
from nearness import assert_near
from small_models import CLASSES, CONFIGS, small_model

try:
    openvino = optional_package("openvino", "openvino")
except EngineUnavailable as error:
    pytest.skip(str(error), allow_module_level=True)
CAPABILITIES = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
pytestmark = pytest.mark.usefixtures("converts_here")
SHIPPED = ("clipseg-pocket", "maskclip-pocket")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that the tests share, because a conversion takes seconds."""
    return tmp_path_factory.mktemp("engines")


def build(name: str):
    if name in CONFIGS:
        return small_model(name)
    model = build_segmenter(name)
    fold_batch_norms(model)
    return model


@pytest.mark.parametrize("name", [*CONFIGS, *SHIPPED])
def test_it_answers_as_torch_does(name: str, folder: Path) -> None:
    model = build(name)
    engine, eager = OpenVINOEngine(model, cache_dir=folder), EagerEngine(model, "cpu")
    # A single prompt has nothing to compete with but the background.
    few = (*CLASSES[:1], *model.background_prompts)
    for images, prompts in ((1, model.class_names or CLASSES), (3, model.class_names or few)):
        pixels = torch.randn(images, 3, *usual_size(model))
        with torch.inference_mode():
            text = eager.encode_text(prompts)
            expected = eager.decode(eager.encode_image(pixels), text)
            features = engine.encode_image(pixels)
            logits = engine.decode(features, engine.encode_text(prompts))
        assert logits.dtype == torch.float32
        assert_near(logits, expected, 1e-4)
        # Features of one image out of many.
        assert_near(engine.decode(features.rows(images - 1, images), text), expected[-1:], 1e-4)
    assert (engine.name, engine.precision, engine.spec) == ("openvino", "float32", model.spec)
    assert engine.fingerprint() == eager.fingerprint()


@pytest.mark.skipif("BF16" not in CAPABILITIES, reason="this processor does not compute in bfloat16")
@pytest.mark.parametrize("name", SHIPPED)
def test_in_bfloat16_masks_are_nearly_the_same(name: str, folder: Path) -> None:
    model, rgb = (
        build(name),
        np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8).repeat(30, 0).repeat(30, 1),
    )
    engine = OpenVINOEngine(model, "bfloat16", folder)
    prompts = model.class_names or ("red cup", "blue box", "table")
    found = Predictor(engine).predict(rgb, prompts).values
    expected = Predictor.from_model(model, "cpu").predict(rgb, prompts).values

    assert engine.precision == "bfloat16"
    assert np.abs(found - expected).max() > 0, "it was not computed in bfloat16"
    assert np.abs(found - expected).mean() < 0.01


@pytest.mark.skipif("BF16" in CAPABILITIES, reason="this processor computes in bfloat16")
def test_a_precision_that_the_processor_lacks_is_refused() -> None:
    with pytest.raises(EngineUnavailable, match=r"does not compute in bfloat16 .*: use float32"):
        OpenVINOEngine(small_model("cris"), "bfloat16")


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match='unknown precision "half": use float32 or bfloat16'):
        OpenVINOEngine(small_model("cris"), "half")


def test_int8_must_have_been_exported(folder: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"no int8 export of small-cris .* type `clip-seg export small-cris "):
        OpenVINOEngine(small_model("cris"), "int8", folder)


def test_an_int8_export_for_another_size_is_used_and_what_is_missing_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, size, cache = small_model("clipseg-vit"), (64, 48), EngineCache(tmp_path)
    eager = EagerEngine(model, "cpu")
    key = engine_key(model, eager.fingerprint(), "openvino-int8", size, ("openvino",))
    graphs = image_graphs(model, size, with_decoder=True)

    def write(folder: Path) -> dict[str, object]:
        for part, graph in graphs.items():
            save_graph(to_openvino(graph), folder / f"{part}.xml")
        return {}

    caplog.set_level(logging.WARNING)
    caplog.clear()  # torch's own about the graphs
    cache.store(key, write)
    cache.store(key.replace("64x48", "96x48"), write)
    engine = OpenVINOEngine(model, "int8", tmp_path)
    assert engine.start_size == size
    verdict = Gate(eager).measure(engine)
    assert 0 < verdict.agreement.logits < 0.1, "it was measured on what torch answers"
    assert caplog.text == ""
    with torch.inference_mode():
        text = engine.encode_text(CLASSES)
        for other in (usual_size(model), (80, 48)):
            pixels = torch.randn(1, 3, *other)
            for _ in range(5):
                answer = engine.decode(engine.encode_image(pixels), text)
                engine.wait()
                assert_near(answer, model.decode(model.encode_image(pixels), text), 1e-5)
    first, second = (record.getMessage() for record in caplog.records)
    assert "64x48 stay with the slower engine: there is no int8 export of small-clipseg-vit for openvino" in first
    assert first.endswith("--precision int8 --calibration FOLDER`")
    assert second.endswith("--precision int8 --calibration FOLDER --image-size 48x80`")


@pytest.mark.parametrize("size", [(480, 640), (720, 1280), (1080, 1920), (1242, 376), (37, 500), (600, 601)])
def test_images_of_the_size_of_pixels_have_pixels_of_that_size(size: tuple[int, int]) -> None:
    for spec in (small_model("clipseg-vit").input_spec, build("clipseg-pocket").input_spec):
        assert spec.encoder_size(spec.encoder_size(size)) == spec.encoder_size(size)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EngineUnavailable, match=r"openvino cannot be imported .*pip install clip_seg_ros\[openvino\]"):
        OpenVINOEngine(small_model("cris"))


def test_a_model_is_converted_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    OpenVINOEngine(small_model("cris"), cache_dir=folder)
    monkeypatch.setattr(converted, "convert_elsewhere", lambda *_: pytest.fail("it was converted again"))

    OpenVINOEngine(small_model("cris"), cache_dir=folder)


def test_a_damaged_conversion_is_made_again(tmp_path: Path) -> None:
    model = small_model("student")
    OpenVINOEngine(model, cache_dir=tmp_path)
    (weights,) = tmp_path.glob("*/encoder.bin")
    weights.write_bytes(weights.read_bytes()[:-100])
    pixels = torch.randn(1, 3, 64, 64)

    found = OpenVINOEngine(model, cache_dir=tmp_path).encode_image(pixels).logits
    with torch.inference_mode():
        assert_near(found, model.encode_image(pixels).logits, 1e-4)


def test_where_nothing_can_be_kept_it_works_all_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    engine = OpenVINOEngine(small_model("student"), cache_dir=tmp_path / "file" / "engines")

    assert engine.encode_image(torch.zeros(1, 3, 64, 64)).logits.shape[:2] == (1, len(CLASSES))
    assert "cannot be kept" in caplog.text


def test_another_size_is_answered_at_once_and_converted_meanwhile(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    model = small_model("clipseg-vit")
    engine = OpenVINOEngine(model, cache_dir=folder)
    pixels = torch.randn(1, 3, 64, 48)
    with torch.inference_mode():
        text = engine.encode_text(["red"])
        expected = model.decode(model.encode_image(pixels), text)
        for _ in range(4):
            assert_near(engine.decode(engine.encode_image(pixels), text), expected, 1e-4)
        before = engine.encode_image(pixels)
        engine.wait()
        assert "converting small-clipseg-vit for openvino and pixels of 48x64" in caplog.text
        assert engine._decoder(before) is not None
        # What torch encoded, OpenVINO decodes, and the other way round.
        assert_near(engine.decode(before, text), expected, 1e-4)
        assert_near(model.decode(engine.encode_image(pixels), text), expected, 1e-4)


def test_some_of_the_classes_are_left_to_the_model(folder: Path) -> None:
    engine = OpenVINOEngine(small_model("denseclip-resnet"), cache_dir=folder)
    with torch.inference_mode(), pytest.raises(ValueError, match="all 3 classes must be asked together, got 1"):
        engine.decode(engine.encode_image(torch.zeros(1, 3, 64, 64)), engine.encode_text(["red"]))


def test_many_phrases_are_decoded_a_few_at_a_time(folder: Path) -> None:
    class Counting(OpenVINOEngine):
        """Notes how many texts each call of a network takes."""

        def _read(self, folder: Path, part: str) -> Network:
            network = super()._read(folder, part)

            def counted(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
                if part == "decoder":
                    sizes.append(tensors[-1].shape[0])
                return network(tensors)

            return counted

    sizes: list[int] = []
    model = small_model("cris")
    engine, phrases = (
        Counting(model, cache_dir=folder),
        [f"{CLASSES[i % 3]} {i}" for i in range(2 * PROMPTS_AT_ONCE + 3)],
    )
    pixels = torch.randn(2, 3, *usual_size(model))
    with torch.inference_mode():
        text = engine.encode_text(phrases)
        expected = model.decode(model.encode_image(pixels), text)
        assert_near(engine.decode(engine.encode_image(pixels), text), expected, 1e-4)
    assert sizes == [PROMPTS_AT_ONCE, PROMPTS_AT_ONCE, 3]


def test_threads_get_their_own_answers(folder: Path) -> None:
    model = small_model("cris")
    engine, text = OpenVINOEngine(model, cache_dir=folder), model.encode_text(["red", "cup"])
    images = [torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) for seed in range(6)]
    with torch.inference_mode():
        expected = [model.decode(model.encode_image(pixels), text) for pixels in images]
    found: dict[int, list[torch.Tensor]] = {}

    def ask(index: int) -> None:
        with torch.inference_mode():
            found[index] = [engine.decode(engine.encode_image(images[index]), text) for _ in range(10)]

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # All answers are compared after the last call, which must not have overwritten them.
    for index, wanted in enumerate(expected):
        for logits in found[index]:
            assert_near(logits, wanted, 1e-4)


def test_windows_of_an_image_are_one_batch(folder: Path) -> None:
    model, rgb = small_model("denseclip-resnet"), np.random.default_rng(0).integers(0, 255, (64, 160, 3), np.uint8)
    engine = OpenVINOEngine(model, cache_dir=folder)
    found = Predictor(engine).predict(rgb, CLASSES).values

    assert_near(found, Predictor.from_model(model, "cpu").predict(rgb, CLASSES).values, 1e-4)
