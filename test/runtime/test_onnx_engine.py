# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest
import torch

from clip_seg_ros.runtime import converted
from clip_seg_ros.runtime.eager import EagerEngine
from clip_seg_ros.runtime.engine import EngineUnavailable
from clip_seg_ros.runtime.graphs import usual_size
from clip_seg_ros.runtime.onnx_engine import OnnxRuntimeEngine
from clip_seg_ros.runtime.onnx_graphs import providers_of
from clip_seg_ros.runtime.optional_packages import optional_package
from nearness import assert_near
from small_models import CLASSES, small_model

try:
    onnxruntime = optional_package("onnxruntime", "onnxruntime")
    onnx = optional_package("onnx", "export")
    optional_package("onnxscript", "export")
except EngineUnavailable as error:
    pytest.skip(str(error), allow_module_level=True)
pytestmark = pytest.mark.usefixtures("converts_here")
HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that the tests share, because a conversion takes seconds."""
    return tmp_path_factory.mktemp("engines")


@pytest.mark.parametrize("kind", ["clipseg-vit", "cris", "denseclip-resnet", "maskclip", "student"])
def test_it_answers_as_torch_does(kind: str, folder: Path) -> None:
    model = small_model(kind)
    engine, eager = OnnxRuntimeEngine(model, cache_dir=folder), EagerEngine(model, "cpu")
    for images, prompts in ((1, model.class_names or CLASSES), (3, model.class_names or ("red",))):
        pixels = torch.randn(images, 3, *usual_size(model))
        with torch.inference_mode():
            text = eager.encode_text(prompts)
            expected = eager.decode(eager.encode_image(pixels), text)
            features = engine.encode_image(pixels)
            logits = engine.decode(features, engine.encode_text(prompts))
        assert_near(logits, expected, 1e-4)
        # Features of one image out of many.
        assert_near(engine.decode(features.rows(images - 1, images), text), expected[-1:], 1e-4)
    assert (engine.name, engine.precision, engine.spec) == ("onnxruntime", "float32", model.spec)
    assert engine.identity == ""


def test_a_model_is_converted_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    OnnxRuntimeEngine(small_model("cris"), cache_dir=folder)
    monkeypatch.setattr(converted, "convert_elsewhere", lambda *_: pytest.fail("it was converted again"))

    OnnxRuntimeEngine(small_model("cris"), cache_dir=folder)


def test_open_dimensions_have_names(folder: Path) -> None:
    OnnxRuntimeEngine(small_model("cris"), cache_dir=folder)
    (path,) = folder.glob("small-cris-*/decoder.onnx")
    graph = onnx.load(path).graph
    names = {item.name: item.type.tensor_type.shape.dim[0].dim_param for item in graph.input}

    assert names["feature_0"] == "batch"
    assert names["text_tokens"] == "prompts"
    assert [side.dim_param for side in graph.output[0].type.tensor_type.shape.dim[:2]] == ["batch", "prompts"]


def test_threads_get_their_own_answers(folder: Path) -> None:
    model = small_model("cris")
    engine, text = OnnxRuntimeEngine(model, cache_dir=folder), model.encode_text(["red", "cup"])
    images = [torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
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
    for index, wanted in enumerate(expected):
        for logits in found[index]:
            assert_near(logits, wanted, 1e-4)


@pytest.mark.parametrize("precision", ["half", "bfloat16"])
def test_an_unknown_precision_is_refused(precision: str) -> None:
    with pytest.raises(ValueError, match=f'unknown precision "{precision}" for ONNX Runtime: use float32 or int8'):
        OnnxRuntimeEngine(small_model("cris"), precision)


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(ValueError, match='unknown device "tpu" for ONNX Runtime: use cpu, cuda or cuda:N'):
        OnnxRuntimeEngine(small_model("cris"), device="tpu")


def test_a_cuda_device_has_a_number_and_the_processor_beside_it() -> None:
    assert [name for name, _ in providers_of("cpu")] == ["CPUExecutionProvider"]
    assert [name for name, _ in providers_of("cuda")] == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert providers_of("cuda:1")[0] == ("CUDAExecutionProvider", {"device_id": 1})


@pytest.mark.skipif(HAS_CUDA, reason="this ONNX Runtime computes on CUDA")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(EngineUnavailable, match=r"does not compute on cuda, .*pip install onnxruntime-gpu"):
        OnnxRuntimeEngine(small_model("cris"), device="cuda")


def test_int8_must_have_been_exported(folder: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"no int8 export of small-cris .*--format onnx --precision int8"):
        OnnxRuntimeEngine(small_model("cris"), "int8", cache_dir=folder)


@pytest.mark.parametrize(("package", "extra"), [("onnxruntime", "onnxruntime"), ("onnxscript", "export")])
def test_without_a_package_it_says_what_to_install(
    package: str, extra: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    # Another process would find the package.
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(EngineUnavailable, match=rf"{package} cannot be imported .*clip_seg_ros\[{extra}\]"):
        OnnxRuntimeEngine(small_model("student"), cache_dir=tmp_path)
