# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from clip_seg_ros.models.base import PromptableSegmenter
from clip_seg_ros.runtime import export
from clip_seg_ros.runtime.agreement import NONE
from clip_seg_ros.runtime.eager import EagerEngine, fingerprint_of
from clip_seg_ros.runtime.engine import EngineUnavailable
from clip_seg_ros.runtime.engine_cache import METADATA, EngineCache, engine_key, read_metadata
from clip_seg_ros.runtime.export import ExportRefused, Request, Samples, export_model
from clip_seg_ros.runtime.file_formats import FORMATS
from clip_seg_ros.runtime.graphs import text_graph, tokenised, usual_size
from clip_seg_ros.runtime.openvino_engine import OpenVINOEngine
from clip_seg_ros.runtime.optional_packages import optional_package
from clip_seg_ros.runtime.samples import sample_pixels
from nearness import assert_near
from small_models import CLASSES, small_model

try:
    for name in ("openvino", "onnxruntime", "onnx", "onnxscript", "nncf"):
        optional_package(name, "export")
except EngineUnavailable as error:
    pytest.skip(str(error), allow_module_level=True)
ENDINGS = {"onnx": {"onnx"}, "openvino": {"xml", "bin"}}


def samples_of(model: PromptableSegmenter, prompts: tuple[str, ...] = CLASSES) -> Samples:
    return Samples(sample_pixels(model.input_spec), model.class_names or prompts)


def request_of(model: PromptableSegmenter, file_format: str = "openvino", precision: str = "float32") -> Request:
    return Request(file_format, precision, usual_size(model))


@pytest.mark.parametrize(
    ("kind", "file_format"),
    [
        ("clipseg-vit", "onnx"),
        ("clipseg-vit", "openvino"),
        ("clipseg-templates", "openvino"),
        ("cris", "onnx"),
        ("cris", "openvino"),
        ("denseclip-resnet", "onnx"),
        ("maskclip", "openvino"),
        ("talk2dino", "onnx"),
        ("talk2dino", "openvino"),
    ],
)
def test_the_parts_answer_as_the_model_without_it(kind: str, file_format: str, tmp_path: Path) -> None:
    model, folder = small_model(kind), tmp_path / "exported"
    exported = export_model(model, request_of(model, file_format), samples_of(model), folder)

    about = read_metadata(folder)
    load = FORMATS[file_format].load
    networks = {part: load(folder / values["file"], "float32") for part, values in about["parts"].items()}
    if about["text_features"] is not None:
        stored = np.load(folder / about["text_features"])
        text = [torch.from_numpy(stored[name]) for name in list(about["parts"]["decoder"]["inputs"]) if "text" in name]
    else:
        text = networks["text"]([tokenised(model, CLASSES)])
    (pixels, *_) = samples_of(model).pixels
    found = networks["decoder"]([*networks["encoder"]([pixels]), *text])[0]
    with torch.inference_mode():
        expected = model.decode(model.encode_image(pixels), model.encode_text(model.class_names or CLASSES))

    assert_near(found, expected, 1e-4)
    assert exported.agreement.logits < 1e-4
    assert about["agreement"]["logits"] == exported.agreement.logits
    assert about["agreement"]["text_features"] == exported.text_features
    assert (exported.text_features is None) == (model.class_names is not None)
    assert (exported.text_features or 0.0) < 1e-4
    assert ("text" in networks) == (model.class_names is None)
    assert {path.suffix[1:] for path in folder.iterdir()} - {"json", "npz", "txt"} == ENDINGS[file_format]


def test_the_metadata_says_how_to_use_it(tmp_path: Path) -> None:
    model = small_model("maskclip")
    export_model(model, request_of(model, "onnx"), samples_of(model), tmp_path / "exported")
    about = read_metadata(tmp_path / "exported")

    assert about["model"]["input"]["mean"] == [0.5, 0.4, 0.3]
    assert about["size"] == [48, 64]
    assert about["probabilities"] == {"function": "softmax", "scale": 100.0}
    assert about["opset"] == 18
    assert about["parts"]["encoder"]["inputs"] == {"pixels": ["batch", 3, 48, 64]}
    assert about["tokenizer"]["templates"] == ["{}", "a {}"]
    assert about["tokenizer"]["words"]["cup"] == [int(model.tokenizer(["cup"])[0, 1])]
    assert about["fingerprint"] == EagerEngine(model, "cpu").fingerprint(), "it says which weights are in it"
    assert about["versions"]["torch"] == torch.__version__
    assert EngineCache(tmp_path).find("exported") is not None, "the checksums fit"


@pytest.mark.parametrize("file_format", FORMATS)
def test_halves_are_half_as_large(file_format: str, tmp_path: Path) -> None:
    model, sizes, errors = small_model("cris"), [], []
    for precision in ("float32", "float16"):
        folder = tmp_path / precision
        exported = export_model(model, request_of(model, file_format, precision), samples_of(model), folder)
        assert set(exported.precisions.values()) == {precision}
        sizes.append(sum(path.stat().st_size for path in folder.glob("encoder.*") if path.suffix != ".xml"))
        errors.append(exported.text_features)

    assert sizes[1] < 0.7 * sizes[0]
    assert errors[0] < 1e-4 < errors[1] < 1e-2, "the texts are in halves, too"


@pytest.mark.parametrize(
    ("kind", "file_format"), [("clipseg-vit", "onnx"), ("cris", "openvino"), ("maskclip", "openvino")]
)
def test_int8_is_smaller_and_what_it_computes_is_measured(kind: str, file_format: str, tmp_path: Path) -> None:
    model = small_model(kind)
    request = replace(request_of(model, file_format, "int8"), keep_anyway=True)
    exported = export_model(model, request, samples_of(model), tmp_path / "exported")

    assert "int8" in exported.precisions.values()
    assert exported.precisions["text"] == "float32"
    assert 0 < exported.agreement.logits < 0.5
    assert exported.precisions["decoder"] == "float32" or not model.light_decode


def test_the_engine_finds_an_int8_export_in_its_cache(tmp_path: Path) -> None:
    model = small_model("clipseg-vit")
    request = replace(request_of(model, "openvino", "int8"), keep_anyway=True)
    key = engine_key(model, fingerprint_of(model), "openvino-int8", request.size, ("openvino",))
    export_model(model, request, samples_of(model), tmp_path / key)
    engine = OpenVINOEngine(model, "int8", tmp_path)
    pixels, text = samples_of(model).pixels[0], model.encode_text(CLASSES)
    with torch.inference_mode():
        found = engine.decode(engine.encode_image(pixels), text)
        expected = model.decode(model.encode_image(pixels), text)

    assert_near(found, expected, 0.5)
    assert (found - expected).abs().max() > 0, "it was not computed in int8"
    assert len(engine.identity) == 16
    # Another export is told apart.
    export_model(model, request, Samples(samples_of(model).pixels[:1], CLASSES), tmp_path / key)
    assert OpenVINOEngine(model, "int8", tmp_path).identity != engine.identity


def test_an_export_that_does_not_agree_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "compare", lambda *args: NONE)
    model = small_model("student")
    with pytest.raises(ExportRefused, match=r"does not answer as the model does \(mean mask IoU 0\.000.*--keep-anyway"):
        export_model(model, request_of(model), samples_of(model), tmp_path / "exported")
    assert list(tmp_path.iterdir()) == []

    request = replace(request_of(model), keep_anyway=True)
    export_model(model, request, samples_of(model), tmp_path / "exported")
    assert (tmp_path / "exported" / METADATA).is_file()


def test_the_text_tower_must_answer_alike_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = small_model("clipseg-vit"), small_model("clipseg-vit")
    with torch.no_grad():
        other.clip.text_projection.add_(0.1)
    monkeypatch.setattr(export, "text_graph", lambda _: text_graph(other))
    with pytest.raises(ExportRefused, match=r"logits differ by .*, text features by up to .*report this"):
        export_model(model, request_of(model), samples_of(model), tmp_path / "exported")
    request = replace(request_of(model), keep_anyway=True)
    exported = export_model(model, request, samples_of(model), tmp_path / "exported")

    assert exported.text_features > 1e-2
    assert exported.agreement.logits > 1e-3, "the answers are those to the exported tower's features"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file_format": "tflite"}, 'unknown format "tflite": use onnx or openvino'),
        (
            {"file_format": "onnx", "precision": "bfloat16"},
            "onnx is exported in .*, not in bfloat16",
        ),
    ],
)
def test_what_there_is_not_is_refused(changes: dict[str, str], message: str, tmp_path: Path) -> None:
    model = small_model("student")
    with pytest.raises(ValueError, match=message):
        export_model(model, replace(request_of(model), **changes), samples_of(model), tmp_path / "exported")


def test_there_must_be_something_to_compare(tmp_path: Path) -> None:
    model = small_model("student")
    with pytest.raises(ValueError, match="at least one image and one prompt"):
        export_model(model, request_of(model), Samples([], CLASSES), tmp_path / "exported")
