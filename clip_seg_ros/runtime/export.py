# SPDX-License-Identifier: Apache-2.0
"""Exports a model to a folder that other programs can use without this package, and proves that it answers alike."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clip_seg_ros.models.base import PromptableSegmenter, TextFeatures
from clip_seg_ros.models.clip.tokenizer import Tokenizer
from clip_seg_ros.runtime.agreement import Agreement, compare
from clip_seg_ros.runtime.converted import Network
from clip_seg_ros.runtime.eager import fingerprint_of
from clip_seg_ros.runtime.engine_cache import KEPT, finish_folder
from clip_seg_ros.runtime.file_formats import FileFormat, require_format
from clip_seg_ros.runtime.graphs import (
    TEXT_INPUTS,
    Graph,
    Size,
    image_graphs,
    templates_of,
    text_graph,
    text_tensors,
    tokenised,
)
from clip_seg_ros.runtime.onnx_graphs import OPSET

LARGEST_ERROR = 1e-3
"""The largest difference that logits and text features may have in float32, as a share of the largest value."""
TEXT_FEATURES = "text_features.npz"
"""The file with the text features of a model with a list of classes, in their order."""
_QUANTISED = (("encoder", "decoder"), ("encoder",), ("decoder",))
"""What int8 is tried for, until the masks agree."""
_TEXTS_AT_ONCE = 2
"""The prompts that a text tower gets in one call: templates make dozens of phrases of each."""
_LOG = logging.getLogger(__name__)


class ExportRefused(Exception):
    """An export whose answers differ too much from those of the model; the message has the figures."""


@dataclass(frozen=True)
class Request:
    """What to export."""

    file_format: str
    """"onnx" or "openvino"."""
    precision: str
    """"float32", "bfloat16", "float16" or "int8"; see ``FileFormat.precisions``."""
    size: Size
    """(h, w) of the model's pixels."""
    keep_anyway: bool = False
    """Whether to keep it even if its answers differ too much."""


@dataclass(frozen=True)
class Samples:
    """What the answers are compared on, and for int8 also what the ranges of numbers are taken from."""

    pixels: Sequence[torch.Tensor]
    """Of each image (B, 3, h, w) float32, normalised; B is the number of windows of the image, or 1."""
    prompts: tuple[str, ...]
    """P prompts, which are asked together: all classes, or some phrases with the background phrases."""


@dataclass(frozen=True)
class Exported:
    """What came of an export."""

    agreement: Agreement
    """Of the answers of all parts together: those of the exported decoder to the exported text tower's features."""
    precisions: Mapping[str, str]
    """The precision of every part."""
    text_features: float | None
    """The largest difference of text features, as a share of the largest value; ``None`` without a text tower."""

    def is_good(self, precision: str) -> bool:
        """Whether the answers may stand for those of the model."""
        if precision == "float32":
            return max(self.agreement.logits, self.text_features or 0.0) <= LARGEST_ERROR
        return self.agreement.is_good

    def __str__(self) -> str:
        texts = "" if self.text_features is None else f", text features by up to {self.text_features:.2g}"
        return f"{self.agreement}, logits differ by up to {self.agreement.logits:.2g} of the largest{texts}"


@torch.inference_mode()
def export_model(model: PromptableSegmenter, request: Request, samples: Samples, folder: Path) -> Exported:
    """Writes a model to ``folder``, which is there completely or not at all.

    Args:
        model: A model with loaded weights and folded batch norms, on the CPU in float32.
        request: What to export.
        samples: The images and prompts on which the answers are compared.
        folder: The folder to make. What is there already is replaced.

    Raises:
        EngineUnavailable: A package is missing, or the processor lacks the precision.
        ExportRefused: The answers differ too much; nothing is written then.
        OSError: The folder cannot be written.
        RuntimeError: The model cannot be exported.
        ValueError: The format or the precision is unknown, or there are no samples.
    """
    file_format = require_format(request.file_format, request.precision)
    if not samples.pixels or not samples.prompts:
        raise ValueError("an export is compared with the model on at least one image and one prompt")
    graphs = image_graphs(model, request.size, with_decoder=True)
    if model.class_names is None:
        graphs["text"] = text_graph(model)
    text = text_tensors(model.encode_text(samples.prompts))
    with _finished_at(folder) as partial, _finished_at(None) as work:
        for part, graph in graphs.items():
            file_format.save(graph, work / f"{part}{file_format.suffix}")
        trial = _Trial(model, file_format, samples, text, graphs, work)
        found = trial.put_together(request.precision, partial)
        if not found.is_good(request.precision) and not request.keep_anyway:
            raise ExportRefused(_refusal(model, request, found))
        values = _metadata(model, request, graphs, found, samples)
        values["tokenizer"] = write_texts(model, partial)
        finish_folder(partial, values)
    return found


class _Trial:
    """Makes the files of a precision from those in float32, and compares their answers with the model's."""

    def __init__(
        self,
        model: PromptableSegmenter,
        file_format: FileFormat,
        samples: Samples,
        text: tuple[torch.Tensor, ...],
        graphs: Mapping[str, Graph],
        work: Path,
    ) -> None:
        self._model, self._format, self._samples, self._text, self._work = model, file_format, samples, text, work
        self._token_ids = tokenised(model, samples.prompts) if "text" in graphs else None
        self._attends = {part: graph.attends for part, graph in graphs.items()}
        features = TextFeatures(*text)
        self._expected = [model.decode(model.encode_image(pixels), features).clone() for pixels in samples.pixels]

    def put_together(self, precision: str, folder: Path) -> Exported:
        """Writes all parts into ``folder``; with int8, as few parts in int8 as the masks need to agree."""
        if precision != "int8":
            changed = ("encoder", "decoder", "text")
            return self._compared({part: precision for part in changed if self._may_change(part)}, folder)
        quantised = self._quantise()
        found: list[tuple[dict[str, str], Exported]] = []
        for parts in _QUANTISED:
            wanted = {part: "int8" for part in parts if part in quantised}
            if wanted and all(wanted != tried for tried, _ in found):
                found.append((wanted, self._compared(wanted, folder)))
                if found[-1][1].is_good(precision):
                    return found[-1][1]
        wanted, best = max(found, key=lambda each: each[1].agreement.mean_iou)
        return self._compared(wanted, folder) if best is not found[-1][1] else best

    def _may_change(self, part: str) -> bool:
        # A light decoder computes in float32 in torch, too.
        return not (part == "decoder" and self._model.light_decode)

    def _quantise(self) -> list[str]:
        """Writes the parts in int8 beside those in float32; returns their names."""
        self._quantise_part("encoder", [[pixels] for pixels in self._samples.pixels])
        if not self._may_change("decoder"):
            return ["encoder"]
        encode = self._format.load(self._file("encoder"), "float32")
        try:
            self._quantise_part("decoder", [[*encode([pixels]), *self._text] for pixels in self._samples.pixels])
        except RuntimeError as error:
            # Most of the work is the encoder's.
            _LOG.warning("the decoder of %s stays in float32: %s", self._model.name, error)
            return ["encoder"]
        return ["encoder", "decoder"]

    def _quantise_part(self, part: str, inputs: Sequence[Sequence[torch.Tensor]]) -> None:
        self._format.quantise(
            self._file(part), self._file(part, "int8"), inputs, self._attends[part], smooth=part == "encoder"
        )

    def _compared(self, changed: Mapping[str, str], folder: Path) -> Exported:
        """Writes the parts, those of ``changed`` in its precisions and all others in float32."""
        for path in folder.iterdir():
            path.unlink()
        networks: dict[str, Network] = {}
        precisions = {}
        for part in ("encoder", "decoder", "text"):
            if not self._file(part).is_file():
                continue
            precisions[part] = changed.get(part, "float32")
            target = folder / self._file(part).name
            if precisions[part] == "float16":
                self._format.halve(self._file(part), target)
            else:
                for suffix in (self._format.suffix, ".bin", f"{self._format.suffix}.data"):
                    source = self._file(part, precisions[part]).with_suffix(suffix)
                    if source.is_file():
                        shutil.copyfile(source, target.with_suffix(suffix))
            networks[part] = self._format.load(target, precisions[part])
        encode, decode, text, error = networks["encoder"], networks["decoder"], self._text, None
        if self._token_ids is not None:
            rows = [networks["text"]([some]) for some in self._token_ids.split(_TEXTS_AT_ONCE)]
            text = tuple(torch.cat(tensors) for tensors in zip(*rows, strict=True))
            error = _largest_error(self._text, text)
        answers = [decode([*encode([pixels]), *text])[0] for pixels in self._samples.pixels]
        agreement = compare(self._expected, answers, self._model.competition, self._model.threshold)
        return Exported(agreement, precisions, error)

    def _file(self, part: str, precision: str = "float32") -> Path:
        folder = self._work / "int8" if precision == "int8" else self._work
        folder.mkdir(exist_ok=True)
        return folder / f"{part}{self._format.suffix}"


def _largest_error(expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> float:
    """Returns the largest difference in any pair of tensors, as a share of that pair's largest expected value.

    It is infinite if there is a value that is no number.
    """
    error = 0.0
    for right, other in zip(expected, found, strict=True):
        right, other = right.double(), other.double()
        if not other.isfinite().all():
            return float("inf")
        error = max(error, float((right - other).abs().max() / right.abs().max().clamp(min=1e-30)))
    return error


def write_texts(model: PromptableSegmenter, folder: Path) -> dict[str, Any] | None:
    """Writes what stands for the tokenizer of ``model``, and returns its description for the metadata.

    For a model with a list of classes, which needs no tokenizer, these are the text features of its classes.
    """
    if model.class_names is not None:
        names = TEXT_INPUTS
        tensors = text_tensors(model.encode_text(model.class_names))
        np.savez(folder / TEXT_FEATURES, **{name: tensor.numpy() for name, tensor in zip(names, tensors)})
        return None
    tokenizer = model.tokenizer
    assert isinstance(tokenizer, Tokenizer)
    return {**tokenizer.write(folder), "templates": list(templates_of(model))}


def _metadata(
    model: PromptableSegmenter, request: Request, graphs: Mapping[str, Graph], found: Exported, samples: Samples
) -> dict[str, Any]:
    file_format = require_format(request.file_format, request.precision)
    spec = {name: value for name, value in asdict(model.spec).items() if name not in ("unknown_words", "known_words")}
    packages = ("clip_seg_ros", "torch", *file_format.packages, *(["nncf"] if request.precision == "int8" else []))
    scale = getattr(getattr(model, "config", None), "logit_scale", 1.0)
    return {
        "format": request.file_format,
        "precision": request.precision,
        "model": spec,
        "fingerprint": fingerprint_of(model),
        "probabilities": {"function": model.competition, "scale": scale},
        "size": list(request.size),
        "opset": OPSET if request.file_format == "onnx" else None,
        "parts": {
            part: {
                "file": f"{part}{file_format.suffix}",
                "precision": found.precisions[part],
                "inputs": {name: list(shape) for name, shape in zip(graph.input_names, graph.input_shapes)},
                "outputs": list(graph.output_names),
            }
            for part, graph in graphs.items()
        },
        "text_features": None if model.class_names is None else TEXT_FEATURES,
        "agreement": {
            **asdict(found.agreement),
            "text_features": found.text_features,
            "images": len(samples.pixels),
            "prompts": list(samples.prompts),
        },
        "versions": {name: _version(name) for name in packages},
        KEPT: True,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # a ROS 2 workspace has no metadata of this package
        return None


def _refusal(model: PromptableSegmenter, request: Request, found: Exported) -> str:
    advice = {
        "float32": "report this, with the versions of torch and of the runtime",
        "int8": "calibrate with more images, of what the robot sees, or use another precision",
    }.get(request.precision, "use float32")
    return (
        f"{model.name} in {request.precision} for {request.file_format} does not answer as the model does ({found}), "
        f"and is not kept: {advice}, or type --keep-anyway"
    )


@contextmanager
def _finished_at(folder: Path | None) -> Iterator[Path]:
    """Gives a new folder that becomes ``folder`` at the end, or is removed if there is none or an error."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="clip_seg_ros_export_") as work:
            yield Path(work)
        return
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    partial.mkdir()
    try:
        yield partial
        if folder.is_dir():
            shutil.rmtree(folder)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
