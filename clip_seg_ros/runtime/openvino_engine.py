# SPDX-License-Identifier: Apache-2.0
"""The engine that runs models in OpenVINO, on CPUs."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from clip_seg_ros.models.base import PromptableSegmenter
from clip_seg_ros.runtime.converted import ConvertedEngine, Network
from clip_seg_ros.runtime.engine import EngineUnavailable
from clip_seg_ros.runtime.graphs import Graph, Size
from clip_seg_ros.runtime.optional_packages import optional_package

_CAPABILITIES = {"float32": "FP32", "bfloat16": "BF16", "float16": "FP16", "int8": "INT8"}
"""OpenVINO's names of the precisions."""
_DEVICE = "CPU"
_MOST_IDLE = 4
"""The number of infer requests that a network keeps for later calls; each has its own memory."""


class OpenVINOEngine(ConvertedEngine):
    """Runs a ``PromptableSegmenter`` in OpenVINO.

    The model is converted once and kept in the user's cache, where the next start finds it. torch's number of threads
    counts for OpenVINO, too.

    Args:
        model: A model with loaded weights and folded batch norms.
        precision: "float32", "bfloat16" or "float16" where the processor computes in it, or "int8" if `clip-seg export`
            made it.
        cache_dir: The folder of converted models; by default in the user's cache.

    Raises:
        EngineUnavailable: OpenVINO is not installed, the processor has no such precision, or the model cannot be
            converted.
        ValueError: The precision is unknown.
    """

    name = file_format = "openvino"
    packages = ("openvino",)

    def __init__(self, model: PromptableSegmenter, precision: str = "float32", cache_dir: Path | None = None) -> None:
        self._core = _openvino().Core()
        require_capability(self._core, precision)
        super().__init__(model, precision, cache_dir)

    def _write(self, folder: Path, size: Size) -> dict[str, object]:
        for part, graph in self._graphs(size).items():
            save_graph(to_openvino(graph), folder / f"{part}.xml")
        return {}

    def _read(self, folder: Path, part: str) -> Network:
        return compile_network(self._core, folder / f"{part}.xml", self.precision)


def require_capability(core: Any, precision: str) -> None:
    """Raises ValueError for an unknown precision, or EngineUnavailable for one that the processor lacks."""
    if precision not in _CAPABILITIES:
        raise ValueError(f'unknown precision "{precision}": use {" or ".join(_CAPABILITIES)}')
    if _CAPABILITIES[precision] not in core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES"):
        raise EngineUnavailable(
            f"this processor does not compute in {precision} (OpenVINO lists no {_CAPABILITIES[precision]} for it): "
            "use float32"
        )


def to_openvino(graph: Graph) -> Any:
    """Converts a graph to an ``openvino.Model`` with the names and the open dimensions of ``graph``.

    It does what ``openvino.convert_model`` does, without the reports of that function to its makers.

    Raises:
        EngineUnavailable: OpenVINO is not installed.
    """
    openvino = _openvino()
    passing = _openvino(".passes")
    reading = _openvino(".frontend.pytorch.fx_decoder").TorchFXPythonDecoder
    frontend = _openvino(".frontend").FrontEndManager().load_by_framework("pytorch")
    with _quiet_root_logger():
        decoder = reading.from_exported_program(graph.program)
        model = frontend.convert(frontend.load(decoder))
    shapes = {port: openvino.PartialShape(shape) for port, shape in zip(model.inputs, graph.open_shapes)}
    model.reshape(shapes)
    # Weights that are reshaped or transposed first would be taken for activations where the model is quantised.
    passes = passing.Manager()
    passes.register_pass(passing.ConstantFolding())
    passes.run_passes(model)
    for ports, names in ((model.inputs, graph.input_names), (model.outputs, graph.output_names)):
        for port, name in zip(ports, names, strict=True):
            port.get_tensor().set_names({name})
    return model


def save_graph(model: Any, path: Path) -> None:
    """Writes an ``openvino.Model`` as ``path``, which ends in .xml, and as the .bin beside it, in full precision."""
    _openvino().save_model(model, path, compress_to_fp16=False)


def compile_network(core: Any, path: Path, precision: str) -> Network:
    """Loads the graph in ``path`` and compiles it for the CPU.

    Args:
        core: An ``openvino.Core``.
        path: The .xml file.
        precision: A precision that ``require_capability`` let pass.
    """
    openvino = _openvino()
    if precision == "int8":
        # What stays in floats in a quantised graph.
        has_halves = "BF16" in core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
        precision = "bfloat16" if has_halves else "float32"
    types = {"float32": openvino.Type.f32, "bfloat16": openvino.Type.bf16, "float16": openvino.Type.f16}
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": types[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    return _Compiled(core.compile_model(core.read_model(path), _DEVICE, settings))


def _openvino(part: str = "") -> Any:
    """Imports OpenVINO, or a part of it, without its reports. Raises EngineUnavailable if it is not installed."""
    return optional_package(f"openvino{part}", "openvino")


class _Compiled:
    """A compiled graph, whose requests are lent to one call at a time."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._idle: list[Any] = []
        self._lock = threading.Lock()

    def __call__(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        with self._lock:
            request = self._idle.pop() if self._idle else None
        request = request or self._compiled.create_infer_request()
        arrays = [tensor.detach().contiguous().numpy() for tensor in tensors]
        # The outputs are copies, which no later call of this request overwrites.
        results = request.infer(arrays, share_inputs=True, share_outputs=False)
        outputs = [torch.from_numpy(results[index]) for index in range(len(self._compiled.outputs))]
        with self._lock:
            if len(self._idle) < _MOST_IDLE:
                self._idle.append(request)
        return outputs


@contextmanager
def _quiet_root_logger() -> Iterator[None]:
    """Keeps OpenVINO's converter from warning of operators, and of classes of torch, that this torch has no more."""

    def about_others(record: logging.LogRecord) -> bool:
        return "not found in decomp table" not in record.getMessage()

    # Its warnings come by way of the root logger, to which the first of them would give a handler for everything.
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addFilter(about_others)
    root.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        root.removeHandler(handler)
        root.removeFilter(about_others)
